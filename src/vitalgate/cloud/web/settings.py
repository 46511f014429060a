"""What the pages are given: the parts of the cloud they show, and how they are to behave."""

import enum
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vitalgate.cloud.live import LiveBoard
from vitalgate.cloud.sessions import Sessions
from vitalgate.cloud.store.store import Store
from vitalgate.cloud.users import Users
from vitalgate.counters import Counters
from vitalgate.net.exposition import Gauge

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")


class Level(enum.Enum):
    """How a row of the security page is to be read."""

    GOOD = "good"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Control:
    """One protection: its name, how it stands, and a sentence."""

    name: str
    level: Level
    words: str


@dataclass(frozen=True, slots=True)
class Listener:
    """One address that takes traffic from outside, and what protects it."""

    purpose: str
    address: str
    protection: str


@dataclass(frozen=True, slots=True)
class KeyAge:
    """One key (never its value): purpose, holder, wall times of its making and its end (or None)."""

    purpose: str
    holder: str
    created_at: float
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class SecurityState:
    """What the security page shows besides what the pages know of themselves."""

    controls: tuple[Control, ...] = ()
    listeners: tuple[Listener, ...] = ()
    keys: tuple[KeyAge, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of readiness; ``name`` is shown to anybody, so it says nothing secret."""

    name: str
    ok: bool


def _no_state() -> SecurityState:
    return SecurityState()


def _no_checks() -> Sequence[Check]:
    return ()


def _no_gauges() -> Sequence[Gauge]:
    return ()


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of the cloud behind the pages. The callables are asked anew for each request, in any thread."""

    board: LiveBoard
    store: Store
    users: Users
    sessions: Sessions
    security: Callable[[], SecurityState] = _no_state
    checks: Callable[[], Sequence[Check]] = _no_checks
    gauges: Callable[[], Sequence[Gauge]] = _no_gauges
    counters: tuple[Counters, ...] = ()


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Bounds of the event stream. A screen beyond them is answered 503.

    ``period``: least seconds between two messages (changes in between travel together); ``beat``: most seconds between
    two messages; ``recheck``: how often a screen's session is looked at again. ``per_user`` counts the screens of all
    sessions of a user, who may have more sessions than there is room for.
    """

    clients: int = 64
    per_user: int = 16
    per_session: int = 4
    period: float = 0.2
    beat: float = 1.0
    recheck: float = 15.0


@dataclass(frozen=True, slots=True)
class WebSettings:
    """How the pages behave.

    ``hosts``: names under which browsers may ask, besides loopback's (a request for another is refused, which stops DNS
    rebinding). ``secure``: pages are served over TLS. ``metrics_token``: lets others than loopback read `/metrics`.
    ``demand_password``: a user without a password must set one before anything else.
    """

    hosts: tuple[str, ...] = ()
    secure: bool = False
    metrics_token: str = field(default="", repr=False)
    demand_password: bool = True
    max_body: int = 16_384
    sign_ins_per_minute: float = 12.0
    sign_ins_at_once: float = 10.0
    stream: StreamLimits = field(default_factory=StreamLimits)
    clock: Callable[[], float] = time.monotonic
