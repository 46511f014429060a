"""AH: round trips, what may change on the way and what may not, bundles with ESP."""

import random

import pytest
from ipsec_packets import IN4, packet, parameters

from vitalgate.ip import ipv4, ipv6
from vitalgate.ip.packet import AH, HOP_BY_HOP, ROUTING, UDP, checksum
from vitalgate.ipsec.ah import AhInbound, AhOutbound
from vitalgate.ipsec.algorithms import ah_suites
from vitalgate.ipsec.association import Mode
from vitalgate.ipsec.esp import EspInbound, EspOutbound
from vitalgate.ipsec.ledger import Ledger
from vitalgate.ipsec.refusal import Refused


def pair(chosen="hmac-sha2-256-128", version=4, mode=Mode.TRANSPORT, **changes):
    given = parameters(chosen, version, mode, protocol=AH, **changes)
    ledger = Ledger()
    return (
        AhOutbound(given, allow_legacy=True, ledger=ledger),
        AhInbound(given, allow_legacy=True, ledger=ledger),
        ledger,
    )


@pytest.mark.parametrize("chosen", ah_suites(), ids=lambda chosen: chosen.name)
@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("esn", [False, True])
def test_round_trip_and_tampering(chosen, mode, version, esn):
    sender, receiver, ledger = pair(chosen, version, mode, esn=esn)
    for size in (0, 1, 30, 1400):
        clear = packet(version, size)
        sealed = sender.protect(clear)
        assert receiver.unprotect(sealed) == clear
        assert ledger.rows[-1].layout == ledger.rows[-2].layout
        assert len(sealed) - len(clear) == sender.overhead
        with pytest.raises(Refused, match="replay"):
            receiver.unprotect(sealed)
    sealed = sender.protect(packet(version, 20))
    free = {1, 6, 7, 8, 10, 11} if version == 4 else {0, 1, 2, 3, 7}
    for at in range(len(sealed)):
        if at in free:
            continue
        changed = bytearray(sealed)
        changed[at] ^= 0x10
        with pytest.raises(Refused):
            receiver.unprotect(bytes(changed))
    for size in range(len(sealed)):
        with pytest.raises(Refused):
            receiver.unprotect(sealed[:size])
    assert receiver.unprotect(sealed) == packet(version, 20)


@pytest.mark.parametrize(
    ("name", "transport", "tunnel", "four"),
    [("hmac-sha1-96", 112, 152, 24), ("hmac-md5-96", 112, 152, 24), ("hmac-sha2-256-128", 120, 160, 28)],
)
def test_sizes(name, transport, tunnel, four):
    for mode, expected in ((Mode.TRANSPORT, transport), (Mode.TUNNEL, tunnel)):
        assert len(pair(name, 6, mode)[0].protect(packet(6, 48))) == expected
    assert len(pair(name)[0].protect(packet(4, 48))) == 68 + four


def routed4(clear: bytes) -> bytes:
    """What routers do: TTL, DSCP, checksum."""
    made = bytearray(clear)
    made[8] -= 3
    made[1] = 0x2E
    made[10:12] = bytes(2)
    made[10:12] = checksum(bytes(made[:20])).to_bytes(2, "big")
    return bytes(made)


def test_what_routers_change_does_not_matter():
    sender, receiver, _ = pair()
    opened = receiver.unprotect(routed4(sender.protect(packet(4, 30))))
    assert ipv4.decode(opened).ttl == 61
    assert ipv4.decode(opened).payload == packet(4, 30)[20:]

    sender, receiver, _ = pair(version=6)
    sealed = bytearray(sender.protect(packet(6, 30)))
    sealed[:4] = b"\x6f\xf1\x23\x45"
    sealed[7] = 3
    assert receiver.unprotect(bytes(sealed))[40:] == packet(6, 30)[40:]


def test_ipv4_options():
    # Record route may change, router alert may not, a source route ends in the last address.
    for options, change, passes in (
        (bytes([7, 7, 4, 0, 0, 0, 0, 0]), slice(22, 27), True),
        (bytes([148, 4, 0, 0]), slice(22, 24), False),
    ):
        sender, receiver, _ = pair()
        sealed = bytearray(sender.protect(packet(4, 8, options=options)))
        sealed[change] = bytes([9]) * len(sealed[change])
        if passes:
            assert receiver.unprotect(bytes(sealed)) is not None
        else:
            with pytest.raises(Refused, match="integrity"):
                receiver.unprotect(bytes(sealed))
    sender, receiver, _ = pair()
    hop, last = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
    sealed = bytearray(sender.protect(packet(4, 8, ends=(IN4[0], hop), options=bytes([131, 7, 4]) + last + b"\0")))
    assert sealed[16:20] == hop
    sealed[16:20], sealed[22], sealed[23:27] = last, 8, hop
    assert receiver.unprotect(bytes(sealed)) is not None


def test_ipv6_options_and_routing():
    # An option of type 0x3e may change, one of type 0x1e may not.
    for kind, passes in ((0x3E, True), (0x1E, False)):
        sender, receiver, _ = pair(version=6)
        hop = bytes([UDP, 0, kind, 4, 1, 2, 3, 4])
        clear = packet(6, 0, HOP_BY_HOP)[:40] + hop + bytes(8)
        clear = clear[:4] + (len(clear) - 40).to_bytes(2, "big") + clear[6:]
        sealed = bytearray(sender.protect(clear))
        sealed[44:48] = b"abcd"
        if passes:
            assert receiver.unprotect(bytes(sealed))[44:48] == b"abcd"
        else:
            with pytest.raises(Refused, match="integrity"):
                receiver.unprotect(bytes(sealed))
    one, two = bytes([0xFD, *range(15)]), bytes([0xFD, *range(1, 16)])
    clear = ipv6.decode(packet(6, 0))
    first = clear.destination
    routing = bytes([UDP, 4, 0, 2, 0, 0, 0, 0]) + one + two
    made = ipv6.encode(ipv6.IPv6(clear.source, first, ROUTING, routing + bytes(8)))
    sender, receiver, _ = pair(version=6)
    sealed = bytearray(sender.protect(made))
    sealed[43] = 0
    sealed[24:40], sealed[48:64], sealed[64:80] = two, first, one
    assert receiver.unprotect(bytes(sealed)) is not None
    wrong = bytearray(made)
    wrong[43] = 3
    with pytest.raises(Refused, match="malformed"):
        sender.protect(bytes(wrong))


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("modes", [(Mode.TRANSPORT, Mode.TRANSPORT), (Mode.TUNNEL, Mode.TRANSPORT)])
def test_a_bundle_of_esp_and_ah(version, modes):
    ledger = Ledger()
    inner, outer = (
        parameters("aes-gcm-16", version, modes[0]),
        parameters("hmac-sha2-256-128", version, modes[1], protocol=AH),
    )
    sealed = clear = packet(version, 100)
    for each in (EspOutbound(inner, ledger=ledger), AhOutbound(outer, ledger=ledger)):
        sealed = each.protect(sealed)
    for each in (AhInbound(outer), EspInbound(inner)):
        sealed = each.unprotect(sealed)
    assert sealed == clear


def test_any_bytes():
    source = random.Random(3)
    for version in (4, 6):
        _, receiver, _ = pair(version=version)
        for _ in range(300):
            data = source.randbytes(source.randrange(100))
            if data and source.random() < 0.8:
                data = bytes([0x45 if version == 4 else 0x60]) + data[1:]
                data = data[:9] + b"\x33" + data[10:] if version == 4 else data[:6] + b"\x33" + data[7:]
            with pytest.raises(Refused):
                receiver.unprotect(data)
