"""What governs transmission (RFC 7252 section 4.8) and what bounds every table of the engine."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Parameters:
    """Transmission parameters (RFC 7252 section 4.8, table 2) and the times derived from them (section 4.8.2).

    All times are seconds. ``ValueError`` where section 4.8.1 forbids a value.
    """

    ack_timeout: float = 2.0
    ack_random_factor: float = 1.5
    max_retransmit: int = 4
    nstart: int = 1
    """Outstanding interactions that we keep with one peer (section 4.7)."""
    default_leisure: float = 5.0
    """Responses to a request that was sent to a group are spread over this long (section 8.2)."""
    probing_rate: float = 1.0
    """Bytes a second on average towards a peer that does not answer (section 4.7)."""
    max_latency: float = 100.0
    piggyback_window: float = 0.5
    """How long an answer may take and still ride on the acknowledgement; then an Empty one goes (section 5.2.2)."""
    response_timeout: float = 247.0
    """How long a request that was acknowledged, or was non-confirmable, waits for its response."""
    verified_lifetime: float = 3600.0
    """How long an address that showed by Echo (RFC 9175) that it receives what we send is believed to."""
    echo_lifetime: float = 60.0
    """The age up to which an Echo value shows that an address is reachable."""
    max_token_length: int = 8
    """Longest token taken in requests, in bytes: 8 as in RFC 7252 section 3, or more (up to 65804) for the extended
    tokens of RFC 8974. A longer one is a message format error. Our own tokens have 8 bytes."""
    block_size: int = 1024
    """Largest block, in bytes, that we make or ask for (RFC 7959 section 2.2): a power of two from 16 to 1024. Larger
    payloads are transferred in blocks."""
    observe_check: float = 86400.0
    """An observer gets a Confirmable notification at least this often (RFC 7641 section 4.5)."""
    observe_interval: float = 3.0
    """A Non-confirmable notification counts as outstanding for this long (RFC 7641 section 4.5.1)."""

    def __post_init__(self) -> None:
        if self.ack_timeout <= 0 or self.max_latency <= 0 or self.probing_rate <= 0:
            raise ValueError("ack_timeout, max_latency and probing_rate must be above 0")
        if self.ack_random_factor < 1.0:
            raise ValueError("ack_random_factor must not be below 1.0 (RFC 7252 section 4.8.1)")
        if self.max_retransmit < 0 or self.nstart < 1:
            raise ValueError("max_retransmit must be 0 or more, nstart 1 or more")
        if not 8 <= self.max_token_length <= 65804:
            raise ValueError("max_token_length must be from 8 to 65804 (RFC 8974 section 2.2.1)")
        if self.block_size not in (16, 32, 64, 128, 256, 512, 1024):
            raise ValueError("block_size must be a power of two from 16 to 1024 (RFC 7959 section 2.2)")
        if not 0 < self.observe_check <= 86400 or self.observe_interval < 0:
            raise ValueError("observe_check must be above 0 and at most a day, observe_interval not negative")
        if min(self.piggyback_window, self.response_timeout, self.verified_lifetime, self.echo_lifetime) < 0:
            raise ValueError("times must not be negative")
        if self.default_leisure < 0:
            raise ValueError("times must not be negative")

    @property
    def max_transmit_span(self) -> float:
        """From the first transmission of a Confirmable message to its last (45 s)."""
        return self.ack_timeout * float(2**self.max_retransmit - 1) * self.ack_random_factor

    @property
    def max_transmit_wait(self) -> float:
        """From the first transmission of a Confirmable message to giving it up (93 s)."""
        return self.ack_timeout * float(2 ** (self.max_retransmit + 1) - 1) * self.ack_random_factor

    @property
    def processing_delay(self) -> float:
        """What a node takes from a Confirmable message to its acknowledgement (2 s)."""
        return self.ack_timeout

    @property
    def max_rtt(self) -> float:
        """The longest round trip (202 s)."""
        return 2 * self.max_latency + self.processing_delay

    @property
    def exchange_lifetime(self) -> float:
        """From starting to send a Confirmable message until no acknowledgement is expected any more (247 s).

        The simple form of section 4.8.2 holds while the last wait is shorter than MAX_LATENCY; with parameters where it
        is longer, the whole of MAX_TRANSMIT_WAIT counts.
        """
        last_wait = self.max_transmit_wait - self.max_transmit_span
        return self.max_transmit_span + max(0.0, last_wait - self.max_latency) + self.max_rtt

    @property
    def non_lifetime(self) -> float:
        """From sending a Non-confirmable message until its Message ID is free again (145 s)."""
        return self.max_transmit_span + self.max_latency


@dataclass(frozen=True, slots=True)
class Limits:
    """The bound of every table of an `Endpoint`. Beside each stands what happens where it is reached; each such time is
    counted as ``coap_limit_reached`` with the limit's name."""

    message_bytes: int = 16384
    """Longest datagram taken or made. Received: a request is answered 4.13 with Size1, anything else is ignored. Made:
    a response becomes 5.00, a request fails with `Failure.LIMIT`."""
    messages: int = 1 << 18
    """Received messages remembered for deduplication, all peers together. Full: 5.03; none is forgotten early."""
    messages_per_peer: int = 1 << 16
    """The same for one peer. Full: 5.03."""
    messages_per_unverified_peer: int = 16
    """The same for a peer whose address is not verified. Full: 4.01 with Echo, for which nothing is stored."""
    peers: int = 1 << 16
    """Peers with a record that they caused. Full: 5.03 for what needs one, resources that re-run are served."""
    unverified_peers: int = 1024
    """Of these, peers whose address is not verified. Full: 4.01 with Echo, for which nothing is stored."""
    servers: int = 1 << 16
    """Peers with a record because we sent them requests. Full: `Failure.LIMIT`."""
    exchanges: int = 1 << 16
    """Own requests under way or queued. Full: `Failure.LIMIT`."""
    queued_per_peer: int = 64
    """Own requests to one peer that wait for NSTART. Full: `Failure.LIMIT`."""
    deferred: int = 4096
    """Requests handed to the application and not yet answered. Full: 5.03; for unverified addresses a quarter of it is
    full already, and the answer 4.01 with Echo."""
    deferred_per_peer: int = 256
    """The same for one peer. Full: 5.03."""
    transmissions: int = 1 << 16
    """Confirmable messages under way. Full: a separate response goes Non-confirmable."""
    known_options: int = 4096
    """Option blocks whose parsed and routed form is kept. Full: the table is emptied and filled anew."""
    known_option_bytes: int = 256
    """Longest option block that is kept. Longer: parsed every time."""
    unverified_response_bytes: int = 136
    """Most bytes sent at once to an unverified address, and never above three times what came from it (RFC 9175
    section 2.4). Beyond: 4.01 with Echo."""
    body_bytes: int = 1 << 20
    """Longest body put together from blocks. A request's: 4.13 with Size1; a response's: `Failure.LIMIT`."""
    assemblies: int = 1024
    """Request bodies of which blocks are awaited. Full: 5.03."""
    assembly_bytes: int = 1 << 26
    """Their bytes, all together. Full: 5.03, and the body that found no room is forgotten."""
    representations: int = 1024
    """Large responses kept while their blocks are fetched. Full: the oldest is forgotten; a GET is then answered anew,
    other methods 4.08."""
    representation_bytes: int = 1 << 26
    """Their bytes, all together. Full: the same; a larger one is made anew for each block of a GET."""
    observations: int = 1 << 16
    """Entries in the lists of observers. Full: the request is answered as if it had not asked to observe."""
    observations_per_peer: int = 256
    """The same for one peer. Full: the same."""
    group_responses: int = 16
    """Responses to requests sent to a group that wait for their moment. Full: further such requests are ignored."""
    group_requests: int = 64
    """Own requests to groups that take responses. Full: `Failure.LIMIT`."""
    group_answers: int = 1024
    """Responses taken for one of them. Full: further ones are ignored."""
    transfers: int = 1024
    """Own block-wise transfers under way. Full: `Failure.LIMIT`."""
    observing: int = 1024
    """Own observations. Full: `Failure.LIMIT`."""
    back_offs: int = 1024
    """Own requests that were answered 4.29 and wait for Max-Age. Full: the oldest is forgotten and may be sent."""
