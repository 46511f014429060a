"""`Entry`: what the spool numbers, the uplink delivers and the cloud counts."""

from dataclasses import dataclass

from vitalgate.gateway.notice import Notice
from vitalgate.quick import quick
from vitalgate.vitals.observation import Observation, TrafficClass

MAX_ENTRY_BYTES = 900
"""An entry packs to at most this, so that a whole one fits an unfragmented datagram with all headers."""

NOTICE_HASH = bytes(16)
"""The frame hash of an entry that carries a notice and so has no frame."""


@quick
@dataclass(frozen=True, slots=True)
class Entry:
    """One frame's observations of one traffic class, or one notice (then ``observations`` is empty).

    (gateway, ``epoch``, ``sequence``) names it for ever: ``epoch`` is a random 64-bit number made at every opening of
    the spool, ``sequence`` counts from 1 within it. ``device`` is a URN ('' for a notice about the gateway itself),
    ``frame_hash`` 16 bytes, ``gateway_time`` the wall time of the frame's last byte.
    """

    epoch: int
    sequence: int
    traffic_class: TrafficClass
    device: str
    frame_hash: bytes
    gateway_time: float
    observations: tuple[Observation, ...] = ()
    notice: Notice | None = None
