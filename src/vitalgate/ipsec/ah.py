"""The Authentication Header (RFC 4302): `AhOutbound.protect`, `AhInbound.unprotect`."""

import struct
from collections.abc import Callable
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.constant_time import bytes_eq

from vitalgate.ip import ipv4, ipv6
from vitalgate.ip.packet import (
    AH,
    DESTINATION_OPTIONS,
    HOP_BY_HOP,
    IP_IN_IP,
    IPV6,
    NO_NEXT_HEADER,
    ROUTING,
    PacketError,
)
from vitalgate.ipsec.association import Association, Mode, Parameters
from vitalgate.ipsec.ledger import Layout, Ledger, Row
from vitalgate.ipsec.outbound import Outbound, Reserve
from vitalgate.ipsec.placing import find, inner_packet, joined, split
from vitalgate.ipsec.protection import split_key
from vitalgate.ipsec.refusal import Drop, Refused
from vitalgate.ipsec.replay import ReplayWindow
from vitalgate.ipsec.tunnel import decapsulated, traffic_class

HEADER: Final = struct.Struct("!BBHII")
SIZE: Final = HEADER.size
_IMMUTABLE: Final = frozenset((0, 1, 130, 133, 134, 148, 149))
"""IPv4 options that stay as they are on the way (RFC 4302 appendix A1)."""
_SOURCE_ROUTES: Final = frozenset((131, 137))
_CHANGES: Final = 0x20
"""The bit of an IPv6 option's type that says its data may change (RFC 8200 section 4.2)."""
_ROUTES: Final = frozenset((0, 2))
"""Types of routing headers whose form at the destination can be foretold (RFC 4302 appendix A2, RFC 6275)."""

Icv: TypeAlias = Callable[[bytes, bytes], bytes]
"""(authenticated bytes, IV) to ICV."""


def immutable(packet: bytes, start: int) -> bytes:
    """What lies before the AH at ``start``, with every field that may change on the way zero or as it will be at the
    destination (section 3.3.3.1). Raises `Refused`."""
    try:
        return _immutable4(packet[:start]) if packet[0] >> 4 == 4 else _immutable6(packet, start)
    except PacketError as error:
        raise Refused(Drop.MALFORMED) from error


def _immutable4(header: bytes) -> bytes:
    made = bytearray(header)
    made[1] = 0
    made[6:9] = bytes(3)
    made[10:12] = bytes(2)
    options = header[ipv4.MINIMUM :]
    for kind, start, end in ipv4.option_ranges(options):
        if kind in _SOURCE_ROUTES and end - start >= 7 and options[start + 2] <= end - start:
            made[16:20] = options[end - 4 : end]
        if kind not in _IMMUTABLE:
            made[ipv4.MINIMUM + start : ipv4.MINIMUM + end] = bytes(end - start)
    return bytes(made)


def _immutable6(packet: bytes, start: int) -> bytes:
    made = bytearray(packet[:start])
    made[:4] = b"\x60\0\0\0"
    made[7] = 0
    for extension in ipv6.chain(packet).extensions:
        if extension.start >= start:
            break
        if extension.kind in (HOP_BY_HOP, DESTINATION_OPTIONS):
            for kind, first, end in ipv6.option_ranges(packet, extension):
                if kind & _CHANGES:
                    made[first:end] = bytes(end - first)
        elif extension.kind == ROUTING:
            _route(made, extension)
    return bytes(made)


def _route(made: bytearray, extension: ipv6.Extension) -> None:
    """Put a routing header in the form it has at the destination: the addresses still to come each move on by one."""
    at = extension.start
    kind, left = made[at + 2], made[at + 3]
    if left == 0:
        return
    count = (extension.end - at - 8) // 16
    if kind not in _ROUTES or left > count:
        raise PacketError("routing")
    first = at + 8 + (count - left) * 16
    end = at + 8 + count * 16
    made[at + 3] = 0
    last = made[end - 16 : end]
    made[first:end] = made[24:40] + made[first : end - 16]
    made[24:40] = last


class _Form:
    """Sizes and MAC of one SA's header."""

    __slots__ = ("icv", "iv", "length", "mac", "padding", "size")

    def __init__(self, parameters: Parameters) -> None:
        suite = parameters.suite
        key, salt, mac_key = split_key(suite, parameters.key)
        self.icv = suite.icv
        if suite.integrity is not None:
            mac, icv = suite.integrity.mac(mac_key), suite.icv
            self.iv = 0

            def integrity(data: bytes, iv: bytes) -> bytes:
                return mac(data)[:icv]

            self.mac: Icv = integrity
        else:
            assert suite.encryption is not None, "a suite has one or the other"
            assert suite.encryption.aead is not None, "GMAC is the one that AH has"
            encrypt = suite.encryption.aead(key).encrypt
            self.iv = suite.encryption.iv

            def gmac(data: bytes, iv: bytes) -> bytes:
                return encrypt(salt + iv, b"", data)

            self.mac = gmac
        whole = SIZE + self.iv + self.icv
        self.padding = -whole % (4 if parameters.version == 4 else 8)
        self.size = whole + self.padding
        self.length = self.size // 4 - 2


class AhOutbound(Outbound):
    """A sender's SA for AH. Raises `SuiteError`."""

    __slots__ = ("_form",)

    def __init__(
        self,
        parameters: Parameters,
        *,
        allow_legacy: bool = False,
        now: float = 0.0,
        ledger: Ledger | None = None,
        start: int = 0,
        reserve: Reserve | None = None,
    ) -> None:
        super().__init__(parameters, allow_legacy=allow_legacy, now=now, ledger=ledger, start=start, reserve=reserve)
        self._form = _Form(parameters)

    @property
    def overhead(self) -> int:
        """The most that a packet can grow by."""
        outer = (20 if self.parameters.version == 4 else 40) if self.parameters.mode is Mode.TUNNEL else 0
        return outer + self._form.size

    def protect(self, packet: bytes) -> bytes:
        """The IP packet that carries ``packet`` authenticated. Raises `Refused`."""
        parameters, form = self.parameters, self._form
        tunnel = parameters.mode is Mode.TUNNEL
        if tunnel:
            name, start, next_header = 0, 0, IPV6 if packet[0] >= 0x60 else IP_IN_IP
        else:
            name, start = split(packet)
            next_header = packet[name]
        payload = packet[start:]
        self.packets += 1
        self.octets += len(payload)
        if self.octets > self._octet_stop:
            self._check_octets()
        sequence = self.sequence + 1
        if sequence > self._stop:
            sequence = self._limit(sequence)
        self.sequence = sequence
        header = HEADER.pack(next_header, form.length, 0, parameters.spi, sequence & 0xFFFFFFFF)
        iv = sequence.to_bytes(8, "big") if form.iv else b""
        body = header + iv + bytes(form.icv + form.padding) + payload
        made = self._wrap(packet, body) if tunnel else joined(packet[:start], name, AH, body)
        at = len(made) - len(body)
        high = (sequence >> 32).to_bytes(4, "big") if parameters.esn else b""
        icv = form.mac(immutable(made, at) + body + high, iv)
        if self.ledger is not None:
            layout = Layout(ip=at, ah=4, iv=form.iv, payload=len(payload), icv=form.icv, icv_padding=form.padding)
            self.ledger.record(Row(True, AH, parameters.spi, sequence, tunnel, layout), len(made))
        where = at + SIZE + form.iv
        return made[:where] + icv + made[where + form.icv :]


class AhInbound(Association):
    """A receiver's SA for AH. Raises `SuiteError`."""

    __slots__ = ("_form", "_packet_stop", "window")

    def __init__(
        self,
        parameters: Parameters,
        *,
        allow_legacy: bool = False,
        now: float = 0.0,
        ledger: Ledger | None = None,
    ) -> None:
        super().__init__(parameters, allow_legacy=allow_legacy, now=now, ledger=ledger)
        self._form = _Form(parameters)
        self.window = ReplayWindow(parameters.window, esn=parameters.esn)
        limits = [each for each in (parameters.soft.packets, parameters.hard.packets) if each is not None]
        self._packet_stop = min(limits, default=1 << 62)

    def unprotect(self, packet: bytes) -> bytes | None:
        """The packet that was authenticated, None for a dummy. Raises `Refused`."""
        parameters, form = self.parameters, self._form
        name, start = find(packet, AH)
        if len(packet) < start + form.size:
            raise Refused(Drop.SHORT)
        next_header, length, reserved, spi, low = HEADER.unpack_from(packet, start)
        if length != form.length or reserved:
            raise Refused(Drop.MALFORMED)
        if spi != parameters.spi:
            raise Refused(Drop.UNKNOWN_SA)
        if self.octets > self._octet_stop:
            self._check_octets()
        number = self.window.number(low)
        if number is None:
            raise Refused(Drop.REPLAY)
        where = start + SIZE + form.iv
        iv, icv = packet[start + SIZE : where], packet[where : where + form.icv]
        rest = packet[where + form.icv :]
        data = immutable(packet, start) + packet[start:where] + bytes(form.icv) + rest
        if parameters.esn:
            data += (number >> 32).to_bytes(4, "big")
        if not bytes_eq(form.mac(data, iv), icv):
            raise Refused(Drop.INTEGRITY)
        self.window.mark(number)
        payload = rest[form.padding :]
        self.packets += 1
        self.octets += len(payload)
        if self.packets > self._packet_stop:
            self._check_packets()
        if self.ledger is not None:
            layout = Layout(ip=start, ah=4, iv=form.iv, payload=len(payload), icv=form.icv, icv_padding=form.padding)
            row = Row(False, AH, spi, number, parameters.mode is Mode.TUNNEL, layout)
            self.ledger.record(row, len(packet))
        if next_header == NO_NEXT_HEADER:
            return None
        if parameters.mode is Mode.TUNNEL:
            return decapsulated(inner_packet(payload, next_header), traffic_class(packet), ecn=parameters.ecn)
        return joined(packet[:start], name, next_header, payload)
