"""What every device protocol gives the gateway: a stream engine whose events are whole frames.

A device package holds ``codec.py`` (pure: bytes in, `Frame`s out, resynchronising after garbage), ``simulator.py``
(plays real recordings in the device's own wire protocol) and a row in `vitalgate.devices.registry`.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from vitalgate.counters import Counters
from vitalgate.engine import Connection, StreamEngine, Wall
from vitalgate.net.line import LineSettings
from vitalgate.quick import quick
from vitalgate.vitals.observation import Observation


class Outcome(enum.Enum):
    """What became of a frame, told to a two-way device once it is decided."""

    COMMITTED = "committed"
    FULL = "full"
    REFUSED = "refused"


@quick
@dataclass(frozen=True, slots=True)
class Frame:
    """One whole message of a device.

    ``raw`` is the frame as it came, ``hash`` its name (`frame_hash`), ``received_at`` the wall time of its last byte.
    ``serial`` is what the frame itself says of who the device is, ``version`` of the software it runs ('' when it says
    nothing); ``control_id`` is a two-way protocol's message number, by which a repeated message is known ('' for
    one-way protocols). ``token`` names the frame in `DeviceEngine.acknowledge`.
    """

    conn: Connection
    raw: bytes
    hash: bytes
    received_at: float
    observations: tuple[Observation, ...]
    serial: str = ""
    control_id: str = ""
    token: int = 0
    version: str = ""


@dataclass(frozen=True, slots=True)
class Discarded:
    """Bytes that were no frame: how many, and why (a word of the codec's own small set)."""

    conn: Connection
    size: int
    reason: str


class DeviceEngine(StreamEngine, Protocol):
    """A device protocol. Its events are `Frame` and `Discarded`."""

    def acknowledge(self, frame: Frame, outcome: Outcome, now: float) -> None:
        """Say what became of a frame; one-way protocols ignore it, two-way ones now answer the device."""


class Simulator(Protocol):
    """A device that plays recordings on a schedule and never waits for the gateway.

    The same five ideas as an engine: bytes are due at `next_timeout`; `handle_timeout` makes them; `data_to_send`
    takes them. Two-way simulators are told what the gateway answered by `receive_data`.

    Everything a simulator says is demonstration data. A wire format that can say so does; a serial one has no place
    for it, so whoever attaches a simulator binds its identity with the mark `Status.DEMO`.
    """

    def connection_made(self, now: float) -> None:
        """The line to the gateway is open (or open again)."""

    def connection_lost(self, now: float) -> None:
        """The line closed."""

    def receive_data(self, data: bytes, now: float) -> None:
        """Bytes from the gateway."""

    def data_to_send(self, now: float) -> bytes:
        """Take what is due on the line now."""

    def next_timeout(self) -> float | None:
        """When the next bytes are due."""

    def handle_timeout(self, now: float) -> None:
        """Make what is due by ``now``."""

    def sent_frames(self) -> list[bytes]:
        """Take the hashes of the frames produced since the last call (what the device said, heard or not)."""

    def waiting(self) -> int:
        """How many messages a two-way device still wants answered; 0 for one-way devices."""


class Transport(enum.Enum):
    """How a device is attached: it is a serial line we open, or it dials in over TCP."""

    SERIAL = "serial"
    TCP_LISTEN = "tcp-listen"


@dataclass(frozen=True, slots=True)
class DeviceKind:
    """One row of the registry: a protocol the gateway understands.

    ``idle_after`` is the silence in seconds after which the device counts as silent. ``make_engine(wall, counters)``
    makes the decoder; ``make_simulator(start, wall, faults, seed)`` the simulator. ``states_serial``: whether
    its frames can say a serial number or EUI-64, so that a binding may ask for one.
    """

    slug: str
    title: str
    transport: Transport
    two_way: bool
    idle_after: float
    make_engine: Callable[[Wall, Counters], DeviceEngine]
    make_simulator: "Callable[[float, Wall, Faults, int], Simulator]"
    serial: LineSettings | None = None
    states_serial: bool = False


@dataclass(frozen=True, slots=True)
class Faults:
    """What a simulator does wrong on purpose: probabilities per frame (or per byte for ``drop``, ``flip``).

    ``drop`` loses a byte, ``flip`` turns one bit of it. ``stall`` silences the line in the middle of a frame for
    ``stall_seconds``: the device speaks on, unheard. ``garbage`` puts 1 to 64 random bytes before a frame.
    """

    drop: float = 0.0
    flip: float = 0.0
    stall: float = 0.0
    stall_seconds: float = 5.0
    garbage: float = 0.0
