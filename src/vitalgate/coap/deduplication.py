"""Deduplication (RFC 7252 section 4.5): which messages were seen, and the encoded reply to each.

An entry lives EXCHANGE_LIFETIME (Confirmable) or NON_LIFETIME (Non-confirmable) from its arrival. Lifetimes are
constant, so entries of a kind expire in their order of arrival and two queues do for all deadlines; an entry is never
evicted early.
"""

from collections import deque

from vitalgate.coap.parameters import Limits, Parameters
from vitalgate.coap.peers import Peer

FOREVER = float("inf")
Entry = tuple[float, dict[int, bytes], int]
"""(when it expires, the peer's table, Message ID)"""


class Deduplication:
    """Bounds and expiry of the ``seen`` tables of all peers. ``next_purge`` is the earliest expiry (inf: none)."""

    __slots__ = ("_con", "_con_lifetime", "_messages", "_non", "_non_lifetime", "_per_peer", "next_purge")

    def __init__(self, parameters: Parameters, limits: Limits) -> None:
        self._con_lifetime = parameters.exchange_lifetime
        self._non_lifetime = parameters.non_lifetime
        self._messages = limits.messages
        self._per_peer = limits.messages_per_peer
        self._con: deque[Entry] = deque()
        self._non: deque[Entry] = deque()
        self.next_purge = FOREVER

    def __len__(self) -> int:
        return len(self._con) + len(self._non)

    def full(self, peer: Peer) -> str:
        """The name of the limit that leaves no room for one more message of ``peer``, or ''."""
        if len(self._con) + len(self._non) >= self._messages:
            return "messages"
        return "messages_per_peer" if len(peer.seen) >= self._per_peer else ""

    def remember(self, peer: Peer, mid: int, reply: bytes, now: float, *, confirmable: bool) -> None:
        """Remember message ``mid`` of ``peer`` (not seen before; ask `full` first) and the reply for its duplicates."""
        peer.seen[mid] = reply
        if confirmable:
            expiry = now + self._con_lifetime
            self._con.append((expiry, peer.seen, mid))
        else:
            expiry = now + self._non_lifetime
            self._non.append((expiry, peer.seen, mid))
        if expiry < self.next_purge:  # noqa: PLR1730  # min() would cost a call per message
            self.next_purge = expiry

    @staticmethod
    def replace(peer: Peer, mid: int, reply: bytes) -> None:
        """Give duplicates of message ``mid`` another reply from now on, where it is still remembered."""
        if mid in peer.seen:
            peer.seen[mid] = reply

    def purge(self, now: float) -> None:
        """Forget what has expired."""
        upcoming = FOREVER
        for entries in (self._con, self._non):
            while entries and entries[0][0] <= now:
                _, seen, mid = entries.popleft()
                del seen[mid]
            if entries:
                upcoming = min(upcoming, entries[0][0])
        self.next_purge = upcoming
