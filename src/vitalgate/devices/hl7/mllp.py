"""MLLP framing (HL7 "Minimal Lower Layer Protocol", release 1): VT, one message, FS, CR.

A block ends with FS; the CR behind it, and line ends between blocks, mean nothing. VT and FS never stand within a
message, so a VT always begins one: whatever goes wrong, the next block is found.
"""

from dataclasses import dataclass
from typing import Final

VT: Final = 0x0B
FS: Final = 0x1C
_CR: Final = 0x0D
_START: Final = b"\x0b"
_END: Final = b"\x1c\r"
_BETWEEN: Final = b"\r\n"

UNSYNCHRONISED: Final = "unsynchronised"
INCOMPLETE: Final = "incomplete"
TOO_LONG: Final = "too-long"
RUN: Final = 4096
"""A run of bytes outside blocks is told every so many bytes, so that the split of the stream does not show."""


@dataclass(frozen=True, slots=True)
class Block:
    """One message, without its framing."""

    message: bytes


@dataclass(frozen=True, slots=True)
class Junk:
    """Bytes that were no message: how many, why, and for `TOO_LONG` how the message began."""

    size: int
    reason: str
    beginning: bytes = b""


def frame(message: bytes) -> bytes:
    """The message in its block."""
    return b"".join((_START, message, _END))


class Deframer:
    """Cuts one byte stream into blocks of at most ``limit`` bytes; keeps no more than that."""

    __slots__ = ("_buffer", "_limit", "_run", "_within")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._within = False
        self._run = 0

    @property
    def pending(self) -> bool:
        """True while a block has begun and not ended."""
        return self._within

    def feed(self, data: bytes) -> list[Block | Junk]:
        """Take bytes; gives what they complete, in order."""
        found: list[Block | Junk] = []
        at = 0
        while at < len(data):
            at = self._inside(data, at, found) if self._within else self._outside(data, at, found)
        return found

    def _outside(self, data: bytes, at: int, found: list[Block | Junk]) -> int:
        start = data.find(_START, at)
        end = len(data) if start < 0 else start
        skipped = data[at:end]
        self._run += len(skipped) - sum(map(skipped.count, _BETWEEN))
        while self._run >= RUN:
            self._run -= RUN
            found.append(Junk(RUN, UNSYNCHRONISED))
        if start < 0:
            return end
        self._end_run(found)
        self._within = True
        return start + 1

    def _inside(self, data: bytes, at: int, found: list[Block | Junk]) -> int:
        buffer = self._buffer
        end, start = data.find(FS, at), data.find(VT, at)
        stop = min((place for place in (end, start) if place >= 0), default=len(data))
        room = self._limit - len(buffer)
        if stop - at > room:
            buffer += data[at : at + room]
            found.append(Junk(len(buffer), TOO_LONG, bytes(buffer)))
            buffer.clear()
            self._within = False  # the rest of it counts as bytes outside a block
            return at + room
        buffer += data[at:stop]
        if stop == len(data):
            return stop
        message = bytes(buffer)
        buffer.clear()
        if stop == end:
            self._within = False
            found.append(Block(message))
        else:
            found.append(Junk(len(message), INCOMPLETE))
        return stop + 1

    def abandon(self) -> Junk | None:
        """Give up the block that has begun, as when its connection closes; the next one begins with VT."""
        if not self._within:
            found: list[Block | Junk] = []
            self._end_run(found)
            return found[0] if found else None  # type: ignore[return-value]  # a run is junk
        size = len(self._buffer)
        self._buffer.clear()
        self._within = False
        return Junk(size, INCOMPLETE)

    def _end_run(self, found: list[Block | Junk]) -> None:
        if self._run:
            found.append(Junk(self._run, UNSYNCHRONISED))
            self._run = 0
