"""What an endpoint knows of each peer, in one bounded table keyed by path."""

from collections import deque
from typing import TYPE_CHECKING

from vitalgate.coap.mids import NEVER, MessageIds
from vitalgate.coap.parameters import Limits, Parameters
from vitalgate.coap.timers import Timers
from vitalgate.counters import Counters
from vitalgate.engine import Path, Randomness

if TYPE_CHECKING:
    from vitalgate.coap.client import ClientExchange


class Peer:
    """One peer: the messages seen from it, the Message IDs used towards it, its share of NSTART, its verification."""

    __slots__ = (
        "_peers", "deferred", "due", "echo", "exchanges", "heard", "mids", "observed", "ours", "outstanding", "path",
        "pooled", "queue", "seen", "verified_until",
    )  # fmt: skip

    def __init__(self, peers: "Peers", path: Path, start: int, now: float, *, ours: bool) -> None:
        self._peers = peers
        self.path = path
        self.ours = ours
        """True where the record exists because we sent this peer a request."""
        self.pooled = False
        """True while the record takes a place among those of unverified addresses."""
        self.heard = now
        """When the record was last of use."""
        self.seen: dict[int, bytes] = {}
        """Message ID to the encoded reply (b'' where none was sent), for deduplication."""
        self.mids = MessageIds(start, peers.avoided)
        self.verified_until = NEVER
        self.deferred = 0
        """Requests of it that wait for the application."""
        self.exchanges = 0
        """Requests of ours to it that have not ended."""
        self.outstanding = 0
        """Those of them that count for NSTART."""
        self.queue: deque[ClientExchange] = deque()
        self.observed = False
        """True while it observes a resource of ours."""
        self.echo = b""
        """An Echo value to send with the next request (RFC 9175 section 2.3), or b''."""
        self.due: float | None = None

    def on_due(self, now: float) -> None:
        """Forget the peer if nothing of it is still needed, else look again later."""
        self._peers.review(self, now)


class Peers(dict[Path, Peer]):
    """The table. Peers that made us keep a record, those of them that are unverified, and those that we chose to speak
    to are bounded apart, so that strangers cannot take the room of our own requests."""

    def __init__(
        self, parameters: Parameters, limits: Limits, counters: Counters, timers: Timers, randomness: Randomness
    ) -> None:
        super().__init__()
        self._lifetime = parameters.exchange_lifetime
        self._verified_lifetime = parameters.verified_lifetime
        self._limits = limits
        self._counters = counters
        self._timers = timers
        self._randomness = randomness
        self._ours = 0
        self._unverified = 0
        self.avoided: dict[int, float] = {}
        """Message IDs of requests to groups, and until when no message to any peer may have them (section 8.1)."""

    def admit(self, path: Path, now: float) -> Peer | None:
        """The record of a peer that sent us something, made where there is room; else None."""
        peer = self.get(path)
        if peer is not None:
            return peer
        if len(self) - self._ours >= self._limits.peers:
            self._counters.add("coap_limit_reached", "peers")
            return None
        return self._add(path, now, ours=False)

    def admit_unverified(self, path: Path, now: float) -> Peer | None:
        """The same out of the smaller room of unverified addresses."""
        peer = self.get(path)
        if peer is not None:
            return peer
        if self._unverified >= self._limits.unverified_peers:
            self._counters.add("coap_limit_reached", "unverified_peers")
            return None
        peer = self.admit(path, now)
        if peer is not None:
            self._unverified += 1
            peer.pooled = True
        return peer

    def choose(self, path: Path, now: float) -> Peer | None:
        """The record of a peer that we send a request to, made where there is room; else None."""
        peer = self.get(path)
        if peer is None or not peer.ours:
            if self._ours >= self._limits.servers:
                self._counters.add("coap_limit_reached", "servers")
                return None
            if peer is None:
                peer = self._add(path, now, ours=True)
            else:
                peer.ours = True
            self._ours += 1
        return peer

    def verify(self, peer: Peer, now: float) -> None:
        """The peer has shown that it receives what we send to its address."""
        self._unverified -= peer.pooled
        peer.pooled = False
        peer.verified_until = now + self._verified_lifetime

    def review(self, peer: Peer, now: float) -> None:
        """Forget ``peer`` where nothing of it is needed; else look again."""
        idle_at = peer.heard + self._lifetime
        if not peer.ours:
            idle_at = max(idle_at, peer.verified_until)  # it costs a stranger a round trip to be verified again
        if idle_at <= now and not (peer.seen or peer.exchanges or peer.observed):
            del self[peer.path]
            self._ours -= peer.ours
            self._unverified -= peer.pooled
        else:
            self._timers.set(peer, max(idle_at, now + self._lifetime / 8))

    def _add(self, path: Path, now: float, *, ours: bool) -> Peer:
        start = int.from_bytes(self._randomness(2), "big")
        peer = self[path] = Peer(self, path, start, now, ours=ours)
        self._timers.set(peer, now + self._lifetime)
        return peer
