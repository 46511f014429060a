"""What the parts of an endpoint share."""

from collections import deque
from collections.abc import Hashable
from typing import TYPE_CHECKING

from vitalgate.coap.timers import Timers
from vitalgate.counters import Counters
from vitalgate.dtls.cookies import Cookies
from vitalgate.dtls.credentials import Credentials
from vitalgate.dtls.events import Event, Received
from vitalgate.dtls.ledger import Ledger
from vitalgate.dtls.parameters import Limits, Parameters
from vitalgate.dtls.sessions import Session, SessionTable, Ticket, TicketKeys
from vitalgate.engine import Datagram, Path, Randomness, Wall

if TYPE_CHECKING:
    from vitalgate.dtls.association import Association

CID_ATTEMPTS = 16


class Core:
    """Configuration, tables, timers and queues of one endpoint; its associations work on them."""

    __slots__ = (
        "_most_events", "associations", "by_cid", "by_path", "cookies", "counters", "credentials", "events", "ledger",
        "limits", "listening", "outgoing", "parameters", "randomness", "server_sessions", "starting", "ticket_keys",
        "tickets", "timers", "wall",
    )  # fmt: skip

    def __init__(
        self,
        credentials: Credentials,
        parameters: Parameters,
        limits: Limits,
        counters: Counters,
        randomness: Randomness,
        wall: Wall,
        *,
        listening: bool,
    ) -> None:
        self.credentials = credentials
        self.parameters = parameters
        self.limits = limits
        self._most_events = limits.events
        self.counters = counters
        self.randomness = randomness
        self.wall = wall
        self.listening = listening
        self.timers = Timers()
        self.outgoing: list[Datagram] = []
        self.events: deque[Event] = deque()
        self.ledger: Ledger | None = None
        self.cookies = Cookies(randomness, parameters.cookie_lifetime)
        self.ticket_keys = TicketKeys(randomness, parameters.ticket_lifetime)
        self.server_sessions: SessionTable[bytes, Session] = SessionTable(limits.sessions)
        self.tickets: SessionTable[Hashable, Ticket] = SessionTable(limits.sessions)
        self.associations: dict[int, Association] = {}
        self.by_path: dict[Path, Association] = {}
        """Associations that are complete, or that we began."""
        self.starting: dict[Path, Association] = {}
        """Handshakes that peers began; each may run beside a complete association of the same address."""
        self.by_cid: dict[bytes, Association] = {}

    def emit(self, event: Event) -> None:
        """Tell the application."""
        self.events.append(event)

    def emit_data(self, event: Received) -> None:
        """Give the application data; beyond the bound it is dropped."""
        events = self.events
        if len(events) < self._most_events:
            events.append(event)
        else:
            self.counters.add("dtls_limit_reached", "events")

    def new_cid(self, association: "Association") -> bytes | None:
        """A connection ID of ours for ``association``, b'' where we want none, None where there is no room."""
        length = self.parameters.cid
        if not length:
            return b""
        for _ in range(CID_ATTEMPTS):
            cid = self.randomness(length)
            if cid not in self.by_cid:
                self.by_cid[cid] = association
                association.cids = (*association.cids, cid)
                return cid
        return None

    def free_cids(self, association: "Association") -> None:
        """Forget the connection IDs of an association that ends."""
        if self.parameters.cid and association.cids:
            for cid in association.cids:
                self.by_cid.pop(cid, None)
