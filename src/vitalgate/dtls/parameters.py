"""What an operator may choose: versions, suites, timers, sizes, and the bounds of every table."""

from dataclasses import dataclass

from vitalgate.dtls.groups import DEFAULT_GROUPS
from vitalgate.dtls.records import DTLS_1_2, DTLS_1_3
from vitalgate.dtls.suites import DEFAULT_SUITES, SUITES


@dataclass(frozen=True, slots=True)
class Parameters:
    """Times in seconds, sizes in bytes. Defaults are RFC 7925's for the Internet of Things where it has any."""

    versions: tuple[int, ...] = (DTLS_1_3, DTLS_1_2)
    """The preferred first."""
    suites: tuple[int, ...] = DEFAULT_SUITES
    """The preferred first; a server goes by its own order."""
    groups: tuple[int, ...] = DEFAULT_GROUPS
    retransmission: float = 9.0
    """First value of the timer (RFC 7925 section 11)."""
    retransmission_most: float = 60.0
    """Doubling goes no further (the same)."""
    retransmissions: int = 4
    """A flight is sent so many times again, and then the handshake has failed."""
    handshake: float = 200.0
    """No handshake takes longer."""
    mtu: int = 1152
    """No datagram of a handshake is longer: what is left of IPv6's least MTU in usual tunnels."""
    pack_messages: bool = True
    """DTLS 1.3: several handshake messages in one record. In 1.2 each has its own: not every peer reads them else."""
    cid: int | None = None
    """Length of the connection IDs that peers have to use towards us; 0: we send them but want none; None: neither."""
    pad: int = 1
    """Content of records with a hidden content type is padded to a multiple of this."""
    short_numbers: int = 0
    """DTLS 1.3: records in a row with 8-bit sequence numbers between two with 16 bits, once 128 have been sent."""
    window: int = 64
    """Size of the replay window."""
    cookies: bool = True
    """A server asks every address to show that it receives, before it keeps anything."""
    cookie_lifetime: float = 60.0
    linger: float = 240.0
    """The last flight of a handshake is kept so long, to be sent again when the peer asks: two MSL."""
    idle: float = 86_400.0
    """An association without a record for so long is closed."""
    tickets: int = 1
    """Tickets that a server gives for a handshake; 0: none, and no session IDs either."""
    ticket_lifetime: float = 86_400.0
    resume: bool = True
    """Whether a client asks to resume."""
    ask_tickets: bool = True
    """DTLS 1.2: a client asks for tickets, and for session IDs otherwise."""
    psk_dhe: bool = True
    """DTLS 1.3: PSK with (EC)DHE, which keeps past traffic secret when the key is lost."""
    psk_only: bool = False
    """DTLS 1.3: PSK alone, which costs no public-key operation."""
    early_key_share: bool = True
    """DTLS 1.3: a client's first hello carries a share, if it fits in one datagram then."""

    def __post_init__(self) -> None:
        if not self.versions or set(self.versions) - {DTLS_1_2, DTLS_1_3}:
            raise ValueError("versions are DTLS 1.2 and 1.3")
        if set(self.suites) - set(SUITES):
            raise ValueError("an unknown cipher suite")
        if self.cid is not None and not 0 <= self.cid <= 32:
            raise ValueError("connection IDs have 0 to 32 bytes")
        if self.mtu < 256:
            raise ValueError("no datagram may be so short")

    def suites_for(self, version: int) -> tuple[int, ...]:
        """The suites of one version, in order."""
        return tuple(value for value in self.suites if SUITES[value].version == version)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of tables. Each says what happens beyond it."""

    associations: int = 16_384
    """Peers; a new one's hello is not answered, one of our own is `Failed` at once."""
    handshakes: int = 1_024
    """Handshakes under way that peers began; a further hello is not answered."""
    message: int = 16_384
    """Bytes of one handshake message; a longer one ends the handshake."""
    early: int = 8
    """Records of a later epoch kept until there are keys for it; more are dropped."""
    sessions: int = 4_096
    """Sessions kept for resumption by ID; the oldest goes."""
    events: int = 65_536
    """Events nobody took; application data is dropped, all else kept."""
