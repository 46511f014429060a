"""A scripted peer for one endpoint: every datagram and every second of a test is written out by hand."""

import hashlib

from vitalgate.coap import Endpoint, Event
from vitalgate.engine import Path

PEER = ("192.0.2.1", 5683)


def seeded(seed: int = 0):
    """Randomness that is the same in every run."""
    count = 0

    def randomness(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_128(f"{seed}/{count}".encode()).digest(size)

    return randomness


class Lockstep:
    """Turns ``endpoint`` by hand. Datagrams are given as bytes or hex with spaces."""

    def __init__(self, endpoint: Endpoint, *, path: Path = PEER) -> None:
        self.endpoint = endpoint
        self.path = path
        self.now = 1000.0

    def hears(self, data: bytes | str, *, path: Path | None = None) -> None:
        raw = bytes.fromhex(data) if isinstance(data, str) else data
        self.endpoint.receive_datagram(raw, self.path if path is None else path, self.now)

    def said(self) -> list[bytes]:
        """What the endpoint sends now, all of it to the peer."""
        sent = self.endpoint.datagrams_to_send(self.now)
        assert all(path == self.path for _, path in sent), sent
        return [data for data, _ in sent]

    def says(self, *expected: bytes | str) -> None:
        """The endpoint sends exactly this and nothing else."""
        assert self.said() == [bytes.fromhex(each) if isinstance(each, str) else each for each in expected]

    def silent(self) -> None:
        self.says()

    def wait(self, seconds: float) -> None:
        """Let time pass, stopping at every deadline on the way."""
        end = self.now + seconds
        while (due := self.endpoint.next_timeout()) is not None and due <= end:
            self.now = max(self.now, due)
            self.endpoint.handle_timeout(self.now)
            after = self.endpoint.next_timeout()
            assert after is None or after > self.now, "a deadline that was handled is not due again"
        self.now = end

    def turn(self) -> None:
        """Go to the next deadline."""
        due = self.endpoint.next_timeout()
        assert due is not None
        self.now = max(self.now, due)
        self.endpoint.handle_timeout(self.now)

    def count(self, name: str, label: str = "") -> int:
        """How often the endpoint counted this."""
        return self.endpoint.counters[f"{name}{{{label}}}" if label else name]

    def events(self) -> list[Event]:
        found = []
        while (event := self.endpoint.next_event()) is not None:
            found.append(event)
        return found

    def event(self) -> Event:
        (only,) = self.events()
        return only
