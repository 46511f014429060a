"""Packets, keys and SAs that the tests of IPsec share."""

import random
from pathlib import Path

from vitalgate.ip import ipv4, ipv6
from vitalgate.ip.packet import ESP, UDP
from vitalgate.ipsec.algorithms import Suite, suite
from vitalgate.ipsec.association import Mode, Parameters

VECTORS = Path(__file__).with_name("vectors.txt")
A4, B4 = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])
A6, B6 = bytes.fromhex("20010db8000000000000000000000001"), bytes.fromhex("20010db8000000000000000000000002")
IN4 = bytes([10, 1, 0, 1]), bytes([10, 2, 0, 1])
IN6 = bytes.fromhex("fd01" + "00" * 13 + "01"), bytes.fromhex("fd02" + "00" * 13 + "01")


def keymat(chosen: Suite, seed: int = 1) -> bytes:
    return random.Random(f"{chosen.name}/{seed}").randbytes(chosen.keymat)


def parameters(chosen: str | Suite, version: int = 4, mode: Mode = Mode.TUNNEL, **changes) -> Parameters:
    one = suite(chosen) if isinstance(chosen, str) else chosen
    ends = (A4, B4) if version == 4 else (A6, B6)
    given = {"spi": 0x1005, "protocol": ESP, "mode": mode, "suite": one, "key": keymat(one), "source": ends[0]}
    return Parameters(**{**given, "destination": ends[1], **changes})


def packet(version: int, size: int, protocol: int = UDP, ends: tuple[bytes, bytes] | None = None, **more) -> bytes:
    """A packet with ``size`` bytes behind its IP header."""
    body = random.Random(size).randbytes(size)
    if version == 4:
        source, destination = ends or (A4, B4)
        return ipv4.encode(ipv4.IPv4(source, destination, protocol, body, **more))
    source, destination = ends or (A6, B6)
    return ipv6.encode(ipv6.IPv6(source, destination, protocol, body, **more))
