"""Between the virtual network and the engines of a world: hosts that can die, and the history of the network."""

import hashlib
from collections.abc import Callable

from vitalgate.engine import Datagram, DatagramEngine, Path
from vitalgate.lab.recorded import Killed
from vitalgate.net.virtual import Address


class History(list[tuple[float, Address, bytes]]):
    """What `VirtualNetwork.captured` appends to: hashed and counted, and kept only while ``keeps``."""

    def __init__(self) -> None:
        super().__init__()
        self.keeps = False
        self.datagrams = self.bytes = 0
        self._hash = hashlib.sha256()

    def append(self, captured: tuple[float, Address, bytes]) -> None:
        """Note one datagram at the moment it is sent."""
        at, (source, target), data = captured
        self.datagrams += 1
        self.bytes += len(data)
        self._hash.update(f"{at!r} {source} {target} {len(data)} ".encode())
        self._hash.update(data)
        if self.keeps:
            super().append(captured)

    def name(self) -> str:
        """The hash of everything so far."""
        return self._hash.hexdigest()


class Hosted:
    """A `DatagramEngine` on its host, which may be killed in any call: ``on_death`` is called then."""

    def __init__(self, engine: DatagramEngine, on_death: Callable[[], None]) -> None:
        self._engine: DatagramEngine | None = engine
        self._on_death = on_death

    def die(self) -> None:
        """Nothing is done from here on."""
        self._engine = None

    def receive_datagram(self, data: bytes, path: Path, now: float) -> None:
        """As the engine, while it lives."""
        if self._engine is not None:
            try:
                self._engine.receive_datagram(data, path, now)
            except Killed:
                self._on_death()

    def datagrams_to_send(self, now: float) -> list[Datagram]:
        """As the engine, while it lives."""
        if self._engine is not None:
            try:
                return self._engine.datagrams_to_send(now)
            except Killed:
                self._on_death()
        return []

    def next_timeout(self) -> float | None:
        """As the engine, while it lives."""
        return None if self._engine is None else self._engine.next_timeout()

    def handle_timeout(self, now: float) -> None:
        """As the engine, while it lives."""
        if self._engine is not None:
            try:
                self._engine.handle_timeout(now)
            except Killed:
                self._on_death()

    def next_event(self) -> object | None:
        """As the engine, while it lives."""
        return None if self._engine is None else self._engine.next_event()
