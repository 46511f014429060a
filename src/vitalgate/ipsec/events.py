"""What the engine tells its owner."""

import enum
from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

from vitalgate.ipsec.association import Expiry
from vitalgate.ipsec.databases import Inbound, Key, Outbound
from vitalgate.ipsec.refusal import Drop
from vitalgate.ipsec.selectors import Flow


class Carrier(enum.Enum):
    """How a datagram travels: as the payload of a UDP socket, or as a whole IP packet."""

    UDP = "udp"
    RAW = "raw"


class IpsecPath(NamedTuple):
    """The path of this engine's datagrams. ``local`` and ``remote`` are the driver's (socket addresses of UDP; of RAW,
    4 or 16 bytes each); ``traffic_class``: DSCP and ECN of the outer header, where a socket makes it."""

    local: Hashable
    remote: Hashable
    carrier: Carrier = Carrier.UDP
    traffic_class: int = 0


@dataclass(frozen=True, slots=True)
class PacketReceived:
    """An IP packet for this host or those behind it; ``through``: the SAs it came through, the outermost first, none
    for what policy lets bypass and for our own ICMP errors about packets that were to be sent."""

    packet: bytes
    through: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Acquire:
    """Policy ``rule`` protects ``flow`` and has no SAs; told once in a while for each rule."""

    rule: str
    flow: Flow


@dataclass(frozen=True, slots=True)
class Expired:
    """An SA reached a limit; at a hard one it has been removed."""

    association: Inbound | Outbound
    expiry: Expiry


@dataclass(frozen=True, slots=True)
class Audit:
    """An auditable event of RFC 4301 to 4303: why a packet was dropped, and what is known of it (``spi`` and
    ``sequence`` 0, ``flow`` None where they are not). ``suppressed``: events of this reason untold since the last."""

    reason: Drop
    spi: int = 0
    sequence: int = 0
    path: Hashable = None
    flow: Flow | None = None
    suppressed: int = 0


@dataclass(frozen=True, slots=True)
class IkeReceived:
    """A datagram for IKE, without the non-ESP marker (RFC 3948 section 2.2)."""

    data: bytes
    path: Hashable
