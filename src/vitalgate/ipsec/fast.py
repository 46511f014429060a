"""The straight way through an ESP tunnel: `EspOutbound.protect` and `EspInbound.unprotect` in one call each.

For what most traffic is: an AEAD with a sent or implicit IV, 32-bit sequence numbers, no UDP header, no size hiding, no
ledger. It does what the general way does, in the same order, on the same state; tests hold the two to the same bytes.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag

from vitalgate.ip.packet import IP_IN_IP, IPV6, NO_NEXT_HEADER
from vitalgate.ipsec.association import Mode, Parameters
from vitalgate.ipsec.placing import inner_packet
from vitalgate.ipsec.protection import HEADER, IV, split_key
from vitalgate.ipsec.refusal import Drop, Refused
from vitalgate.ipsec.tunnel import decapsulated

if TYPE_CHECKING:
    from vitalgate.ipsec.esp import EspInbound, EspOutbound

_ALIGN: Final = 4


def fits(parameters: Parameters) -> bool:
    """Whether an SA can go this way."""
    encryption = parameters.suite.encryption
    return (
        encryption is not None
        and encryption.combined
        and not encryption.authenticates_only
        and encryption.align == _ALIGN
        and parameters.mode is Mode.TUNNEL
        and not parameters.esn
        and not parameters.tfc
        and parameters.encapsulation is None
    )


def protector(
    sa: "EspOutbound", wrap: Callable[[bytes, bytes], bytes], pads: Callable[[int, int], tuple[bytes, ...]]
) -> Callable[[bytes], bytes]:
    """`EspOutbound.protect` for ``sa``, which `fits`."""
    parameters = sa.parameters
    encryption = parameters.suite.encryption
    assert encryption is not None, "it fits"
    assert encryption.aead is not None, "it fits"
    key, salt, _ = split_key(parameters.suite, parameters.key)
    encrypt = encryption.aead(key).encrypt
    spi, explicit = parameters.spi, encryption.iv > 0
    header_of, iv_of = HEADER.pack, IV.pack
    four, six = pads(_ALIGN, IP_IN_IP), pads(_ALIGN, IPV6)
    check, limit = sa._check_octets, sa._limit

    def protect(packet: bytes) -> bytes:
        size = len(packet)
        sa.packets += 1
        sa.octets = octets = sa.octets + size
        if octets > sa._octet_stop:
            check()
        sequence = sa.sequence + 1
        if sequence > sa._stop:
            sequence = limit(sequence)
        sa.sequence = sequence
        trailer = four[size & 3] if packet[0] < 0x60 else six[size & 3]
        header = header_of(spi, sequence)
        iv = iv_of(sequence)
        if explicit:
            return wrap(packet, header + iv + encrypt(salt + iv, packet + trailer, header))
        return wrap(packet, header + encrypt(salt + iv, packet + trailer, header))

    return protect


def unprotector(
    sa: "EspInbound", general: Callable[[bytes], bytes | None], pads: tuple[bytes, ...]
) -> Callable[[bytes], bytes | None]:
    """`EspInbound.unprotect` for ``sa``, which `fits`; ``general`` takes packets with options and extension headers."""
    parameters = sa.parameters
    encryption = parameters.suite.encryption
    assert encryption is not None, "it fits"
    assert encryption.aead is not None, "it fits"
    key, salt, _ = split_key(parameters.suite, parameters.key)
    decrypt = encryption.aead(key).decrypt
    spi, explicit, ecn = parameters.spi, encryption.iv > 0, parameters.ecn
    fixed = 20 + 8 + encryption.iv + encryption.icv
    named, iv_of = HEADER.unpack_from, IV.pack
    window, packet_stop = sa.window, sa._packet_stop
    bits = window.bits

    def unprotect(packet: bytes) -> bytes | None:
        rest = len(packet) - fixed
        if rest < 2 or rest & 3 or packet[0] != 0x45 or packet[9] != 50 or packet[7] or packet[6] & 0x3F:
            return general(packet)
        found, low = named(packet, 20)
        if found != spi:
            raise Refused(Drop.UNKNOWN_SA)
        if sa.octets > sa._octet_stop:
            sa._check_octets()
        ahead = low - window.highest
        if ahead <= 0 and window.number(low) is None:
            raise Refused(Drop.REPLAY)
        try:
            if explicit:
                plain = decrypt(salt + packet[28:36], packet[36:], packet[20:28])
            else:
                plain = decrypt(salt + iv_of(low), packet[28:], packet[20:28])
        except InvalidTag as error:
            raise Refused(Drop.INTEGRITY) from error
        if ahead == 1:
            window.seen = (window.seen << 1 | 1) & bits
            window.highest = low
        else:
            window.mark(low)
        sa.packets += 1
        padding = plain[-2]
        end = rest - 2 - padding
        if end < 0 or plain[end:-2] != pads[padding]:
            raise Refused(Drop.PADDING)
        sa.octets += end
        if sa.packets > packet_stop:
            sa._check_packets()
        next_header = plain[-1]
        if next_header == NO_NEXT_HEADER:
            return None
        inner = plain[:end]
        if next_header != IP_IN_IP or end < 20 or plain[0] != 0x45 or plain[2] << 8 | plain[3] != end:
            inner = inner_packet(inner, next_header)
        return decapsulated(inner, packet[1], ecn=ecn) if packet[1] else inner

    return unprotect
