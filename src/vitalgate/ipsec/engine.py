"""IPsec as an engine: the databases, the transforms and the five calls (RFC 4301 section 5)."""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from vitalgate.counters import Counters
from vitalgate.engine import Datagram, Path
from vitalgate.ip import ipv4, ipv6
from vitalgate.ip.packet import AH, ESP, PacketError
from vitalgate.ip.reassembly import Reassembler
from vitalgate.ipsec import mtu
from vitalgate.ipsec.association import Association, Expiry, Mode
from vitalgate.ipsec.audit import AuditRate
from vitalgate.ipsec.databases import Action, Associations, Inbound, Key, Outbound, Policies, Rule, Sending
from vitalgate.ipsec.esp import UDP_SIZE, EspInbound, EspOutbound
from vitalgate.ipsec.events import Acquire, Audit, Carrier, Expired, IkeReceived, IpsecPath, PacketReceived
from vitalgate.ipsec.placing import find, outermost
from vitalgate.ipsec.refusal import AUDITABLE, Drop, Refused
from vitalgate.ipsec.selectors import Flow, flow
from vitalgate.ipsec.tunnel import traffic_class

NON_ESP_MARKER: Final = bytes(4)
"""What stands before IKE on the UDP port of ESP (RFC 3948 section 2.2)."""
KEEPALIVE: Final = b"\xff"
KEEPALIVE_AFTER: Final = 20.0
"""Seconds without sending after which a NAT is reminded (RFC 3948 section 4)."""
MAX_NESTED: Final = 4
"""AH and ESP headers that one packet is taken through."""
MAX_QUEUE: Final = 1024
"""Datagrams and events that wait to be taken; what is beyond is dropped and counted."""
ACQUIRE_AGAIN: Final = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What the engine holds to. ``cut_first``: tunnels cut packets that may be cut before they protect them, so that
    each piece is whole for the peer; else afterwards. ``heed_icmp``: errors about the path may lower its MTU."""

    queue: int = MAX_QUEUE
    keepalive: float = KEEPALIVE_AFTER
    cut_first: bool = True
    heed_icmp: bool = True


class Ipsec:
    """A host's or gateway's IPsec. `send_packet` takes what is to leave; what arrived comes out as `PacketReceived`.

    Paths are `IpsecPath`. An outbound SA has the path that it was added with: over UDP its datagrams are what RFC 3948
    puts behind the UDP header, raw they are whole IP packets.
    """

    def __init__(
        self,
        policies: Policies | None = None,
        *,
        limits: Limits = Limits(),
        counters: Counters | None = None,
    ) -> None:
        self.policies = policies if policies is not None else Policies()
        self.associations = Associations()
        self.counters = counters if counters is not None else Counters()
        self._limits = limits
        self._audit = AuditRate()
        self._outgoing: deque[Datagram] = deque()
        self._events: deque[object] = deque()
        self._sent_at: dict[IpsecPath, float] = {}
        self._acquired: dict[str, float] = {}
        self._outer = Reassembler()
        self._inner = Reassembler()
        self._lowered: dict[Key, float] = {}
        self._identification = 0

    # associations

    def add_inbound(self, association: Inbound) -> None:
        """Put a receiver's SA in force. Raises `SuiteError`."""
        self.associations.add_inbound(association)
        association.on_expiry = self._expiry

    def add_outbound(self, association: Outbound, path: IpsecPath, now: float) -> None:
        """Put a sender's SA in force. Raises `SuiteError`."""
        self.associations.add_outbound(association, path)
        association.on_expiry = self._expiry
        if path.carrier is Carrier.UDP:
            self._sent_at.setdefault(path, now)

    def remove(self, association: Inbound | Outbound) -> None:
        """Take an SA out of force. Raises KeyError."""
        self.associations.remove(association)
        in_use = {sending.path for sending in self.associations.all_outbound()}
        for path in [path for path in self._sent_at if path not in in_use]:
            del self._sent_at[path]

    def _expiry(self, association: Association, expiry: Expiry) -> None:
        assert isinstance(association, Inbound | Outbound), "it was added to this engine"
        self.counters.add("ipsec_expired", expiry.value)
        if expiry is Expiry.HARD:
            self.remove(association)
        self._events.append(Expired(association, expiry))  # bounded by the number of SAs

    # out

    def send_packet(self, packet: bytes, now: float) -> None:
        """Send an IP packet as policy has it: protected, in clear, or not at all."""
        found = flow(packet)
        try:
            if found is not None and found.fragment and self.policies.ports:
                # Rules that look at ports need the whole (RFC 4301 section 7).
                whole = self._whole(self._inner, packet, now)
                if whole is None:
                    return
                packet = whole
                found = flow(packet)
            if found is None:
                raise Refused(Drop.MALFORMED)
            rule = self.policies.outbound(found)
            if rule is None or rule.action is Action.DISCARD:
                raise Refused(Drop.DISCARD)
            if rule.action is Action.PROTECT:
                self._protect(packet, rule, found, now)
                return
        except Refused as refused:
            self._drop(refused.reason, now, flow=found)
            return
        self.counters.add("ipsec_bypassed")
        self._send(packet, IpsecPath(found.source, found.destination, Carrier.RAW), now)

    def _protect(self, packet: bytes, rule: Rule, found: Flow, now: float) -> None:
        bundle = [self.associations.outbound(key) for key in rule.outbound]
        if not bundle or None in bundle:
            asked = self._acquired.get(rule.name)
            if asked is None or now - asked >= ACQUIRE_AGAIN:
                self._acquired[rule.name] = now
                self.counters.add("ipsec_acquires")
                self._event(Acquire(rule.name, found))
            raise Refused(Drop.NO_SA)
        sendings = [each for each in bundle if each is not None]
        room = min(each.association.path_mtu for each in sendings) - sum(each.association.overhead for each in sendings)
        last = sendings[-1]
        assert isinstance(last.path, IpsecPath), "SAs of this engine have paths"
        if last.path.carrier is Carrier.UDP and last.association.parameters.encapsulation is None:
            room -= UDP_SIZE  # which the socket writes
        if len(packet) > room and sendings[0].association.parameters.mode is Mode.TUNNEL:
            for piece in self._fitting(packet, room):
                self._through(piece, sendings, now)
            return
        self._through(packet, sendings, now)

    def _fitting(self, packet: bytes, room: int) -> list[bytes]:
        """The packet in pieces that a tunnel can carry whole, or as it is where it is to be cut later. What may not be
        cut is refused, and its source told (RFC 4301 section 8.2.1)."""
        try:
            if packet[0] >> 4 == 4:
                inner = ipv4.decode(packet)
                if not inner.dont_fragment:
                    if not self._limits.cut_first:
                        return [packet]
                    pieces = [ipv4.encode(piece) for piece in ipv4.fragments(inner, room)]
                    self.counters.add("ipsec_fragmented", "before")
                    return pieces
            elif room < mtu.FLOOR[6]:
                # No IPv6 source need go below 1280: what is not larger is cut outside.
                if len(packet) <= mtu.FLOOR[6]:
                    return [packet]
                room = mtu.FLOOR[6]
        except PacketError as error:
            raise Refused(Drop.MALFORMED) from error
        told = mtu.too_big(packet, room)
        if told is not None:
            self._event(PacketReceived(told))
        raise Refused(Drop.TOO_BIG)

    def _through(self, packet: bytes, sendings: list[Sending], now: float) -> None:
        last = sendings[-1]
        for each in sendings[:-1]:
            packet = each.association.protect(packet)
        path, association = last.path, last.association
        assert isinstance(path, IpsecPath), "SAs of this engine have paths"
        outer = traffic_class(packet)
        if path.carrier is Carrier.UDP:
            if not isinstance(association, EspOutbound):
                raise Refused(Drop.NO_SA)  # AH does not travel over UDP (RFC 3948 section 1)
            made = association.datagram(packet)
            self.counters.add("ipsec_protected")
            self._send(made, path._replace(traffic_class=outer) if outer else path, now, path)
            return
        made = association.protect(packet)
        self.counters.add("ipsec_protected")
        for piece in self._cut(made, association.path_mtu):
            self._send(piece, path, now)

    def _cut(self, packet: bytes, most: int) -> list[bytes]:
        """A protected packet in pieces of the path's MTU: fragmentation after IPsec (RFC 4303 section 3.3.4)."""
        if len(packet) <= most:
            return [packet]
        try:
            if packet[0] >> 4 == 4:
                made = [ipv4.encode(each) for each in ipv4.fragments(self._numbered(packet), most)]
            else:
                self._identification += 1
                pieces = ipv6.fragments(ipv6.decode(packet), most, self._identification)
                made = [ipv6.encode(each) for each in pieces]
        except PacketError as error:
            raise Refused(Drop.TOO_BIG) from error
        self.counters.add("ipsec_fragmented", "after")
        return made

    def _numbered(self, packet: bytes) -> ipv4.IPv4:
        found = ipv4.decode(packet)
        if found.dont_fragment or found.identification:
            return found
        self._identification += 1
        return ipv4.IPv4(
            found.source, found.destination, found.protocol, found.payload, found.tos, self._identification & 0xFFFF,
            ttl=found.ttl, options=found.options,
        )  # fmt: skip

    def send_ike(self, data: bytes, path: IpsecPath, now: float) -> None:
        """Send a datagram of IKE on the UDP port that ESP shares."""
        self._send(NON_ESP_MARKER + data, path, now, path)

    def _send(self, data: bytes, path: IpsecPath, now: float, keep: IpsecPath | None = None) -> None:
        if len(self._outgoing) >= self._limits.queue:
            self._drop(Drop.QUEUE, now)
            return
        self._outgoing.append((data, path))
        if keep is not None and keep in self._sent_at:
            self._sent_at[keep] = now

    # in

    def receive_datagram(self, data: bytes, path: Path, now: float) -> None:
        """As `DatagramEngine`; ``path`` is an `IpsecPath`."""
        assert isinstance(path, IpsecPath), "paths of this engine are IpsecPath"
        try:
            if path.carrier is Carrier.UDP:
                self._receive_udp(data, path, now)
            else:
                self._receive_ip(data, path, now)
        except Refused as refused:
            self._drop(refused.reason, now, data=data, path=path)

    def _receive_udp(self, data: bytes, path: IpsecPath, now: float) -> None:
        if data == KEEPALIVE:
            self.counters.add("ipsec_keepalives", "received")
            return
        if len(data) < 8:
            raise Refused(Drop.SHORT)
        if data[:4] == NON_ESP_MARKER:
            self._event(IkeReceived(data[4:], path))
            return
        association = self.associations.inbound(ESP, _spi(data, 0))
        if not isinstance(association, EspInbound):
            raise Refused(Drop.UNKNOWN_SA)
        try:
            packet = association.from_datagram(data, path.traffic_class)
        except Refused as refused:
            _count(association, refused)
            raise
        self.counters.add("ipsec_opened")
        if packet is not None:
            self._opened(packet, [(ESP, association.parameters.spi)], path, now)

    def _receive_ip(self, data: bytes, path: IpsecPath, now: float) -> None:
        whole = self._whole(self._outer, data, now)
        if whole is None:
            return
        if outermost(whole) is None:
            self._clear(whole, now)
            return
        self._opened(whole, [], path, now)

    def _opened(self, packet: bytes, through: list[Key], path: IpsecPath, now: float) -> None:
        """Take ``packet`` through the rest of its bundle, then through policy."""
        while (protocol := outermost(packet)) is not None and self._ours(packet, protocol, through):
            if len(through) == MAX_NESTED:
                raise Refused(Drop.NESTED)
            _, start = find(packet, protocol)
            if len(packet) < start + 12:
                raise Refused(Drop.SHORT)
            spi = _spi(packet, start if protocol == ESP else start + 4)
            association = self.associations.inbound(protocol, spi) or self._group(protocol, spi, packet)
            if association is None:
                raise Refused(Drop.UNKNOWN_SA)
            if path.carrier is Carrier.RAW and association.parameters.encapsulation is not None:
                raise Refused(Drop.UNKNOWN_SA)
            try:
                inner = association.unprotect(packet)
            except Refused as refused:
                _count(association, refused)
                raise
            self.counters.add("ipsec_opened")
            through.append((protocol, spi))
            if inner is None:
                return
            packet = inner
        self._deliver(packet, through, now)

    def _ours(self, packet: bytes, protocol: int, through: list[Key]) -> bool:
        """Whether AH or ESP of a packet ends here. The first does; further ones do where policy would have the packet
        come through more SAs (others are for hosts behind us)."""
        if not through:
            return True
        _, start = find(packet, protocol)
        at = start if protocol == ESP else start + 4
        return len(packet) >= at + 4 and self.associations.inbound(protocol, _spi(packet, at)) is not None

    def _group(self, protocol: int, spi: int, packet: bytes) -> Inbound | None:
        if packet[0] >> 4 == 4:
            return self.associations.group(protocol, spi, packet[16:20], packet[12:16])
        return self.associations.group(protocol, spi, packet[24:40], packet[8:24])

    def _deliver(self, packet: bytes, through: list[Key], now: float) -> None:
        """The check after decapsulation (RFC 4301 section 5.2): the rule for what was inside names the SAs it came
        through, or it is dropped."""
        found = flow(packet)
        if found is None:
            raise Refused(Drop.INNER)
        if found.fragment and self.policies.ports:
            whole = self._whole(self._inner, packet, now)
            if whole is None:
                return
            packet = whole
            found = flow(packet)
            if found is None:
                raise Refused(Drop.INNER)
        rule = self.policies.inbound(found)
        if rule is None or rule.action is not Action.PROTECT or tuple(reversed(through)) not in rule.inbound:
            self._drop(Drop.POLICY, now, flow=found, spi=through[-1][1] if through else 0)
            return
        self._event(PacketReceived(packet, tuple(through)))

    def _clear(self, packet: bytes, now: float) -> None:
        """A packet that came without protection."""
        told = mtu.reported(packet)
        if told is not None:
            self._path_mtu(*told, now)
        found = flow(packet)
        if found is None:
            raise Refused(Drop.MALFORMED)
        rule = self.policies.inbound(found)
        if rule is None or rule.action is not Action.BYPASS:
            protected = rule is not None and rule.action is Action.PROTECT
            self._drop(Drop.POLICY if protected else Drop.DISCARD, now, flow=found)
            return
        self.counters.add("ipsec_bypassed")
        self._event(PacketReceived(packet))

    def _path_mtu(self, protocol: int, spi: int, size: int, now: float) -> None:
        sending = self.associations.outbound((protocol, spi))
        if sending is None or not self._limits.heed_icmp:
            return
        association = sending.association
        size = max(size, mtu.FLOOR[association.parameters.version])
        if size < association.path_mtu:
            association.path_mtu = size
            self._lowered[protocol, spi] = now + mtu.AGE
            self.counters.add("ipsec_path_mtu_lowered")

    def _whole(self, reassembler: Reassembler, packet: bytes, now: float) -> bytes | None:
        try:
            return reassembler.add(packet, now)
        except PacketError as error:
            reason = Drop.FRAGMENT if error.reason in ("fragment", "overlap") else Drop.MALFORMED
            raise Refused(reason) from error

    # time and output

    def datagrams_to_send(self, now: float) -> list[Datagram]:
        """As `DatagramEngine`."""
        made = list(self._outgoing)
        self._outgoing.clear()
        return made

    def next_timeout(self) -> float | None:
        """As `DatagramEngine`."""
        deadlines: list[float | None] = [self._outer.next_timeout(), self._inner.next_timeout()]
        deadlines += [association.next_timeout() for association in self.associations.all_inbound()]
        deadlines += [sending.association.next_timeout() for sending in self.associations.all_outbound()]
        deadlines += [sent + self._limits.keepalive for sent in self._sent_at.values()]
        deadlines += self._lowered.values()
        return min((each for each in deadlines if each is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        """As `DatagramEngine`."""
        self._outer.handle_timeout(now)
        self._inner.handle_timeout(now)
        for association in self.associations.all_inbound():
            association.handle_timeout(now)
        for sending in self.associations.all_outbound():
            sending.association.handle_timeout(now)
        for path, sent in list(self._sent_at.items()):
            if now - sent >= self._limits.keepalive:
                self.counters.add("ipsec_keepalives", "sent")
                self._send(KEEPALIVE, path, now)
                self._sent_at[path] = now
        for key, until in list(self._lowered.items()):
            if until <= now:
                del self._lowered[key]
                found = self.associations.outbound(key)
                if found is not None:
                    found.association.path_mtu = found.association.parameters.path_mtu

    def next_event(self) -> object | None:
        """As `DatagramEngine`."""
        return self._events.popleft() if self._events else None

    def _event(self, event: object) -> None:
        if len(self._events) >= self._limits.queue:
            self.counters.add("ipsec_dropped", Drop.QUEUE.value)
            return
        self._events.append(event)

    def _drop(
        self,
        reason: Drop,
        now: float,
        *,
        data: bytes = b"",
        path: Hashable = None,
        flow: Flow | None = None,
        spi: int = 0,
    ) -> None:
        if reason is Drop.UNKNOWN_SA and data and isinstance(path, IpsecPath):
            spi, sequence = _named(data, path.carrier)
            if spi < 256:
                reason = Drop.SPI
        else:
            sequence = 0
        self.counters.add("ipsec_dropped", reason.value)
        if reason not in AUDITABLE:
            return
        suppressed = self._audit.take(reason, now)
        if suppressed is None:
            self.counters.add("ipsec_audit_suppressed", reason.value)
        else:
            self._event(Audit(reason, spi, sequence, path, flow, suppressed))


def _spi(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def _named(data: bytes, carrier: Carrier) -> tuple[int, int]:
    """SPI and sequence number of a packet that nobody here knows."""
    start = 0
    if carrier is Carrier.RAW:
        protocol = outermost(data)
        if protocol is None:
            return 0, 0
        try:
            _, start = find(data, protocol)
        except Refused:
            return 0, 0
        if protocol == AH:
            start += 4
    return _spi(data, start), _spi(data, start + 4)


def _count(association: Inbound, refused: Refused) -> None:
    association.drops[refused.reason] = association.drops.get(refused.reason, 0) + 1
