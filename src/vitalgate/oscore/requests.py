"""Requests of ours under OSCORE: how each is protected and sent, and what may answer it (RFC 8613 sections 8.1, 8.4).

A `coap.calls.Carrier`: blocks and observations are a layer on top of this, inside the protection.
"""

from vitalgate.coap.blocks import BLOCK_OPTIONS
from vitalgate.coap.calls import Calls
from vitalgate.coap.client import Client, Owner, is_notification
from vitalgate.coap.core import Core
from vitalgate.coap.events import Failure, RequestFailed, ResponseReceived
from vitalgate.coap.message import Message
from vitalgate.coap.options import Option, Use, check_options
from vitalgate.engine import Path
from vitalgate.oscore.context import SecurityContext
from vitalgate.oscore.contexts import Contexts
from vitalgate.oscore.errors import OscoreError, ProtectionError, Refusal
from vitalgate.oscore.protect import Binding, protect_request, unprotect_response
from vitalgate.oscore.recovery import challenge_in, with_echo

ECHOES = 3
"""Challenges answered for one request: the server may restart and a resource want freshness. The next is handed on."""


class Sent:
    """A request of ours under way. ``context`` None: it went unprotected, because the application said so."""

    __slots__ = (
        "_requests", "binding", "confirmable", "context", "echoes", "ended", "ending", "exchange", "identity",
        "observing", "outer", "owner", "path", "previous", "request", "response",
    )  # fmt: skip

    def __init__(
        self, requests: "Requests", exchange: int, request: Message, path: Path, identity: str, *, confirmable: bool
    ) -> None:
        self._requests = requests
        self.exchange = exchange
        self.request = request
        self.path = path
        self.identity = identity
        """The peer that the application named, or ''."""
        self.confirmable = confirmable
        self.context: SecurityContext | None = None
        self.owner: Owner | None = None
        """Who takes the outcome in place of the application."""
        self.observing = False
        self.ending = False
        self.ended = False
        self.outer: int | None = None
        """The outer endpoint's number."""
        self.binding: Binding | None = None
        self.previous: Binding | None = None
        """Of the registration before, whose notifications may still be on their way."""
        self.response: Message | None = None  # verified, until the outer endpoint tells of it
        self.echoes = 0  # challenges answered

    def answered(self, response: Message, now: float, *, more: bool) -> None:
        """The outer endpoint has a response that was accepted."""
        self._requests.answered(self, response, now, more=more)

    def failed(self, reason: Failure, now: float) -> None:
        """The outer endpoint has none."""
        self._requests.fail(self, reason, now)


class Requests:
    """Requests of ours by the outer endpoint's number (for what arrives) and by our own (for the application)."""

    def __init__(self, contexts: Contexts, core: Core, outer: Client, understood: frozenset[int]) -> None:
        self._contexts = contexts
        self._core = core
        self._counters = core.counters
        self._outer = outer
        self._understood = understood | BLOCK_OPTIONS
        self._sent: dict[int, Sent] = {}
        self._by_number: dict[int, Sent] = {}
        self.protects = True
        self.calls = Calls(core, self)

    def __len__(self) -> int:
        return len(self._by_number)

    def request(self, request: Message, path: Path, identity: str, now: float, *, confirmable: bool) -> int:
        """A request of the application in one message."""
        sent = Sent(self, self._core.new_exchange(), request, path, identity, confirmable=confirmable)
        self._start(sent, now)
        return sent.exchange

    def request_unprotected(self, request: Message, path: Path, now: float, *, confirmable: bool) -> int:
        """The same in clear."""
        sent = Sent(self, self._core.new_exchange(), request, path, "", confirmable=confirmable)
        self._transmit(sent, request, now)
        return sent.exchange

    def cancel(self, exchange: int, now: float) -> None:
        """Lose interest in a request of the application."""
        sent = self._by_number.get(exchange)
        if sent is not None and sent.outer is not None:
            self._outer.cancel(sent.outer, now)

    # calls.Carrier

    def send(
        self, request: Message, path: Path, identity: str, now: float, owner: Owner, *, confirmable: bool,
        observing: bool,
    ) -> int:  # fmt: skip
        """A request whose outcome is the ``owner``'s."""
        sent = Sent(self, self._core.new_exchange(), request, path, identity, confirmable=confirmable)
        sent.owner = owner
        sent.observing = observing
        self._start(sent, now)
        return sent.exchange

    def renew(self, exchange: int, request: Message, now: float, *, ending: bool) -> bool:
        """Another request under the token of one that observes, protected anew (section 4.1.3.5.1)."""
        sent = self._by_number.get(exchange)
        if sent is None or sent.outer is None or sent.context is None or sent.context not in self._contexts:
            return False
        try:
            protected, binding = protect_request(sent.context, request)
        except ProtectionError:
            self._counters.add("oscore_not_protected", "request")
            return False
        if not self._outer.renew(sent.outer, protected, now, ending=ending):
            return False
        sent.request = request
        sent.previous, sent.binding = sent.binding, binding
        sent.ending = ending
        sent.echoes = 0
        return True

    def drop(self, exchange: int, now: float) -> None:
        """Lose interest in a request whose owner needs not be told."""
        sent = self._by_number.get(exchange)
        if sent is not None:
            self._end(sent, now)

    # What arrives

    def accepts(self, outer: int, response: Message, _path: Path) -> bool:
        """Whether a response may end its exchange (section 8.4). An error without OSCORE option may: it is how a server
        says that it has no context, or how the CoAP layer asks for Echo. All else that does not verify is ignored."""
        sent = self._sent.get(outer)
        if sent is None or sent.context is None or sent.binding is None:
            return sent is not None
        if response.option(Option.OSCORE) is None and response.code >= 0x80:
            return True
        try:
            if sent.context not in self._contexts:
                raise OscoreError(Refusal.NO_CONTEXT)
            sent.response = self._verified(sent, sent.context, sent.binding, response)
        except OscoreError as error:
            self._counters.add("oscore_responses_ignored", error.refusal.value)
            return False
        return True

    @staticmethod
    def _verified(sent: Sent, context: SecurityContext, binding: Binding, response: Message) -> Message:
        if sent.previous is None:
            return unprotect_response(context, binding, response)
        try:
            found = unprotect_response(context, binding, response)
        except OscoreError as error:
            if error.refusal is not Refusal.DECRYPTION:
                raise
            return unprotect_response(context, sent.previous, response)
        sent.previous = None  # what the registration before led to is older than this
        return found

    def answered(self, sent: Sent, outer: Message, now: float, *, more: bool) -> None:
        """A response that `accepts` let through; ``more``: the outer endpoint expects others."""
        if sent.context is None:
            self._end(sent, now)
            self._core.tell(ResponseReceived(sent.exchange, outer, sent.path))
            return
        response, sent.response = sent.response, None
        if response is None:  # an error in clear: who sent it is not known, but the request is not going on
            self._counters.add("oscore_errors_received")
            self.fail(sent, Failure.PROTECTION, now)
            return
        echo = challenge_in(response)
        if echo is not None and sent.echoes < ECHOES:
            # Appendix B.1.2: the server lost its window; the same request again, under a number of its own.
            self._counters.add("oscore_echoes_answered")
            sent.echoes += 1
            if sent.outer is not None:
                self._outer.drop(sent.outer, now)
                self._sent.pop(sent.outer, None)
            self._transmit(sent, with_echo(sent.request, echo), now)
            return
        response.options, bad = check_options(response.options, Use.RESPONSE, self._understood)
        if bad:
            self.fail(sent, Failure.REJECTED, now)
        elif sent.owner is not None and more and not sent.ending and is_notification(response):
            sent.owner.answered(response, now, more=True)
        else:
            self._end(sent, now)
            self._conclude(sent, response, now)

    def fail(self, sent: Sent, reason: Failure, now: float) -> None:
        """End a request and say why."""
        if sent.ended:
            return
        self._end(sent, now)
        if sent.owner is None:
            self._core.tell(RequestFailed(sent.exchange, sent.path, reason))
        else:
            sent.owner.failed(reason, now)

    def _conclude(self, sent: Sent, response: Message, now: float) -> None:
        if sent.owner is not None:
            sent.owner.answered(response, now, more=False)
        elif self.calls.continues(sent.request, response, sent.path, now, sent.identity):
            self.calls.resume(
                sent.exchange, sent.request, response, sent.path, now, identity=sent.identity,
                confirmable=sent.confirmable,
            )  # fmt: skip
        else:
            self._core.tell(ResponseReceived(sent.exchange, response, sent.path))

    # How it goes out

    def _start(self, sent: Sent, now: float) -> None:
        context = self._contexts.named(sent.identity) if sent.identity else self._contexts.towards(sent.path)
        if context is None:
            self._counters.add("oscore_not_protected", "no-context")
            self.fail(sent, Failure.PROTECTION, now)
            return
        sent.context = context
        self._transmit(sent, sent.request, now)

    def _transmit(self, sent: Sent, request: Message, now: float) -> None:
        self._by_number[sent.exchange] = sent
        try:
            if sent.context is not None:
                request, sent.binding = protect_request(sent.context, request)
            outer = self._outer.request(
                request, sent.path, now, confirmable=sent.confirmable, owner=sent, observing=sent.observing
            )
        except ProtectionError:
            self._counters.add("oscore_not_protected", "request")
            sent.outer = None
            self.fail(sent, Failure.PROTECTION, now)
            return
        if not sent.ended:
            sent.outer = outer
            self._sent[outer] = sent

    def _end(self, sent: Sent, now: float) -> None:
        sent.ended = True
        self._by_number.pop(sent.exchange, None)
        if sent.outer is not None:
            self._sent.pop(sent.outer, None)
            self._outer.drop(sent.outer, now)  # where it goes on out there
