"""`SharedPort`: coaps and coap on one UDP port, so that enrolment, which protects itself, needs no port of its own.

The first byte tells which it is: CoAP's begins with version 1 in two bits (RFC 7252 section 3), 64 to 127; a record of
DTLS begins with 20 to 63 (RFC 9147 section 4.1). Requests of ours go out under DTLS, unless asked for in clear.
"""

from dataclasses import dataclass, replace
from typing import Final

from vitalgate.coap.endpoint import MessageEndpoint
from vitalgate.coap.events import Event, Failure, RequestFailed, RequestReceived, ResponseReceived
from vitalgate.coap.message import Message
from vitalgate.counters import Counters
from vitalgate.dtls.coaps import Endpoint as CoapsEndpoint
from vitalgate.dtls.credentials import Credentials
from vitalgate.engine import Datagram, Path
from vitalgate.net.stacks import stack_of

PLAIN: Final = 1 << 48
"""Exchanges in clear are numbered from here on."""


@dataclass(slots=True)
class _Waiting:
    """Requests to one peer without an answer, and since when there is any."""

    count: int
    since: float


class SharedPort:
    """A `MessageEndpoint` of two: ``secured`` speaks DTLS, ``plain`` in clear (or OSCORE, on a server with both).

    ``silence``: seconds after which a peer that has not sent a record while requests wait for it is taken to have lost
    its half (its process was killed, say), which nothing in DTLS tells: the association is closed, the requests fail
    with TIMEOUT, and the next begins with a handshake. None: CoAP's own time, up to 93 s, is waited for.
    """

    def __init__(
        self,
        secured: CoapsEndpoint,
        plain: MessageEndpoint,
        *,
        silence: float | None = None,
        counters: Counters | None = None,
    ) -> None:
        self.counters = Counters() if counters is None else counters
        self._secured = secured
        self._plain = plain
        self._silence = silence
        self._paths: dict[int, Path] = {}
        self._waiting: dict[Path, _Waiting] = {}
        self._given_up: set[int] = set()

    # the engine's five calls

    def receive_datagram(self, data: bytes, path: Path, now: float) -> None:
        """Feed one datagram."""
        if data and data[0] >> 6 == 1:
            self._plain.receive_datagram(data, path, now)
        else:
            self._secured.receive_datagram(data, path, now)

    def datagrams_to_send(self, now: float) -> list[Datagram]:
        """Take what is to be sent now."""
        return self._secured.datagrams_to_send(now) + self._plain.datagrams_to_send(now)

    def next_timeout(self) -> float | None:
        """The one deadline that matters next, or None."""
        soonest = self._secured.next_timeout()
        plain = self._plain.next_timeout()
        if plain is not None and (soonest is None or plain < soonest):
            soonest = plain
        for path in self._waiting:
            due = self._silent_at(path)
            if due is not None and (soonest is None or due < soonest):
                soonest = due
        return soonest

    def handle_timeout(self, now: float) -> None:
        """A deadline has passed."""
        for path in list(self._waiting):
            due = self._silent_at(path)
            if due is not None and now >= due:
                self._give_up(path, now)
        self._secured.handle_timeout(now)
        self._plain.handle_timeout(now)

    def next_event(self) -> Event | None:
        """The oldest event, or None."""
        event = self._secured.next_event()
        if event is not None:
            if isinstance(event, ResponseReceived | RequestFailed):
                return self._answered(event)
            return event
        event = self._plain.next_event()
        return None if event is None else replace(event, exchange=event.exchange + PLAIN)

    # the application's

    def request(self, request: Message, path: Path, now: float, *, confirmable: bool = True) -> int:
        """Send a request under DTLS."""
        exchange = self._secured.request(request, path, now, confirmable=confirmable)
        if self._silence is not None:
            self._paths[exchange] = path
            waiting = self._waiting.setdefault(path, _Waiting(0, now))
            waiting.count += 1
        return exchange

    def request_unprotected(self, request: Message, path: Path, now: float, *, confirmable: bool = True) -> int:
        """Send a request in clear, as enrolment needs."""
        return self._plain.request(request, path, now, confirmable=confirmable) + PLAIN

    def cancel(self, exchange: int, now: float) -> None:
        """Lose interest in a request."""
        if exchange >= PLAIN:
            self._plain.cancel(exchange - PLAIN, now)
        else:
            self._secured.cancel(exchange, now)

    def respond(self, exchange: int, response: Message, now: float) -> None:
        """Answer a `RequestReceived` the way it came."""
        if exchange >= PLAIN:
            self._plain.respond(exchange - PLAIN, response, now)
        else:
            self._secured.respond(exchange, response, now)

    # associations

    def is_plain(self, event: RequestReceived) -> bool:
        """Whether a request came without DTLS."""
        return event.exchange >= PLAIN

    def stack(self, event: RequestReceived) -> str:
        """The slug of the stack that a request under DTLS just came by; '' where the association is no more."""
        dtls = self._secured.dtls
        association = dtls.association_at(event.path)
        identity = None if association is None else dtls.identity(association)
        return "" if association is None or identity is None else stack_of(dtls.version(association), identity.mode)

    def use(self, credentials: Credentials, path: Path, now: float) -> None:
        """Shake hands anew with the peer at ``path``, by these credentials."""
        dtls = self._secured.dtls
        dtls.use(credentials)
        association = dtls.association_at(path)
        if association is not None:
            dtls.close(association, now)
            self._secured.handle_timeout(now)

    def end_peer(self, name: str, now: float) -> None:
        """End the associations of a peer whose credential was taken out of service."""
        if self._secured.dtls.end_peer(name, now):
            self._secured.handle_timeout(now)

    # silence

    def _silent_at(self, path: Path) -> float | None:
        """When the peer has been silent for too long; None while there is no association, or none yet."""
        assert self._silence is not None  # else nothing is noted as waiting
        dtls = self._secured.dtls
        association = dtls.association_at(path)
        if association is None or dtls.identity(association) is None:
            return None
        return max(dtls.heard(association), self._waiting[path].since) + self._silence

    def _give_up(self, path: Path, now: float) -> None:
        association = self._secured.dtls.association_at(path)
        assert association is not None  # else there was no deadline
        self.counters.add("dtls_peers_silent")
        self._given_up.update(exchange for exchange, its in self._paths.items() if its == path)
        self._secured.dtls.close(association, now)

    def _answered(self, event: ResponseReceived | RequestFailed) -> Event:
        path = self._paths.pop(event.exchange, None)
        if path is None:
            return event
        waiting = self._waiting[path]
        waiting.count -= 1
        if not waiting.count:
            del self._waiting[path]
        if event.exchange in self._given_up:
            self._given_up.discard(event.exchange)
            if isinstance(event, RequestFailed) and event.reason is Failure.PROTECTION:
                return replace(event, reason=Failure.TIMEOUT)
        return event
