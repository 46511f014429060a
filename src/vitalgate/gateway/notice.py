"""Notices: what the gateway says of itself and of gaps, travelling as entries beside the observations.

Times are wall-clock seconds since 1970 UTC. A notice is data, not an alarm; the dashboard decides how to show it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EpochOpened:
    """The first entry of every epoch: which epoch the spool held before (0: none known), and its last sequence."""

    previous_epoch: int
    previous_sequence: int
    cause: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Entries that were numbered and then dropped: sequences ``first_sequence`` to ``last_sequence`` of ``epoch``,
    of which ``count`` were this device's; they were made between ``start`` and ``end``."""

    device: str
    epoch: int
    first_sequence: int
    last_sequence: int
    count: int
    start: float
    end: float
    cause: str


@dataclass(frozen=True, slots=True)
class DeviceGap:
    """What a one-way device said unheard from ``start`` to ``end``; ``size``: damaged bytes, where that is why."""

    device: str
    start: float
    end: float
    cause: str
    size: int = 0


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A device that is not enrolled spoke: decoded and counted, not forwarded. ``frames`` 0: it is no longer in
    quarantine (whoever still belongs there is told of again when it speaks)."""

    port: str
    kind: str
    serial: str
    frames: int
    since: float


Notice = EpochOpened | Gap | DeviceGap | Quarantined
