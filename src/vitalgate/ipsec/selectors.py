"""Selectors: which traffic a rule of the SPD or an SA is for (RFC 4301 section 4.4.1.1)."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from vitalgate.ip import ipv4, ipv6
from vitalgate.ip.packet import ICMP, ICMPV6, SCTP, TCP, UDP, UDP_LITE, PacketError

_PORTS: Final = frozenset((TCP, UDP, SCTP, UDP_LITE))
OPAQUE: Final = -1
"""A port that cannot be seen: of a fragment that is not the first, of a protocol without ports."""
ANY: Final = (0, 65535)


class Flow(NamedTuple):
    """What selectors look at. Addresses as bytes; of ICMP the ports are type and code: `source_port` holds both as
    type * 256 + code, `destination_port` is opaque (section 4.4.1.1)."""

    source: bytes
    destination: bytes
    protocol: int
    source_port: int
    destination_port: int
    fragment: bool = False


def flow(packet: bytes) -> Flow | None:
    """The flow that a packet belongs to; None for what is no whole IPv4 or IPv6 packet."""
    size = len(packet)
    if size < ipv4.MINIMUM:
        return None
    fragment = False
    if packet[0] >> 4 == 4:
        start = (packet[0] & 15) * 4
        if start < ipv4.MINIMUM or start > size or packet[2] << 8 | packet[3] != size:
            return None
        protocol, source, destination = packet[9], packet[12:16], packet[16:20]
        later = packet[6] & 0x1F or packet[7]
        fragment = bool(later or packet[6] & 0x20)
    elif packet[0] >> 4 == 6 and size >= ipv6.SIZE and packet[4] << 8 | packet[5] == size - ipv6.SIZE:
        source, destination = packet[8:24], packet[24:40]
        try:
            found = ipv6.chain(packet)
        except PacketError:
            return None
        protocol, start, later = found.upper, found.start, found.offset
        fragment = bool(later or found.more)
    else:
        return None
    one = other = OPAQUE
    if not later:
        if protocol in _PORTS and size >= start + 4:
            one = packet[start] << 8 | packet[start + 1]
            other = packet[start + 2] << 8 | packet[start + 3]
        elif protocol in (ICMP, ICMPV6) and size >= start + 2:
            one = packet[start] << 8 | packet[start + 1]
    return Flow(source, destination, protocol, one, other, fragment)


@dataclass(frozen=True, slots=True)
class Selector:
    """Ranges of addresses (first and last, each 4 or 16 bytes, both within the range), a protocol (None: any), ranges
    of ports. ``local`` is where packets come from on their way out. Raises ValueError for ranges that are none."""

    local: tuple[tuple[bytes, bytes], ...]
    remote: tuple[tuple[bytes, bytes], ...]
    protocol: int | None = None
    local_ports: tuple[int, int] = ANY
    remote_ports: tuple[int, int] = ANY

    def __post_init__(self) -> None:
        for first, last in (*self.local, *self.remote):
            if len(first) not in (4, 16) or len(first) != len(last) or first > last:
                raise ValueError("a range of addresses is two of one family, the lower one first")
        for low, high in (self.local_ports, self.remote_ports):
            if not 0 <= low <= high <= 65535:
                raise ValueError("a range of ports is two of 0 to 65535, the lower one first")

    @property
    def ports(self) -> bool:
        """Whether it looks at ports."""
        return self.local_ports != ANY or self.remote_ports != ANY

    def outbound(self, found: Flow) -> bool:
        """Whether it covers a packet on its way out."""
        return self._covers(found, found.source, found.destination, found.source_port, found.destination_port)

    def inbound(self, found: Flow) -> bool:
        """Whether it covers a packet that came in."""
        return self._covers(found, found.destination, found.source, found.destination_port, found.source_port)

    def _covers(self, found: Flow, local: bytes, remote: bytes, local_port: int, remote_port: int) -> bool:
        return (
            (self.protocol is None or self.protocol == found.protocol)
            and _within(self.local, local)
            and _within(self.remote, remote)
            and _port(self.local_ports, local_port)
            and _port(self.remote_ports, remote_port)
        )


def _within(ranges: tuple[tuple[bytes, bytes], ...], address: bytes) -> bool:
    size = len(address)
    return any(len(first) == size and first <= address <= last for first, last in ranges)


def _port(ports: tuple[int, int], port: int) -> bool:
    # ANY covers opaque ports as well, a range does not.
    return ports == ANY or ports[0] <= port <= ports[1]


def network(address: bytes, prefix: int) -> tuple[bytes, bytes]:
    """The range of ``address``/``prefix``. Raises ValueError."""
    bits = len(address) * 8
    if bits not in (32, 128) or not 0 <= prefix <= bits:
        raise ValueError("no network")
    host = (1 << bits - prefix) - 1
    number = int.from_bytes(address, "big")
    return (number & ~host).to_bytes(len(address), "big"), (number | host).to_bytes(len(address), "big")


EVERYTHING: Final = (network(bytes(4), 0), network(bytes(16), 0))
