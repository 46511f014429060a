"""The Encapsulating Security Payload (RFC 4303): `EspOutbound.protect`, `EspInbound.unprotect`."""

import os
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag

from vitalgate.engine import Randomness
from vitalgate.ip.packet import ESP, IP_IN_IP, IPV6, NO_NEXT_HEADER
from vitalgate.ipsec.association import Association, Mode, Parameters
from vitalgate.ipsec.fast import fits, protector, unprotector
from vitalgate.ipsec.ledger import Layout, Ledger, Row
from vitalgate.ipsec.outbound import Outbound, Reserve
from vitalgate.ipsec.placing import find, inner_packet, joined, split
from vitalgate.ipsec.protection import HEADER, opener, sealer
from vitalgate.ipsec.refusal import Drop, Refused
from vitalgate.ipsec.replay import ReplayWindow
from vitalgate.ipsec.tunnel import decapsulated, traffic_class

HEADER_SIZE: Final = 8
UDP_SIZE: Final = 8
PADS: Final = tuple(bytes(range(1, size + 1)) for size in range(256))
"""What padding contains, by its length (section 2.4)."""


def _trailers(align: int, next_header: int) -> tuple[bytes, ...]:
    """Padding, pad length and next header, by the payload's length modulo ``align``."""
    made = []
    for rest in range(align):
        size = -(rest + 2) % align
        made.append(PADS[size] + bytes([size, next_header]))
    return tuple(made)


class EspOutbound(Outbound):
    """A sender's SA for ESP. Raises `SuiteError`."""

    __slots__ = ("_align", "_extra", "_random", "_seal", "_tfc", "_trailers", "protect")

    def __init__(
        self,
        parameters: Parameters,
        *,
        allow_legacy: bool = False,
        now: float = 0.0,
        ledger: Ledger | None = None,
        start: int = 0,
        reserve: Reserve | None = None,
        randomness: Randomness = os.urandom,
    ) -> None:
        super().__init__(parameters, allow_legacy=allow_legacy, now=now, ledger=ledger, start=start, reserve=reserve)
        suite = parameters.suite
        self._seal = sealer(suite, parameters.key, parameters.spi, esn=parameters.esn, randomness=randomness)
        assert suite.encryption is not None, "the sealer refused it"
        self._align = suite.encryption.align
        self._trailers: dict[int, tuple[bytes, ...]] = {
            number: _trailers(self._align, number) for number in (IP_IN_IP, IPV6, 17, 6)
        }
        self._tfc = parameters.tfc
        self._random = randomness
        self._extra = 0 if parameters.encapsulation is None else UDP_SIZE
        self.protect: Callable[[bytes], bytes] = self.protect_generally
        """The IP packet that carries an IP packet protected. Raises `Refused`."""
        if ledger is None and fits(parameters):
            self.protect = protector(self, self._wrap, _trailers)

    def seal(self, payload: bytes, next_header: int) -> bytes:
        """The ESP packet, from SPI to ICV, that carries ``payload``. Raises `Refused`."""
        size = len(payload)
        self.packets += 1
        self.octets += size
        if self.octets > self._octet_stop:
            self._check_octets()
        sequence = self.sequence + 1
        if sequence > self._stop:
            sequence = self._limit(sequence)
        self.sequence = sequence
        if size < self._tfc:
            payload += bytes(self._tfc - size)
        try:
            trailer = self._trailers[next_header][len(payload) % self._align]
        except KeyError:
            made = self._trailers[next_header] = _trailers(self._align, next_header)
            trailer = made[len(payload) % self._align]
        return self._seal(sequence, payload + trailer)

    def protect_generally(self, packet: bytes) -> bytes:
        """The IP packet that carries ``packet`` (IPv4 or IPv6) protected. Raises `Refused`."""
        if self.parameters.mode is Mode.TUNNEL:
            made = self._wrap(packet, self.seal(packet, IPV6 if packet[0] >= 0x60 else IP_IN_IP))
            if self.ledger is not None:
                self._record(len(packet), 20 if self.parameters.version == 4 else 40, self._extra, len(made))
            return made
        name, start = split(packet)
        body = self.seal(packet[start:], packet[name])
        protocol = ESP
        ports = self.parameters.encapsulation
        if ports is not None:
            body = b"".join(number.to_bytes(2, "big") for number in (*ports, len(body) + 8, 0)) + body
            protocol = 17
        made = joined(packet[:start], name, protocol, body)
        if self.ledger is not None:
            self._record(len(packet) - start, start, self._extra, len(made))
        return made

    def datagram(self, packet: bytes) -> bytes:
        """The UDP payload that carries ``packet``, where a socket makes the headers outside. Raises `Refused`."""
        if self.parameters.mode is Mode.TUNNEL:
            size = len(packet)
            made = self.seal(packet, IPV6 if packet[0] >= 0x60 else IP_IN_IP)
        else:
            name, start = split(packet)
            size = len(packet) - start
            made = self.seal(packet[start:], packet[name])
        if self.ledger is not None:
            self._record(size, 0, 0, len(made))
        return made

    def dummy(self, size: int) -> bytes:
        """An ESP packet that carries nothing but ``size`` random bytes (section 2.6). Raises `Refused`."""
        made = self.seal(self._random(size), NO_NEXT_HEADER)
        if self.ledger is not None:
            self._record(size, 0, 0, len(made))
        return made

    @property
    def overhead(self) -> int:
        """The most that a packet can grow by."""
        suite = self.parameters.suite
        assert suite.encryption is not None, "checked when it was made"
        outer = (20 if self.parameters.version == 4 else 40) if self.parameters.mode is Mode.TUNNEL else 0
        return outer + self._extra + HEADER_SIZE + suite.encryption.iv + self._align + 1 + suite.icv

    def _record(self, payload: int, ip: int, udp: int, length: int) -> None:
        assert self.ledger is not None, "the caller looked"
        suite = self.parameters.suite
        assert suite.encryption is not None, "checked when it was made"
        tfc = max(0, self._tfc - payload)
        padding = -(payload + tfc + 2) % self._align
        self.ledger.record(
            Row(
                True, ESP, self.parameters.spi, self.sequence, self.parameters.mode is Mode.TUNNEL,
                Layout(ip, udp, 4, 4, 0, suite.encryption.iv, payload, tfc, padding, 1, 1, suite.icv),
            ),
            length,
        )  # fmt: skip


class EspInbound(Association):
    """A receiver's SA for ESP. Raises `SuiteError`."""

    __slots__ = ("_align", "_fixed", "_open", "_packet_stop", "_tunnel", "unprotect", "window")

    def __init__(
        self,
        parameters: Parameters,
        *,
        allow_legacy: bool = False,
        now: float = 0.0,
        ledger: Ledger | None = None,
        randomness: Randomness = os.urandom,
    ) -> None:
        super().__init__(parameters, allow_legacy=allow_legacy, now=now, ledger=ledger)
        suite = parameters.suite
        self._open = opener(suite, parameters.key, parameters.spi, esn=parameters.esn, randomness=randomness)
        assert suite.encryption is not None, "the opener refused it"
        self.window = ReplayWindow(parameters.window, esn=parameters.esn)
        self._align = suite.encryption.align
        self._fixed = HEADER_SIZE + suite.encryption.iv + suite.icv
        self._tunnel = parameters.mode is Mode.TUNNEL
        limits = [each for each in (parameters.soft.packets, parameters.hard.packets) if each is not None]
        self._packet_stop = min(limits, default=1 << 62)
        self.unprotect: Callable[[bytes], bytes | None] = self.unprotect_generally
        """The packet that an IP packet carried, None for a dummy. Raises `Refused`."""
        if ledger is None and fits(parameters):
            self.unprotect = unprotector(self, self.unprotect_generally, PADS)

    def open(self, packet: bytes) -> tuple[bytes, int]:
        """Payload and next header of the ESP packet, from SPI to ICV. Raises `Refused`.

        Section 3.4: lengths, then the window, then the ICV; only then is the window moved and anything decrypted
        believed.
        """
        rest = len(packet) - self._fixed
        if rest < 2:
            raise Refused(Drop.SHORT)
        if rest % self._align:
            raise Refused(Drop.MALFORMED)
        spi, low = HEADER.unpack_from(packet)
        if spi != self.parameters.spi:
            raise Refused(Drop.UNKNOWN_SA)
        if self.octets > self._octet_stop:
            self._check_octets()
        window = self.window
        number = window.number(low)
        if number is None:
            raise Refused(Drop.REPLAY)
        try:
            plain = self._open(packet, number)
        except InvalidTag as error:
            raise Refused(Drop.INTEGRITY) from error
        window.mark(number)
        self.packets += 1
        padding = plain[-2]
        end = rest - 2 - padding
        if end < 0 or plain[end:-2] != PADS[padding]:
            raise Refused(Drop.PADDING)
        self.octets += end
        if self.packets > self._packet_stop:
            self._check_packets()
        return plain[:end], plain[-1]

    def unprotect_generally(self, packet: bytes) -> bytes | None:
        """The packet that the IP packet ``packet`` carried, None for a dummy. Raises `Refused`."""
        if packet[:1] == b"\x45" and packet[9:10] == b"\x32" and not (packet[6] & 0x3F or packet[7]):
            name, start = 9, 20
        else:
            name, start = self._find(packet)
        esp = packet[start:]
        payload, next_header = self.open(esp)
        if next_header == NO_NEXT_HEADER:
            made: bytes | None = None
        elif self._tunnel:
            inner = inner_packet(payload, next_header)
            made = decapsulated(inner, traffic_class(packet), ecn=self.parameters.ecn) if packet[1] else inner
        elif self.parameters.encapsulation is None:
            made = joined(packet[:start], name, next_header, payload)
        else:
            made = joined(packet[: start - UDP_SIZE], name, next_header, payload)
        if self.ledger is not None:
            self._record(payload, made, start, esp)
        return made

    def from_datagram(self, packet: bytes, outer_class: int = 0) -> bytes | None:
        """The packet that a UDP payload carried, None for a dummy. Raises `Refused`. In transport mode the IP header
        is made anew, between the SA's hosts or its ``inner`` addresses."""
        payload, next_header = self.open(packet)
        if next_header == NO_NEXT_HEADER:
            made: bytes | None = None
        elif self._tunnel:
            made = decapsulated(inner_packet(payload, next_header), outer_class, ecn=self.parameters.ecn)
        else:
            made = self._rebuilt(payload, next_header, outer_class)
        if self.ledger is not None:
            self._record(payload, made, 0, packet)
        return made

    def _find(self, packet: bytes) -> tuple[int, int]:
        if self.parameters.encapsulation is None:
            return find(packet, ESP)
        name, start = find(packet, 17)
        if len(packet) < start + UDP_SIZE:
            raise Refused(Drop.SHORT)
        return name, start + UDP_SIZE

    def _rebuilt(self, payload: bytes, next_header: int, outer_class: int) -> bytes:
        parameters = self.parameters
        source, destination = parameters.inner or (parameters.source, parameters.destination)
        if len(source) == 4:
            header = bytes([0x45, outer_class, 0, 0, 0, 0, 0, 0, parameters.hop_limit, 0, 0, 0]) + source + destination
            return joined(header, 9, next_header, payload)
        start = (6 << 28 | outer_class << 20).to_bytes(4, "big")
        header = start + bytes([0, 0, 0, parameters.hop_limit]) + source + destination
        return joined(header, 6, next_header, payload)

    def _record(self, payload: bytes, made: bytes | None, before: int, esp: bytes) -> None:
        assert self.ledger is not None, "the caller looked"
        suite = self.parameters.suite
        assert suite.encryption is not None, "checked when it was made"
        carried = len(made) if made is not None and self._tunnel else len(payload)
        udp = UDP_SIZE if before and self.parameters.encapsulation is not None else 0
        # The padding as it was checked: the sender may have used more than the least.
        padding = len(esp) - self._fixed - 2 - len(payload)
        low = HEADER.unpack_from(esp)[1]
        layout = Layout(
            before - udp, udp, 4, 4, 0, suite.encryption.iv, carried, len(payload) - carried, padding, 1, 1, suite.icv
        )
        self.ledger.record(Row(False, ESP, self.parameters.spi, low, self._tunnel, layout), before + len(esp))
