"""The virtual network: engines on hosts joined by links, in virtual time, seeded.

Nothing here knows a protocol. Time stands still while engines work and jumps to the next deadline, so hours pass in
seconds, and one seed gives one history: the same losses, delays and random numbers.
"""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from vitalgate.engine import DatagramEngine, Path, Randomness, Wall


class Deadline(Protocol):
    """Anything that is woken by time."""

    def next_timeout(self) -> float | None:
        """When to be woken."""

    def handle_timeout(self, now: float) -> None:
        """Wake."""


@dataclass(slots=True)
class Link:
    """One direction of a link. Delays in seconds; ``loss`` and ``duplicate`` are probabilities per datagram;
    ``rate`` in bytes per second (None: unbounded) with a drop-tail queue of ``queue`` seconds; ``up`` False cuts it."""

    delay: float = 0.0005
    jitter: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    rate: float | None = None
    queue: float = 1.0
    mtu: int = 65535
    up: bool = True
    sent: int = 0
    dropped: int = 0
    bytes: int = 0
    _free_at: float = field(default=0.0, repr=False)


@dataclass(slots=True)
class _Host:
    name: str
    engine: DatagramEngine
    on_turn: Callable[[float], None] | None
    armed: float | None = None
    alive: bool = True
    fed: bool = False
    """Datagrams came at this instant, and its turn follows when all of them are in."""


@dataclass(slots=True)
class _Watcher:
    target: Deadline
    after: Callable[[float], None]
    armed: float | None = None
    alive: bool = True


Address = tuple[str, str]
"""A path of this network: (local host, remote host)."""


class VirtualNetwork:
    """Hosts, links and one clock. ``wall_start`` is the wall time at virtual time 0."""

    def __init__(self, seed: int, *, wall_start: float = 1_790_000_000.0) -> None:
        self.seed = seed
        self.now = 0.0
        self._wall_start = wall_start
        self._wall_steps: dict[str, float] = {}
        self._random = random.Random(f"{seed}/links")
        self._order = itertools.count()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._hosts: dict[str, _Host] = {}
        self._links: dict[Address, Link] = {}
        self.default_link = Link()
        self.captured: list[tuple[float, Address, bytes]] | None = None

    def wall(self, host: str) -> Wall:
        """The wall clock of ``host``: virtual time plus the host's own steps (`step_clock`)."""
        return lambda: self._wall_start + self.now + self._wall_steps.get(host, 0.0)

    def step_clock(self, host: str, seconds: float) -> None:
        """Set the wall clock of ``host`` forward or back; monotonic time is not touched."""
        self._wall_steps[host] = self._wall_steps.get(host, 0.0) + seconds

    def randomness(self, name: str) -> Randomness:
        """A seeded source of bytes for the engine ``name``."""
        return random.Random(f"{self.seed}/{name}").randbytes

    def add_host(self, name: str, engine: DatagramEngine, on_turn: Callable[[float], None] | None = None) -> None:
        """Put ``engine`` on the host ``name`` (replacing a dead one); its paths are (name, remote name)."""
        host = _Host(name, engine, on_turn)
        self._hosts[name] = host
        self._turn(host)

    def remove_host(self, name: str) -> None:
        """Take a host away as a crash does: what it had not sent is gone, what is on its way to it is lost."""
        self._hosts.pop(name).alive = False

    def link(self, source: str, target: str) -> Link:
        """The link from ``source`` to ``target``, made like `default_link` when first asked for."""
        link = self._links.get((source, target))
        if link is None:
            model = self.default_link
            link = self._links[source, target] = Link(
                model.delay, model.jitter, model.loss, model.duplicate, model.rate, model.queue, model.mtu, model.up
            )
        return link

    def partition(self, one: str, other: str, *, up: bool = False) -> None:
        """Cut (or with ``up=True`` mend) both directions between two hosts."""
        self.link(one, other).up = self.link(other, one).up = up

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Call ``action`` at virtual ``time``."""
        heapq.heappush(self._heap, (time if time > self.now else self.now, next(self._order), action))

    def watch(self, target: Deadline, after: Callable[[float], None]) -> Callable[[], None]:
        """Wake ``target`` (a simulator, say) at its deadlines, then call ``after(now)``; returns a stopping call."""
        watcher = _Watcher(target, after)

        def stop() -> None:
            watcher.alive = False

        self._rearm_watcher(watcher)
        return stop

    def touch(self, name: str) -> None:
        """Say that the engine on host ``name`` was fed from outside (a device's bytes): take its output now."""
        if name in self._hosts:
            self._turn(self._hosts[name])

    def run(self, until: float) -> None:
        """Let virtual time pass to ``until``."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            time, _, action = heapq.heappop(heap)
            self.now = time  # never before now: `at` sees to it
            action()
        self.now = max(self.now, until)

    # what a host does in one turn

    def _turn(self, host: _Host) -> None:
        if not host.alive:
            return
        if host.on_turn is not None:
            host.on_turn(self.now)
        for data, path in host.engine.datagrams_to_send(self.now):
            self._transmit(host.name, data, path)
        self._arm(host, host.engine.next_timeout())

    def _arm(self, host: _Host, deadline: float | None) -> None:
        if deadline is not None and (host.armed is None or deadline < host.armed):
            host.armed = deadline
            self.at(deadline, lambda: self._due(host, deadline))

    def _due(self, host: _Host, armed: float) -> None:
        if not host.alive or host.armed != armed:
            return
        host.armed = None
        deadline = host.engine.next_timeout()
        if deadline is None or deadline > self.now:  # what this was for is over: an answer came, say
            self._arm(host, deadline)
            return
        host.engine.handle_timeout(self.now)
        self._turn(host)

    def _rearm_watcher(self, watcher: _Watcher) -> None:
        deadline = watcher.target.next_timeout()
        if deadline is None or not watcher.alive:
            return
        watcher.armed = deadline

        def due() -> None:
            if watcher.alive and watcher.armed == deadline:
                watcher.target.handle_timeout(self.now)
                watcher.after(self.now)
                self._rearm_watcher(watcher)

        self.at(deadline, due)

    # what a link does to a datagram

    def _transmit(self, source: str, data: bytes, path: Path) -> None:
        assert isinstance(path, tuple), "paths of this network are (local host, remote host)"
        local: str = path[0]
        remote: str = path[1]
        assert local == source, f"{source} sent from the path {path!r}"
        link = self.link(local, remote)
        link.sent += 1
        link.bytes += len(data)
        if self.captured is not None:
            self.captured.append((self.now, (local, remote), data))
        # Each random number is drawn whatever the outcome, so that one change does not shift the whole history.
        lost, doubled, jitter = self._random.random(), self._random.random(), self._random.random()
        if not link.up or len(data) > link.mtu or lost < link.loss:
            link.dropped += 1
            return
        departure = self.now
        if link.rate is not None:
            link._free_at = max(link._free_at, self.now) + len(data) / link.rate
            if link._free_at - self.now > link.queue:
                link._free_at -= len(data) / link.rate
                link.dropped += 1
                return
            departure = link._free_at
        arrival = departure + link.delay + jitter * link.jitter
        for copy in range(1 + (doubled < link.duplicate)):
            self.at(arrival + copy * link.delay, lambda: self._deliver(local, remote, data))

    def _deliver(self, source: str, target: str, data: bytes) -> None:
        host = self._hosts.get(target)
        if host is None or not self.link(source, target).up:
            return
        host.engine.receive_datagram(data, (target, source), self.now)
        if not host.fed:
            # A driver drains its socket before it turns its engine: what comes at one instant is taken together.
            host.fed = True
            self.at(self.now, lambda: self._drained(host))

    def _drained(self, host: _Host) -> None:
        host.fed = False
        self._turn(host)
