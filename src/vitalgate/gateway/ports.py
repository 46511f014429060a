"""The device side's bookkeeping: ports and their lines, flow limits, damage, quarantine."""

from collections.abc import Hashable
from dataclasses import dataclass, field

from vitalgate.devices.contract import DeviceEngine, DeviceKind
from vitalgate.engine import Connection
from vitalgate.gateway.bindings import Quarantine


class Bucket:
    """A token bucket: ``rate`` a second on average, ``burst`` at once."""

    __slots__ = ("_at", "_level", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._level = burst
        self._at = now

    def take(self, wanted: int, now: float) -> int:
        """How many of ``wanted`` may pass now."""
        self._level = min(self.burst, self._level + max(0.0, now - self._at) * self.rate)
        self._at = now
        granted = min(wanted, int(self._level))
        self._level -= granted
        return granted


@dataclass(frozen=True, slots=True)
class Budget:
    """What may come from one address on a port (or on one line that has none), over all its lines, old and new."""

    bytes: Bucket
    frames: Bucket


@dataclass(slots=True)
class Damage:
    """Bytes of a one-way device that were no frames: since when it was heard whole, how many, until when."""

    start: float
    end: float
    size: int
    cause: str
    closed: bool = False
    """Whether a whole frame has followed: then ``end`` is its time."""


@dataclass(slots=True)
class Line:
    """One connection on a port. ``serial`` is what its frames said last, ``urn`` whom it belongs to ('' unknown)."""

    conn: Connection
    peer: str
    budget: Budget
    serial: str = ""
    urn: str = ""
    heard_at: float | None = None
    """Wall time of its last whole frame."""


@dataclass(slots=True)
class Source:
    """One device in quarantine. Times: ``since`` wall, ``told_at`` monotonic."""

    kind: str
    serial: str
    reason: Quarantine
    since: float
    frames: int = 0
    told: int = 0
    told_at: float | None = None


@dataclass(slots=True)
class Port:
    """One port: its protocol's engine and the lines on it."""

    name: str
    kind: DeviceKind
    engine: DeviceEngine
    lines: dict[Hashable, Line] = field(default_factory=dict)
    budgets: dict[str, Budget] = field(default_factory=dict)
    """By address, the one heard of longest ago first."""
    quarantine: dict[str, Source] = field(default_factory=dict)


@dataclass(slots=True)
class Watched:
    """A bound device under the idle watchdog; times are monotonic."""

    urn: str
    port: str
    idle_after: float
    two_way: bool
    heard_at: float
    silent: bool = False
    ever: bool = False
    """Whether it was heard since the start."""
