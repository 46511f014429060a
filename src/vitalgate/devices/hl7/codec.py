"""The HL7 engine: many connections in, frames out, and every message answered in its order, once its fate is known.

A message is acknowledged (AA) only when `acknowledge` says that it is durable; AE asks the device to send it again; AR
says that it never will be taken. Answers leave in the order of the messages, so that pipelining devices can match
them. A device that sends more unanswered messages than the table holds gets AE for the rest.
"""

import contextlib
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final

from vitalgate.counters import Counters
from vitalgate.devices.contract import Discarded, Frame, Outcome
from vitalgate.devices.hl7 import mllp
from vitalgate.devices.hl7.ack import ANSWERS, Answer, Correspondent, acknowledgements, correspondent
from vitalgate.devices.hl7.er7 import Er7Error, Message, parse
from vitalgate.devices.hl7.mllp import Block, Deframer, Junk
from vitalgate.devices.hl7.oru import Refusal, decode
from vitalgate.engine import Connection, Wall
from vitalgate.vitals.observation import frame_hash

KIND: Final = "hl7"
CONNECTIONS: Final = "connections"
STALLED: Final = "stalled"


@dataclass(frozen=True, slots=True)
class Hl7Limits:
    """Bounds of the engine; bytes, messages, seconds.

    A message longer than ``message`` is refused (AR) and skipped. A connection has at most ``unanswered`` messages
    whose fate is open and ``output`` bytes of answers that nobody takes; beyond the first AE is answered, beyond the
    second answers are dropped (the device asks again). A message that has begun and does not end within ``patience``
    is dropped. Bytes on a connection beyond ``connections`` are discarded.
    """

    connections: int = 64
    message: int = 256 * 1024
    unanswered: int = 256
    output: int = 256 * 1024
    events: int = 4096
    patience: float = 30.0


class _Waiting:
    """A message whose answer is not yet known, or must wait for those before it."""

    __slots__ = ("answer", "to")

    def __init__(self, to: Correspondent, answer: Answer | None) -> None:
        self.to = to
        self.answer = answer


class _Line:
    """One connection."""

    __slots__ = ("begun_at", "deframer", "output", "waiting")

    def __init__(self, limit: int) -> None:
        self.deframer = Deframer(limit)
        self.begun_at: float | None = None
        self.waiting: OrderedDict[int, _Waiting] = OrderedDict()
        self.output = bytearray()


class Hl7Engine:
    """A `DeviceEngine` for any number of devices that send HL7 v2 results over MLLP.

    ``Frame.raw`` is the message as it came, without its block; ``control_id`` is MSH-10, or the frame's hash where the
    device numbers nothing, so that a repeated message is known by either.
    """

    def __init__(self, wall: Wall, counters: Counters | None = None, limits: Hl7Limits | None = None) -> None:
        self._wall = wall
        self._counters = Counters() if counters is None else counters
        self._limits = limits or Hl7Limits()
        self._lines: dict[Connection, _Line] = {}
        self._events: deque[Frame | Discarded] = deque()
        self._token = 0
        self._answered = 0
        self._name = f"{max(0, int(wall())):x}"

    def connection_made(self, conn: Connection, now: float) -> None:
        """A device called; beyond the limit its bytes are discarded."""
        if conn not in self._lines and len(self._lines) < self._limits.connections:
            self._lines[conn] = _Line(self._limits.message)

    def connection_lost(self, conn: Connection, now: float) -> None:
        """A device hung up: what it had begun is dropped; what is not answered it will send again."""
        line = self._lines.pop(conn, None)
        if line is not None and (junk := line.deframer.abandon()) is not None:
            self._discard(conn, junk.size, junk.reason)

    def receive_data(self, data: bytes, conn: Connection, now: float) -> None:
        """Feed bytes; any split of the stream gives the same frames."""
        self.connection_made(conn, now)  # a driver may feed before it announces
        line = self._lines.get(conn)
        if line is None:
            self._discard(conn, len(data), CONNECTIONS)
            return
        found = line.deframer.feed(data)
        for item in found:
            if isinstance(item, Block):
                self._message(conn, line, item.message)
            else:
                self._junk(conn, line, item)
        if not line.deframer.pending:
            line.begun_at = None
        elif found or line.begun_at is None:
            line.begun_at = now

    def data_to_send(self, conn: Connection, now: float) -> bytes:
        """Take the answers for ``conn``."""
        line = self._lines.get(conn)
        if line is None or not line.output:
            return b""
        data = bytes(line.output)
        line.output.clear()
        return data

    def next_timeout(self) -> float | None:
        """When the message that began longest ago loses patience."""
        begun = [line.begun_at for line in self._lines.values() if line.begun_at is not None]
        return min(begun) + self._limits.patience if begun else None

    def handle_timeout(self, now: float) -> None:
        """Drop messages that began and did not end in time."""
        for conn, line in self._lines.items():
            if line.begun_at is not None and now >= line.begun_at + self._limits.patience:
                line.begun_at = None
                junk = line.deframer.abandon()
                if junk is not None:
                    self._discard(conn, junk.size, STALLED)

    def next_event(self) -> Frame | Discarded | None:
        """Take the oldest event, or None."""
        return self._events.popleft() if self._events else None

    def acknowledge(self, frame: Frame, outcome: Outcome, now: float) -> None:
        """Answer a frame's message; a second time, or after its connection closed, nothing happens."""
        line = self._lines.get(frame.conn)
        waiting = None if line is None else line.waiting.get(frame.token)
        if line is None or waiting is None or waiting.answer is not None:
            return
        waiting.answer = ANSWERS[outcome]
        self._flush(line)

    def unanswered(self) -> int:
        """How many messages wait for their fate, over all connections."""
        return sum(len(line.waiting) for line in self._lines.values())

    def _message(self, conn: Connection, line: _Line, raw: bytes) -> None:
        """One block came: a frame, or a refusal."""
        received_at, hash_ = self._wall(), frame_hash(raw)
        message: Message | None = None
        try:
            message = parse(raw)
            report = decode(message, received_at, hash_)
        except Er7Error as error:
            self._refuse(conn, line, len(raw), message, Refusal(100, error.reason, "not readable as HL7 v2"))
            return
        except Refusal as refusal:
            self._refuse(conn, line, len(raw), message, refusal)
            return
        to = correspondent(message)
        self._token += 1
        full = len(line.waiting) >= self._limits.unanswered or len(self._events) >= self._limits.events
        line.waiting[self._token] = _Waiting(to, ANSWERS[Outcome.FULL] if full else None)
        if full:
            self._counters.add("device_events_dropped", KIND)
            self._flush(line)
            return
        self._counters.add("device_frames", KIND)
        self._counters.add("device_observations", KIND, len(report.observations))
        for warning in report.warnings:
            self._counters.add("device_hl7_warnings", warning)
        self._events.append(
            Frame(
                conn,
                raw,
                hash_,
                received_at,
                report.observations,
                report.serial,
                to.control_id or hash_.hex(),
                self._token,
            )
        )

    def _junk(self, conn: Connection, line: _Line, junk: Junk) -> None:
        if junk.reason != mllp.TOO_LONG:
            self._discard(conn, junk.size, junk.reason)
            return
        message = None
        with contextlib.suppress(Er7Error):  # its first segment says whom to answer
            message = parse(junk.beginning.replace(b"\n", b"\r").split(b"\r", 1)[0])
        self._refuse(
            conn, line, junk.size, message, Refusal(207, junk.reason, "the message is longer than is taken here")
        )

    def _refuse(self, conn: Connection, line: _Line, size: int, message: Message | None, refusal: Refusal) -> None:
        """Answer AR, in its turn."""
        self._discard(conn, size, refusal.reason)
        self._token += 1
        line.waiting[self._token] = _Waiting(correspondent(message), Answer("R", str(refusal), refusal.code))
        self._flush(line)

    def _flush(self, line: _Line) -> None:
        """Write the answers that are due: those with no open message before them."""
        while line.waiting:
            token, first = next(iter(line.waiting.items()))
            if first.answer is None:
                if len(line.waiting) > 2 * self._limits.unanswered:
                    line.waiting.popitem()  # refusals pile up behind an open message: the newest goes unanswered
                    self._counters.add("device_hl7_unanswered", "waiting")
                return
            del line.waiting[token]
            self._answered += 1
            number = f"{self._name}.{self._answered:x}"
            for code, answer in acknowledgements(first.to, first.answer, self._wall(), number):
                block = mllp.frame(answer)
                if len(line.output) + len(block) > self._limits.output:
                    self._counters.add("device_hl7_unanswered", "unread")
                    continue
                line.output += block
                self._counters.add("device_hl7_acknowledgements", code)

    def _discard(self, conn: Connection, size: int, reason: str) -> None:
        self._counters.add("device_bytes_discarded", f"{KIND}/{reason}", size)
        if len(self._events) < self._limits.events:
            self._events.append(Discarded(conn, size, reason))
        else:
            self._counters.add("device_events_dropped", KIND)
