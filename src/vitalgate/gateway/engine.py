"""`GatewayEngine`: the whole gateway without sockets, clocks or threads.

Bytes of devices go in; frames are decoded, bound to an identity or quarantined, and appended to the spool; the spool
commits in groups; two-way devices are answered after the commit; the uplink inside sends what is committed. The product
turns it on real lines and a socket, the virtual network in virtual time.
"""

import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from vitalgate.counters import Counters
from vitalgate.devices.contract import DeviceKind, Discarded, Frame, Outcome
from vitalgate.engine import Connection, Datagram, DatagramEngine, Path, Wall
from vitalgate.gateway.bindings import BindingTable, DeviceBinding, Quarantine
from vitalgate.gateway.notice import DeviceGap, Quarantined
from vitalgate.gateway.ports import Bucket, Budget, Damage, Line, Port, Source, Watched
from vitalgate.gateway.splitting import split
from vitalgate.gateway.storage import Appending, SpoolEvent, SpoolStorage
from vitalgate.vitals.observation import Samples, TrafficClass

LINE_SILENT: Final = "line silent"
BYTES_DAMAGED: Final = "bytes damaged"
TOO_FAST: Final = "rate limited"


@dataclass(frozen=True, slots=True)
class GatewayLimits:
    """Bounds and times of the engine; seconds, bytes, frames a second."""

    commit_every: float = 0.020
    """How long a frame waits for others to share its commit."""
    release_every: float = 0.5
    """How long entries that the cloud has taken wait for a commit to ride on (a crash before it sends them again)."""
    commit_entries: int = 256
    """Frames that are committed without waiting."""
    alarm_every: float = 0.005
    """Between two commits for alarms; an alarm after a quiet time waits for nothing."""
    retry_first: float = 0.1
    """Pause after a commit that the disk refused, doubled up to ``retry_longest``."""
    retry_longest: float = 5.0
    line_bytes: float = 128 * 1024
    """Bytes a second of one line; beyond ``line_burst`` at once they are discarded and counted: a gap."""
    line_burst: float = 512 * 1024
    line_frames: float = 200.0
    """Frames a second of one line; beyond ``frame_burst`` two-way devices are told FULL, others lose them: a gap."""
    frame_burst: float = 400.0
    address_lines: int = 2
    """One address may say on all its lines of a port as much as this many lines."""
    addresses: int = 256
    """Addresses of a port that this is remembered of; the one that called longest ago is forgotten first."""
    lines: int = 64
    """Lines of one port; the bytes of further ones are discarded and counted."""
    ports: int = 256
    sources: int = 16
    """Devices in quarantine told apart on one port; further ones share one place."""
    notice_every: float = 60.0
    """Between two notices about one device in quarantine."""
    damage_every: float = 10.0
    """Between two gaps for damaged bytes of one device: what comes between is told with the next."""
    tick: float = 1.0
    clock_step: float = 1.0
    """A jump of the wall clock against the monotonic one that is worth an event."""
    events: int = 4096


@dataclass(frozen=True, slots=True)
class DeviceSilent:
    """A bound device has said nothing for its kind's idle time."""

    urn: str
    port: str


@dataclass(frozen=True, slots=True)
class DeviceHeard:
    """A bound device speaks: for the first time since the start, or again after a silence."""

    urn: str
    port: str


@dataclass(frozen=True, slots=True)
class DeviceQuarantined:
    """Someone who is not enrolled there speaks on ``port``; ``urn`` is whom it claims to be, where that is enrolled on
    another port (told once for each source)."""

    port: str
    kind: str
    serial: str
    reason: Quarantine
    urn: str = ""


@dataclass(frozen=True, slots=True)
class ClockStepped:
    """The wall clock jumped by ``seconds``; nothing but the times of later observations follows it."""

    seconds: float


GatewayEvent = DeviceSilent | DeviceHeard | DeviceQuarantined | ClockStepped | SpoolEvent


class GatewayEngine:
    """A `DatagramEngine` towards the cloud and a `StreamEngine` towards each port's lines.

    ``uplink`` carries what the spool holds: a `Link`, or an `Uplink` alone.
    """

    def __init__(
        self,
        spool: SpoolStorage,
        bindings: BindingTable,
        *,
        uplink: DatagramEngine | None = None,
        limits: GatewayLimits | None = None,
        counters: Counters | None = None,
        wall: Wall = time.time,
    ) -> None:
        self.spool = spool
        self.uplink = uplink
        self.bindings = bindings
        self.counters = Counters() if counters is None else counters
        self._limits = limits or GatewayLimits()
        self._wall = wall
        self._ports: dict[str, Port] = {}
        self._watched: dict[str, Watched] = {}
        self._damage: dict[str, Damage] = {}
        self._damage_told: dict[str, float] = {}
        self._unanswered: dict[int, tuple[Port, Frame]] = {}
        self._events: deque[GatewayEvent] = deque()
        self._appended = 0
        self._commit_at: float | None = None
        self._committed_at = -math.inf
        self._retry = 0.0
        self._tick_at: float | None = None
        self._clock: float | None = None

    # ports and bindings

    def add_port(self, name: str, kind: DeviceKind, now: float) -> None:
        """Decode what comes on port ``name`` as ``kind``. ValueError for a name that is taken, or one too many."""
        if name in self._ports or len(self._ports) >= self._limits.ports:
            raise ValueError(f"port {name} is there already, or there are more than {self._limits.ports} ports")
        self._ports[name] = Port(name, kind, kind.make_engine(self._wall, self.counters))
        if self._tick_at is None:
            self._tick_at = now + self._limits.tick
            self._clock = self._wall() - now
        self._watch(now)

    def set_bindings(self, bindings: BindingTable, now: float) -> None:
        """Go on with other bindings: lines are judged anew at their next frame."""
        self.bindings = bindings
        wall = self._wall()
        for port in self._ports.values():
            for source in port.quarantine.values():  # whoever is still not enrolled is told of again when it speaks
                self.spool.notify("", Quarantined(port.name, source.kind, source.serial, 0, source.since), wall)
            port.quarantine.clear()
            for line in port.lines.values():
                line.urn = ""
        self._watch(now)
        self._arm_commit(now)

    def _watch(self, now: float) -> None:
        """Watch exactly the devices that are bound to a port that is there."""
        wanted: dict[str, Port] = {}
        for binding in self.bindings:
            port = self._ports.get(binding.port)
            if port is not None and port.kind.slug == binding.kind:
                wanted[binding.urn] = port
        for urn in [urn for urn in self._watched if urn not in wanted]:
            del self._watched[urn]
        for urn, port in wanted.items():
            known = self._watched.get(urn)
            if known is None or known.port != port.name:
                self._watched[urn] = Watched(urn, port.name, port.kind.idle_after, port.kind.two_way, now)
                if not port.kind.two_way:
                    self.spool.expect(urn, self._wall())

    # the device side

    def device_connected(self, port: str, conn: Connection, now: float, peer: str = "") -> None:
        """A line opened on ``port``, from the address ``peer`` where there is one."""
        found = self._ports[port]
        if conn in found.lines:
            return
        if len(found.lines) >= self._limits.lines:
            self.counters.add("gateway_lines_refused")
            return
        found.lines[conn] = Line(conn, peer, self._budget(found, peer, now))
        found.engine.connection_made(conn, now)
        self._take_frames(found, now)

    def _budget(self, port: Port, peer: str, now: float) -> Budget:
        """What a new line may say: an address does not get more by hanging up and calling again, or by many calls."""
        limits = self._limits
        budget = port.budgets.pop(peer, None) if peer else None
        if budget is None:
            lines = limits.address_lines if peer else 1
            budget = Budget(
                Bucket(lines * limits.line_bytes, lines * limits.line_burst, now),
                Bucket(lines * limits.line_frames, lines * limits.frame_burst, now),
            )
        if peer:
            if len(port.budgets) >= limits.addresses:
                del port.budgets[next(iter(port.budgets))]
            port.budgets[peer] = budget
        return budget

    def device_data(self, port: str, conn: Connection, data: bytes, now: float) -> None:
        """Bytes arrived on a line."""
        found = self._ports[port]
        line = found.lines.get(conn)
        if line is None:
            self.counters.add("gateway_device_bytes_dropped", "no-line", len(data))
            return
        allowed = line.budget.bytes.take(len(data), now)
        if allowed:
            found.engine.receive_data(data if allowed == len(data) else data[:allowed], conn, now)
            self._take_frames(found, now)
        if allowed < len(data):
            self.counters.add("gateway_device_bytes_dropped", "rate", len(data) - allowed)
            self._damaged(found, line, len(data) - allowed, TOO_FAST)

    def device_disconnected(self, port: str, conn: Connection, now: float) -> None:
        """A line closed."""
        found = self._ports[port]
        if conn in found.lines:
            found.engine.connection_lost(conn, now)
            self._take_frames(found, now)
            del found.lines[conn]

    def device_data_to_send(self, port: str, conn: Connection, now: float) -> bytes:
        """Take the bytes to write to a line."""
        return self._ports[port].engine.data_to_send(conn, now)

    def _take_frames(self, port: Port, now: float) -> None:
        engine = port.engine
        while (event := engine.next_event()) is not None:
            if isinstance(event, Frame):
                self._frame(port, event, now)
            elif isinstance(event, Discarded):
                line = port.lines.get(event.conn)
                if line is not None:
                    self._damaged(port, line, event.size, BYTES_DAMAGED)

    def _frame(self, port: Port, frame: Frame, now: float) -> None:
        line = port.lines.get(frame.conn)
        if line is None:
            return
        if not line.budget.frames.take(1, now):
            self.counters.add("gateway_frames_dropped", "rate")
            self._damaged(port, line, len(frame.raw), TOO_FAST)
            port.engine.acknowledge(frame, Outcome.FULL, now)
            return
        samples = 0
        for observation in frame.observations:
            if isinstance(observation.value, Samples):
                samples += len(observation.value)
        self.counters.add("device_samples", port.kind.slug, samples)
        if frame.serial:
            line.serial = frame.serial
        match = self.bindings.match(port.name, port.kind.slug, line.serial, line.peer)
        if match.binding is None or match.reason is not None:
            assert match.reason is not None, "a match has a binding or a reason"
            line.urn = ""
            self._quarantine(port, line, match.reason, match.binding, frame, now)
            port.engine.acknowledge(frame, Outcome.REFUSED, now)
            return
        line.urn = match.binding.urn
        self._bound(port, line, match.binding, frame, now)

    def _bound(self, port: Port, line: Line, binding: DeviceBinding, frame: Frame, now: float) -> None:
        """A frame of an enrolled device: into the spool, and what the spool says to the device."""
        two_way = port.kind.two_way
        self._heard(binding.urn, now)
        damage = self._damage.get(binding.urn)
        if damage is not None:
            self._close_damage(binding.urn, damage, frame.received_at, now)
        line.heard_at = frame.received_at
        bound = (binding.urn, binding.patient, binding.location, binding.mark)
        parts = split([observation.bind(*bound) for observation in frame.observations])
        answer = self.spool.append(
            binding.urn,
            parts,
            frame.hash,
            frame.received_at,
            two_way=two_way,
            control_id=frame.control_id,
        )
        self.counters.add("gateway_frames", answer.state.value)
        if answer.state is Appending.BUFFERED:
            if two_way:
                self._unanswered[answer.ticket] = (port, frame)
            self._appended += 1
            if not self._retry:
                alarm = any(lane is TrafficClass.ALARM for lane, _ in parts)
                soonest = self._committed_at + self._limits.alarm_every
                if self._appended >= self._limits.commit_entries or (alarm and now >= soonest):
                    self._commit(now)
                elif alarm:
                    self._commit_at = min(soonest, self._commit_at or soonest)
        else:
            port.engine.acknowledge(frame, _OUTCOMES[answer.state], now)
        self._arm_commit(now)

    def _heard(self, urn: str, now: float) -> None:
        watched = self._watched.get(urn)
        if watched is not None:
            watched.heard_at = now
            if watched.silent or not watched.ever:
                watched.silent, watched.ever = False, True
                self._emit(DeviceHeard(urn, watched.port))

    # damage and quarantine

    def _damaged(self, port: Port, line: Line, size: int, cause: str) -> None:
        """Bytes of a line were lost. It is a gap of a one-way device once that was heard on this line."""
        if port.kind.two_way or not line.urn or line.heard_at is None:
            return
        damage = self._damage.get(line.urn)
        if damage is None:
            self._damage[line.urn] = Damage(line.heard_at, line.heard_at, size, cause)
        else:
            damage.size += size
            damage.closed = False
            if cause != damage.cause:
                damage.cause = TOO_FAST

    def _close_damage(self, urn: str, damage: Damage, at: float, now: float) -> None:
        if not damage.closed:
            damage.end = max(damage.start, at)
            damage.closed = True
        if now - self._damage_told.get(urn, -self._limits.damage_every) >= self._limits.damage_every:
            del self._damage[urn]
            self._damage_told[urn] = now
            self.counters.add("gateway_device_gaps", damage.cause.replace(" ", "-"))
            self.spool.notify(urn, DeviceGap(urn, damage.start, damage.end, damage.cause, damage.size), damage.end)

    def _quarantine(
        self, port: Port, line: Line, reason: Quarantine, owner: DeviceBinding | None, frame: Frame, now: float
    ) -> None:
        """Count a frame of someone who is not enrolled; say so at first, and seldom afterwards."""
        self.counters.add("gateway_quarantined", reason.value)
        key = line.serial
        if key not in port.quarantine and len(port.quarantine) >= self._limits.sources:
            key = "*"
        source = port.quarantine.get(key)
        if source is None:
            serial = "" if key == "*" else line.serial
            source = port.quarantine[key] = Source(port.kind.slug, serial, reason, frame.received_at)
            claimed = owner.urn if owner is not None else ""
            self._emit(DeviceQuarantined(port.name, port.kind.slug, serial, reason, claimed))
        source.frames += 1
        source.reason = reason
        if source.told_at is None or now - source.told_at >= self._limits.notice_every:
            self._tell_quarantine(port, source, frame.received_at, now)

    def _tell_quarantine(self, port: Port, source: Source, at: float, now: float) -> None:
        source.told, source.told_at = source.frames, now
        self.spool.notify("", Quarantined(port.name, source.kind, source.serial, source.frames, source.since), at)
        self._arm_commit(now)

    # committing

    def _arm_commit(self, now: float) -> None:
        if not self.spool.must_commit():
            return
        limits = self._limits
        due = now + (self._retry or (limits.commit_every if self.spool.commit_is_urgent() else limits.release_every))
        if self._commit_at is None or (due < self._commit_at and not self._retry):
            self._commit_at = due

    def _commit(self, now: float) -> None:
        """One group commit; two-way devices are answered for what it made durable."""
        self._commit_at = None
        self._committed_at = now
        self._appended = 0
        done = self.spool.commit(now)
        if not done.ok:
            limits = self._limits
            self._retry = min(self._retry * 2 or limits.retry_first, limits.retry_longest)
        else:
            self._retry = 0.0
        for ticket in done.tickets:
            waiting = self._unanswered.pop(ticket, None)
            if waiting is not None:
                port, frame = waiting
                port.engine.acknowledge(frame, Outcome.COMMITTED, now)
        self._arm_commit(now)

    # towards the cloud, and time

    def receive_datagram(self, data: bytes, path: Path, now: float) -> None:
        """Feed one datagram of the cloud."""
        if self.uplink is not None:
            self.uplink.receive_datagram(data, path, now)
            self._arm_commit(now)

    def datagrams_to_send(self, now: float) -> list[Datagram]:
        """Take what is to be sent to the cloud."""
        taken = [] if self.uplink is None else self.uplink.datagrams_to_send(now)
        self._arm_commit(now)
        return taken

    def next_timeout(self) -> float | None:
        """The one deadline that matters next, or None."""
        soonest = math.inf if self._commit_at is None else self._commit_at
        if self._tick_at is not None and self._tick_at < soonest:
            soonest = self._tick_at
        for port in self._ports.values():
            due = port.engine.next_timeout()
            if due is not None and due < soonest:
                soonest = due
        if self.uplink is not None:
            due = self.uplink.next_timeout()
            if due is not None and due < soonest:
                soonest = due
        return None if soonest == math.inf else soonest

    def handle_timeout(self, now: float) -> None:
        """A deadline has passed; harmless when it has not."""
        for port in self._ports.values():
            due = port.engine.next_timeout()
            if due is not None and now >= due:
                port.engine.handle_timeout(now)
                self._take_frames(port, now)
        if self.uplink is not None:
            self.uplink.handle_timeout(now)
        if self._tick_at is not None and now >= self._tick_at:
            self._tick_at = now + self._limits.tick
            self._tick(now)
        if self._commit_at is not None and now >= self._commit_at:
            self._commit(now)

    def _tick(self, now: float) -> None:
        """Once a second: watchdog, late notices, the wall clock."""
        wall = self._wall()
        offset = wall - now
        if self._clock is not None and abs(offset - self._clock) > self._limits.clock_step:
            self.counters.add("gateway_clock_steps")
            self._emit(ClockStepped(offset - self._clock))
        self._clock = offset
        for watched in self._watched.values():
            if not watched.silent and now - watched.heard_at >= watched.idle_after:
                watched.silent = True
                self.counters.add("gateway_devices_silent")
                self._emit(DeviceSilent(watched.urn, watched.port))
                if not watched.two_way:
                    self.spool.silent(watched.urn, LINE_SILENT)
        for urn, damage in list(self._damage.items()):
            if damage.closed:
                self._close_damage(urn, damage, damage.end, now)
        for port in self._ports.values():
            for source in port.quarantine.values():
                untold = source.frames > source.told and source.told_at is not None
                if untold and now - (source.told_at or 0.0) >= self._limits.notice_every:
                    self._tell_quarantine(port, source, wall, now)
        self._arm_commit(now)

    def next_event(self) -> object | None:
        """Take a `GatewayEvent`, or an event of the uplink; or None."""
        if self._events:
            return self._events.popleft()
        event = self.spool.next_event()
        if event is None and self.uplink is not None:
            return self.uplink.next_event()
        return event

    def _emit(self, event: GatewayEvent) -> None:
        if len(self._events) < self._limits.events:  # nobody listens: the counters still say what happened
            self._events.append(event)

    # saying how it is

    def watched(self) -> Iterator[Watched]:
        """The bound devices, as the watchdog sees them."""
        return iter(self._watched.values())

    def quarantined(self) -> Iterator[tuple[str, Source]]:
        """(port, source) of everything in quarantine."""
        return ((port.name, source) for port in self._ports.values() for source in port.quarantine.values())


_OUTCOMES: Final = {
    Appending.REPEATED: Outcome.COMMITTED,
    Appending.FULL: Outcome.FULL,
    Appending.REFUSED: Outcome.REFUSED,
}
