"""The ESP benchmark: packets built and opened by the transforms alone, beside the bare AEAD call on the same bytes."""

import os
import timeit
from collections.abc import Callable
from typing import Any, Final

from vitalgate.ip.packet import ESP
from vitalgate.ipsec.algorithms import Suite, suite
from vitalgate.ipsec.association import Mode, Parameters
from vitalgate.ipsec.esp import EspInbound, EspOutbound

SUITES: Final = (
    "aes-gcm-16/128",
    "aes-gcm-16-iiv/128",
    "aes-ccm-8/128",
    "aes-ccm-8-iiv/128",
    "chacha20-poly1305",
    "aes-cbc/128+hmac-sha2-256-128",
    "aes-ctr/128+hmac-sha2-256-128",
)
SIZES: Final = (64, 512, 1400)
"""Bytes of the inner packet."""


def _opening(receiver: EspInbound, packets: list[bytes]) -> Callable[[], object]:
    # `next` is part of what is timed, to our own cost.
    following = iter(packets)
    return lambda: receiver.unprotect(next(following))


def _measure(chosen: Suite, size: int, rounds: int, number: int) -> dict[str, float]:
    key = os.urandom(chosen.keymat)
    parameters = Parameters(0x1001, ESP, Mode.TUNNEL, chosen, key, bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2]))
    sender, receiver = EspOutbound(parameters), EspInbound(parameters)
    # A whole IPv4 header with DF set, as most hosts send; its checksum is nobody's business here.
    packet = b"\x45\0" + size.to_bytes(2, "big") + b"\0\0\x40\0\x40\x11\0\0" + bytes(size - 12)
    encryption = chosen.encryption
    assert encryption is not None, "suites of ESP have one"
    times: dict[str, list[float]] = {"built": [], "opened": [], "encrypt": [], "decrypt": []}
    aead = encryption.aead(key[: chosen.key]) if encryption.aead is not None else None
    nonce, aad = bytes(encryption.salt + 8), bytes(8)
    sealed = aead.encrypt(nonce, packet, aad) if aead is not None else b""
    # Rounds of all four follow each other, and the best of each counts: other work on the machine hits all alike.
    for _ in range(rounds):
        times["built"].append(timeit.timeit(lambda: sender.protect(packet), number=number))
        opening = _opening(receiver, [sender.protect(packet) for _ in range(number)])
        times["opened"].append(timeit.timeit(opening, number=number))
        if aead is not None:
            times["encrypt"].append(timeit.timeit(lambda: aead.encrypt(nonce, packet, aad), number=number))
            times["decrypt"].append(timeit.timeit(lambda: aead.decrypt(nonce, sealed, aad), number=number))
    best = {name: min(found) / number for name, found in times.items() if found}
    result = {"built_pps": round(1 / best["built"]), "opened_pps": round(1 / best["opened"])}
    if aead is None:
        return dict(result)
    return result | {
        "ratio_to_aead_built": round(best["built"] / best["encrypt"], 2),
        "ratio_to_aead_opened": round(best["opened"] / best["decrypt"], 2),
    }


def bench_esp(*, rounds: int, number: int) -> dict[str, Any]:
    """Run it: ``rounds`` of ``number`` packets for each suite and size. ``ratio_to_aead`` is the largest multiple of
    the bare call's time, of building and opening, over all AEAD suites and sizes."""
    suites = {name: {str(size): _measure(suite(name), size, rounds, number) for size in SIZES} for name in SUITES}
    ratios = [
        value for sizes in suites.values() for found in sizes.values() for key, value in found.items() if "ratio" in key
    ]
    return {"suites": suites, "ratio_to_aead": max(ratios)}
