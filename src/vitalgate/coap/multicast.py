"""Requests that were sent to a group (RFC 7252 section 8), at the side of a server that is a member of it.

The request goes the way of any other, through deduplication, options, the resource and the bound for unverified
addresses; what comes out is caught here, judged (errors and empty answers stay unsaid) and sent at a random moment
within the Leisure. Nothing of this is on the way of unicast requests.
"""

from typing import NamedTuple

from vitalgate.coap.codec import MessageFormatError, decode, encode
from vitalgate.coap.core import Core
from vitalgate.coap.events import RequestReceived
from vitalgate.coap.message import Code, Message, Type, is_request
from vitalgate.coap.options import Option, Use, check_options, uint_option, without_option
from vitalgate.coap.server import SERVER_CRITICAL, Server
from vitalgate.coap.site import SAFE_METHODS, Route, Site
from vitalgate.engine import Datagram, Path


class GroupPath(NamedTuple):
    """Where a datagram came from that was sent to a group: the sender's own path, and the group's address."""

    peer: Path
    group: Path


class GroupServer:
    """Group requests to one endpoint, and the responses that wait for their moment."""

    __slots__ = ("_core", "_deferred", "_ends", "_server", "_site", "_waiting")

    def __init__(self, core: Core, server: Server, site: Site | None) -> None:
        self._core = core
        self._server = server
        self._site = site
        self._waiting = 0
        self._ends: dict[Path, float] = {}
        """Group to the end of its leisure period."""
        self._deferred: dict[int, tuple[float, GroupPath, Message]] = {}
        """Exchange that the application answers later: until when, and what it is."""

    def __len__(self) -> int:
        return self._waiting

    def receive(self, data: bytes, path: GroupPath, now: float) -> None:
        """One datagram that ``path.peer`` sent to ``path.group``. It is never answered by a Reset message, and by no
        error response (sections 8.1, 8.2)."""
        core = self._core
        try:
            message = decode(data, core.parameters.max_token_length)
        except MessageFormatError as error:
            core.reject(path.peer, 0, error.reason, reset=False)
            return
        reason = self._fault(message)
        if reason:
            core.reject(path.peer, 0, reason, reset=False)
            return
        if self._waiting >= core.limits.group_responses:
            core.counters.add("coap_limit_reached", "group_responses")
            return
        if message.option(Option.OBSERVE) is not None:
            # A group is asked once; who wants to observe a member asks that member.
            message.options = without_option(message.options, Option.OBSERVE)
            data = encode(message, core.parameters.max_token_length)
        core.counters.add("coap_group_requests_received")
        mark = len(core.outgoing)
        events = len(core.events)
        self._server.receive(data, path.peer, now, data[0], message.code, message.mid)
        if len(core.events) > events and isinstance(event := core.events[-1], RequestReceived):
            self._forget_old(now)
            self._deferred[event.exchange] = (now + core.parameters.exchange_lifetime, path, message)
        self._hold_back(mark, message, path.peer, path.group, now)

    def respond(self, exchange: int, response: Message, now: float) -> bool:
        """The application's response; False where ``exchange`` is no group request's."""
        found = self._deferred.pop(exchange, None)
        if found is None:
            return False
        mark = len(self._core.outgoing)
        self._server.respond(exchange, response, now)
        _, path, request = found
        self._hold_back(mark, request, path.peer, path.group, now)
        return True

    def send(self, response: "GroupResponse") -> None:
        """The moment of ``response`` has come."""
        self._waiting -= 1
        self._core.outgoing.append(response.datagram)

    def _fault(self, message: Message) -> str:
        # Why ``message`` is not for a group, or ''.
        if not is_request(message.code):
            return "group_no_request"
        if message.type != Type.NON:
            return "group_confirmable"  # section 8.1
        route = None if self._site is None else self._site.find(message.code, message.options)
        if not isinstance(route, Route) or not route.groups:
            return "group_resource"
        understood = (SERVER_CRITICAL | self._core.understands) - {Option.PROXY_URI, Option.PROXY_SCHEME, Option.BLOCK1}
        _, bad = check_options(message.options, Use.REQUEST, understood)
        return "bad_option" if bad else ""

    def _hold_back(self, mark: int, request: Message, peer: Path, group: Path, now: float) -> None:
        # What the request brought forth, from position ``mark`` of what is to be sent; not all of it is the response: a
        # change may have been told to observers.
        core = self._core
        caught = core.outgoing[mark:]
        del core.outgoing[mark:]
        for datagram in caught:
            response = decode(datagram[0], core.parameters.max_token_length)
            if datagram[1] != peer or response.token != request.token:
                core.outgoing.append(datagram)
                continue
            if not self._is_wanted(request, response):
                core.counters.add("coap_responses_undelivered", "group")
                continue
            # Section 8.2: a random moment of the leisure period; a new period starts after the one before.
            start = max(now, self._ends.get(group, now))
            leisure = core.parameters.default_leisure
            due = start + leisure * (int.from_bytes(core.randomness(2), "big") / 65536)
            if group not in self._ends and len(self._ends) >= core.limits.group_responses:
                self._ends.clear()
            self._ends[group] = start + leisure
            self._waiting += 1
            core.timers.set(GroupResponse(self, datagram), due)

    @staticmethod
    def _is_wanted(request: Message, response: Message) -> bool:
        if uint_option(request, Option.NO_RESPONSE) is not None:
            return True  # RFC 7967 section 2.1: the client said what it wants, and the server has heeded it
        if response.code == Code.UNAUTHORIZED and response.option(Option.ECHO) is not None:
            return True  # without it an unverified client would never learn that there is something to ask for
        return response.code >> 5 == 2 and (bool(response.payload) or request.code not in SAFE_METHODS)

    def _forget_old(self, now: float) -> None:
        while self._deferred:
            exchange, (until, _, _) = next(iter(self._deferred.items()))
            if until > now:
                return
            del self._deferred[exchange]


class GroupResponse:
    """A response that waits for its moment."""

    __slots__ = ("_groups", "datagram", "due")

    def __init__(self, groups: GroupServer, datagram: Datagram) -> None:
        self._groups = groups
        self.datagram = datagram
        self.due: float | None = None

    def on_due(self, now: float) -> None:
        """Now."""
        self._groups.send(self)
