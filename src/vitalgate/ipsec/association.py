"""A security association: every field of RFC 4301 section 4.4.2.1, its counters and its end."""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from vitalgate.ip.packet import AH, ESP
from vitalgate.ipsec.algorithms import Suite, SuiteError, allowed
from vitalgate.ipsec.ledger import Ledger
from vitalgate.ipsec.refusal import Drop, Refused
from vitalgate.ipsec.replay import DEFAULT, LARGEST, SMALLEST

FIRST_SPI: Final = 256
"""Lower ones are reserved, and 0 never travels (RFC 4303 section 2.1)."""
LAST_SPI: Final = 0xFFFFFFFF
_SHORT: Final = (1 << 32) - 1
_LONG: Final = (1 << 64) - 1


class Mode(enum.Enum):
    """RFC 4301 section 4.1."""

    TRANSPORT = "transport"
    TUNNEL = "tunnel"


class DontFragment(enum.Enum):
    """The DF bit of an outer IPv4 header (RFC 4301 section 8.1)."""

    COPY = "copy"
    SET = "set"
    CLEAR = "clear"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long an SA may live; None: without that limit. Seconds count from its making."""

    seconds: float | None = None
    octets: int | None = None
    packets: int | None = None


@dataclass(frozen=True, slots=True)
class Parameters:
    """What is agreed about an SA and how it treats packets. Addresses are 4 or 16 bytes.

    ``source`` and ``destination``: of a tunnel its ends, of transport mode the hosts. ``inner``: of transport mode
    over a UDP socket, the addresses of rebuilt packets where they differ (a NAT). ``window`` 0: no anti-replay.
    ``rollover``: the sequence counter may begin again, which only manual keys without anti-replay may
    (RFC 4303 section 3.3.3). ``dscp``: what outer headers carry, None: the inner one's, through ``dscp_map``.
    ``ecn`` False: compatibility mode, no ECN outside (RFC 6040 section 4.3). ``tfc``: payloads are filled up to so
    many bytes (tunnel mode). ``multicast``: the destination is a group, and senders are told apart by source.
    """

    spi: int
    protocol: int
    mode: Mode
    suite: Suite
    key: bytes = field(repr=False)
    source: bytes
    destination: bytes
    esn: bool = False
    window: int = DEFAULT
    rollover: bool = False
    soft: Limits = Limits()
    hard: Limits = Limits()
    fragment: DontFragment = DontFragment.COPY
    dscp: int | None = None
    dscp_map: Mapping[int, int] = field(default_factory=dict)
    ecn: bool = True
    hop_limit: int = 64
    path_mtu: int = 1500
    encapsulation: tuple[int, int] | None = None
    """UDP ports (local, remote) of RFC 3948."""
    fragment_check: bool = True
    """Stateful fragment checking: fragments are put together before ports are looked at."""
    tfc: int = 0
    multicast: bool = False
    inner: tuple[bytes, bytes] | None = None

    def __post_init__(self) -> None:
        if not FIRST_SPI <= self.spi <= LAST_SPI:
            raise SuiteError(f"SPI {self.spi} is reserved or none")
        if self.protocol not in (ESP, AH):
            raise SuiteError("an SA is for ESP or AH")
        if (self.protocol == AH) != (self.suite.for_ah and not self._gmac_in_esp):
            raise SuiteError(f"{self.suite.name} is not for this protocol")
        if len(self.source) not in (4, 16) or len(self.source) != len(self.destination):
            raise SuiteError("source and destination are addresses of one family")
        if len(self.key) != self.suite.keymat:
            raise SuiteError(f"{self.suite.name} takes {self.suite.keymat} bytes of keying material")
        if self.window and not SMALLEST <= self.window <= LARGEST:
            raise SuiteError(f"a window holds {SMALLEST} to {LARGEST} numbers, or none")
        if self.rollover and (self.window or self.esn or self._counts):
            raise SuiteError("sequence numbers begin again only without anti-replay, and never where they are IVs")
        if self.tfc and (self.mode is not Mode.TUNNEL or self.protocol != ESP):
            raise SuiteError("traffic flow confidentiality padding is for ESP tunnels")
        if self.encapsulation is not None and self.protocol == AH:
            raise SuiteError("AH cannot be encapsulated in UDP")
        if self.dscp is not None and not 0 <= self.dscp < 64:
            raise SuiteError("a DSCP has 6 bits")

    @property
    def _gmac_in_esp(self) -> bool:
        return self.protocol == ESP and self.suite.encryption is not None

    @property
    def _counts(self) -> bool:
        return self.suite.encryption is not None and self.suite.encryption.counts

    @property
    def version(self) -> int:
        """IP version of the headers outside."""
        return 4 if len(self.source) == 4 else 6


class Expiry(enum.Enum):
    """A limit that was reached: soft asks for a successor, hard is the end."""

    SOFT = "soft"
    HARD = "hard"


class Association:
    """State that both directions have. ``on_expiry(association, expiry)`` is called once each.

    Raises `SuiteError` for algorithms that the configuration does not allow.
    """

    __slots__ = (
        "__weakref__",
        "_octet_stop",
        "drops",
        "expired",
        "ledger",
        "made",
        "octets",
        "on_expiry",
        "packets",
        "parameters",
        "path_mtu",
        "softened",
    )

    def __init__(
        self,
        parameters: Parameters,
        *,
        allow_legacy: bool = False,
        now: float = 0.0,
        ledger: Ledger | None = None,
    ) -> None:
        allowed(parameters.suite, allow_legacy=allow_legacy)
        self.parameters = parameters
        self.ledger = ledger
        self.made = now
        self.packets = 0
        self.octets = 0
        self.drops: dict[Drop, int] = {}
        self.softened = False
        self.expired = False
        self.path_mtu = parameters.path_mtu
        self.on_expiry: Callable[[Association, Expiry], None] | None = None
        self._octet_stop = self._next_octets()

    def __repr__(self) -> str:
        parameters = self.parameters
        name = "ESP" if parameters.protocol == ESP else "AH"
        return f"<{type(self).__name__} {name} {parameters.spi:#010x} {parameters.mode.value}>"

    # time

    def next_timeout(self) -> float | None:
        """When the next limit of time is reached."""
        limits = self.parameters
        if self.expired:
            return None
        seconds = [limits.hard.seconds] if self.softened else [limits.soft.seconds, limits.hard.seconds]
        return min((self.made + each for each in seconds if each is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        """Heed the limits of time."""
        age = now - self.made
        hard, soft = self.parameters.hard.seconds, self.parameters.soft.seconds
        if soft is not None and age >= soft:
            self._soften()
        if hard is not None and age >= hard:
            self.expire()

    # volume

    def _soften(self) -> None:
        if not self.softened:
            self.softened = True
            if self.on_expiry is not None:
                self.on_expiry(self, Expiry.SOFT)

    def expire(self) -> None:
        """End it: nothing passes any more."""
        if not self.expired:
            self.expired = True
            self._octet_stop = -1
            if self.on_expiry is not None:
                self.on_expiry(self, Expiry.HARD)

    def _next_octets(self) -> int:
        soft, hard = self.parameters.soft.octets, self.parameters.hard.octets
        stops = [each for each in (None if self.softened else soft, hard) if each is not None]
        return min(stops, default=1 << 62)

    def _check_octets(self) -> None:
        """``octets`` passed a limit. Raises `Refused` where it was the hard one."""
        soft, hard = self.parameters.soft.octets, self.parameters.hard.octets
        if self.expired:
            raise Refused(Drop.EXPIRED)
        if soft is not None and self.octets > soft:
            self._soften()
        if hard is not None and self.octets > hard:
            self.expire()
            raise Refused(Drop.EXPIRED)
        self._octet_stop = self._next_octets()

    def _check_packets(self) -> None:
        """As `_check_octets`, for packets."""
        soft, hard = self.parameters.soft.packets, self.parameters.hard.packets
        if soft is not None and self.packets > soft:
            self._soften()
        if hard is not None and self.packets > hard:
            self.expire()
            raise Refused(Drop.EXPIRED)

    @property
    def overflow(self) -> int:
        """The last sequence number."""
        return _LONG if self.parameters.esn else _SHORT
