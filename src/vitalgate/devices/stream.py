"""What every one-way serial protocol shares: cutting a byte stream into frames, and finding the way back after garbage.

A protocol gives a `Framing`: where the next frame lies in a buffer, and what it says. `SerialEngine` turns a framing
into a `DeviceEngine`: buffers, connections, events, counts. What it decides depends on the bytes alone, never on how
they were split, so a stream fed whole and one fed byte by byte give the same events.
"""

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from vitalgate.counters import Counters
from vitalgate.devices.contract import DeviceEngine, Discarded, Frame, Outcome
from vitalgate.engine import Connection, Wall
from vitalgate.vitals.observation import Observation, frame_hash

UNSYNCHRONISED = "unsynchronised"
"""The reason of bytes between frames: no frame begins there."""
INCOMPLETE = "incomplete"
"""The reason of a frame that the end of its connection cut off."""
REFUSED = "connections"
"""The reason of bytes on a connection beyond `StreamLimits.connections`."""


class FrameError(ValueError):
    """The one error of the decoders of this room. ``reason`` is a word of the decoder's own small set."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Cut:
    """What a framing found at the start of a buffer.

    ``skip`` bytes are no frame, for ``reason``; or else ``size`` bytes are one whole frame; or else (both 0) more
    bytes are needed.
    """

    skip: int = 0
    size: int = 0
    reason: str = UNSYNCHRONISED


NEED_MORE = Cut()


@dataclass(frozen=True, slots=True)
class Decoded:
    """What one frame says: its observations, and of the device itself its serial number and software version."""

    observations: tuple[Observation, ...]
    serial: str = ""
    version: str = ""


class Framing(Protocol):
    """One serial protocol, without any state."""

    kind: str
    """The slug of the device kind, for counters."""
    lead: int
    """How many bytes of a frame that would not decode are surely not the start of another."""

    def cut(self, buffer: bytearray) -> Cut:
        """Find what lies at the start of ``buffer``; never raises, and asks for more only within a bounded length."""

    def decode(self, raw: bytes, received_at: float, hash_: bytes) -> Decoded:
        """What the frame ``raw`` (of the size that `cut` gave) says; raises `FrameError` and nothing else."""


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Bounds of a `SerialEngine`.

    Beyond ``connections`` bytes are discarded; a run of discarded bytes is reported every ``run`` bytes; events that
    nobody takes are dropped, newest first, and counted beyond ``events``.
    """

    connections: int = 64
    run: int = 4096
    events: int = 4096


class _Line:
    """One connection: what is not yet cut, and the run of bytes being discarded."""

    __slots__ = ("buffer", "reason", "run")

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.run = 0
        self.reason = UNSYNCHRONISED


class SerialEngine:
    """A `DeviceEngine` over a `Framing`, for devices that only speak.

    Neighbouring bytes that are no frame come out as one `Discarded`, at the latest when the next frame is whole.
    """

    def __init__(
        self, framing: Framing, wall: Wall, counters: Counters | None = None, limits: StreamLimits | None = None
    ) -> None:
        self._framing = framing
        self._wall = wall
        self._counters = Counters() if counters is None else counters
        self._limits = limits or StreamLimits()
        self._lines: dict[Connection, _Line] = {}
        self._events: deque[Frame | Discarded] = deque()

    def connection_made(self, conn: Connection, now: float) -> None:
        """A stream opened; beyond the limit its bytes are discarded."""
        if conn not in self._lines and len(self._lines) < self._limits.connections:
            self._lines[conn] = _Line()

    def connection_lost(self, conn: Connection, now: float) -> None:
        """A stream closed; the frame it cut off is discarded."""
        line = self._lines.pop(conn, None)
        if line is not None:
            self._end_run(conn, line)
            if line.buffer:
                self._discard(conn, len(line.buffer), INCOMPLETE)

    def receive_data(self, data: bytes, conn: Connection, now: float) -> None:
        """Feed bytes; any split of the stream gives the same events."""
        self.connection_made(conn, now)  # a driver may feed before it announces
        line = self._lines.get(conn)
        if line is None:
            self._discard(conn, len(data), REFUSED)
            return
        buffer, framing = line.buffer, self._framing
        buffer += data
        while buffer:
            cut = framing.cut(buffer)
            if cut.skip:
                self._skip(conn, line, cut.skip, cut.reason)
            elif cut.size:
                self._frame(conn, line, bytes(buffer[: cut.size]))
            else:
                return

    def data_to_send(self, conn: Connection, now: float) -> bytes:
        """Nothing: these devices are not spoken to."""
        return b""

    def next_timeout(self) -> float | None:
        """None: a serial frame has no deadline."""
        return None

    def handle_timeout(self, now: float) -> None:
        """Nothing to do."""

    def next_event(self) -> Frame | Discarded | None:
        """Take the oldest event, or None."""
        return self._events.popleft() if self._events else None

    def acknowledge(self, frame: Frame, outcome: Outcome, now: float) -> None:
        """Nothing to do: the device does not listen."""

    def buffered(self) -> int:
        """How many bytes wait for the rest of their frame, over all connections."""
        return sum(len(line.buffer) for line in self._lines.values())

    def _frame(self, conn: Connection, line: _Line, raw: bytes) -> None:
        received_at, hash_ = self._wall(), frame_hash(raw)
        try:
            decoded = self._framing.decode(raw, received_at, hash_)
        except FrameError as error:
            self._skip(conn, line, self._framing.lead, error.reason)
            return
        self._end_run(conn, line)
        del line.buffer[: len(raw)]
        kind = self._framing.kind
        self._counters.add("device_frames", kind)
        self._counters.add("device_observations", kind, len(decoded.observations))
        self._emit(
            Frame(conn, raw, hash_, received_at, decoded.observations, serial=decoded.serial, version=decoded.version)
        )

    def _skip(self, conn: Connection, line: _Line, size: int, reason: str) -> None:
        del line.buffer[:size]
        if reason != UNSYNCHRONISED:  # damage begins a run of its own; what is cut off behind it belongs to it
            self._end_run(conn, line)
            line.reason = reason
        line.run += size
        while line.run >= self._limits.run:  # at fixed sizes, so that the split of the stream does not show
            line.run -= self._limits.run
            self._discard(conn, self._limits.run, line.reason)

    def _end_run(self, conn: Connection, line: _Line) -> None:
        if line.run:
            self._discard(conn, line.run, line.reason)
            line.run = 0
        line.reason = UNSYNCHRONISED

    def _discard(self, conn: Connection, size: int, reason: str) -> None:
        self._counters.add("device_bytes_discarded", f"{self._framing.kind}/{reason}", size)
        self._emit(Discarded(conn, size, reason))

    def _emit(self, event: Frame | Discarded) -> None:
        if len(self._events) < self._limits.events:
            self._events.append(event)
        else:
            self._counters.add("device_events_dropped", self._framing.kind)


_contract: type[DeviceEngine] = SerialEngine  # the registry makes engines by name, so the type checker looks here
