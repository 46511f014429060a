"""The contract that every protocol engine of this project keeps.

An engine holds one protocol and nothing else: no socket, no clock, no thread. It is told what arrived and what time it
is, and asked what to send and when to be woken. The product, the tests and the laboratory turn the same engine.

* ``now`` is monotonic time in seconds (float). Wall time is a callable given at construction and used for dates alone.
* Randomness is a callable ``n -> n bytes`` given at construction; ``os.urandom`` by default, a seeded one in the lab.
* A peer's faults come out as events and counters, never as exceptions.
"""

from collections.abc import Callable, Hashable
from typing import Protocol, TypeAlias

Path: TypeAlias = Hashable
"""Where a datagram came from or goes to: opaque to engines, made and understood by the driver that turns them.
The UDP driver uses the peer's socket address, the virtual network a pair of host names."""

Connection: TypeAlias = Hashable
"""Which stream bytes belong to (a serial port, one accepted TCP connection): opaque to engines."""

Datagram: TypeAlias = tuple[bytes, Path]
Wall: TypeAlias = Callable[[], float]
"""Wall-clock time in seconds since 1970-01-01 UTC."""
Randomness: TypeAlias = Callable[[int], bytes]


class DatagramEngine(Protocol):
    """An engine over datagrams: the five calls."""

    def receive_datagram(self, data: bytes, path: Path, now: float) -> None:
        """Feed one datagram that arrived."""

    def datagrams_to_send(self, now: float) -> list[Datagram]:
        """Take what is to be sent now; a second call at once returns an empty list."""

    def next_timeout(self) -> float | None:
        """The one deadline that matters next (same clock as ``now``), or None."""

    def handle_timeout(self, now: float) -> None:
        """Say that the deadline has passed; harmless when it has not."""

    def next_event(self) -> object | None:
        """Take the oldest event (frozen, slotted), or None."""


class StreamEngine(Protocol):
    """An engine over byte streams (serial codecs, MLLP); one engine may serve many connections."""

    def connection_made(self, conn: Connection, now: float) -> None:
        """A stream opened."""

    def connection_lost(self, conn: Connection, now: float) -> None:
        """A stream closed; what was incomplete on it is dropped and counted."""

    def receive_data(self, data: bytes, conn: Connection, now: float) -> None:
        """Feed bytes that arrived; any split of the stream gives the same frames."""

    def data_to_send(self, conn: Connection, now: float) -> bytes:
        """Take the bytes to write to ``conn`` now."""

    def next_timeout(self) -> float | None:
        """The one deadline that matters next, or None."""

    def handle_timeout(self, now: float) -> None:
        """Say that the deadline has passed."""

    def next_event(self) -> object | None:
        """Take the oldest event, or None."""
