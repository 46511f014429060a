"""One test case on one pair of client and server: its steps and what the wire says about each.

The test cases are those of the ETSI CoAP#4 plugtest (TD_COAP_CORE, BLOCK, OBS, LINK). Each is a coroutine in `core`,
`block`, `observe` or `link` that asks the client for something through the `Trial` and checks what the relay saw.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from vitalgate.coap.message import Code, Message, Type, code_text
from vitalgate.coap.options import Option, path_segments, queries, uri_path
from vitalgate.net.coap import CoapClient, How
from vitalgate.net.etsi.asking import Ask, Asker, Shown
from vitalgate.net.etsi.wire import Relay, Seen

PATIENCE = 12.0
"""Seconds that a step waits for a datagram, at most, where nothing else is said."""


OCTETS = 42
"""application/octet-stream: what the cases put. A server may leave out the Content-Format of plain text."""


@dataclass(frozen=True, slots=True)
class Check:
    """What one step asks for and whether the wire shows it."""

    text: str
    passed: bool
    seen: str = ""


class AbandonedError(Exception):
    """What is left of the case makes no sense: a step before it failed."""


class LeftOutError(Exception):
    """The case cannot be run with this client; the text says why."""


@dataclass(slots=True)
class Exchange:
    """A request and what came of it, as seen on the wire."""

    requests: list[Seen]
    responses: list[Seen]
    shown: Shown | None

    @property
    def request(self) -> Message:
        """The request as first sent."""
        message = self.requests[0].message
        assert message is not None
        return message

    @property
    def response(self) -> Message:
        """The response."""
        message = self.responses[0].message
        assert message is not None
        return message


@dataclass(slots=True)
class Trial:
    """The run of one case. ``names`` says what the server calls a resource where it is not as the descriptions do;
    ``helper`` is a second client, directly at the server: whoever else changes its resources."""

    relay: Relay
    asker: Asker
    target: tuple[str, int]
    helper: CoapClient
    names: Mapping[str, str]
    max_latency: float
    """MAX_LATENCY of the client, in seconds."""
    gives_up: float
    """After so many seconds the server has given up a Confirmable message (MAX_TRANSMIT_WAIT)."""
    patience: float
    """Seconds that a step waits for a datagram, at most."""
    nudge_after: float
    """Seconds after which a resource counts as one that does not change by itself."""
    checks: list[Check] = field(default_factory=list)

    # Checks

    def check(self, text: str, passed: bool, seen: object = "") -> bool:
        """Note one check."""
        self.checks.append(Check(text, passed, "" if passed and not seen else str(seen)))
        return passed

    def must(self, text: str, passed: bool, seen: object = "") -> None:
        """Note one check without which the rest makes no sense."""
        if not self.check(text, passed, seen):
            raise AbandonedError

    # Steps

    def named(self, ask: Ask) -> Ask:
        """``ask`` for the server's own name of the resource."""
        path, _, query = self.names.get(ask.path, ask.path).partition("?")
        return replace(ask, path=path, query=(*ask.query, *query.split("&")) if query else ask.query)

    async def send(self, ask: Ask) -> Exchange:
        """Have the client send ``ask`` and return the exchange. The request's form is checked here."""
        ask = self.named(ask)
        start = len(self.relay.seen)
        shown = await self.asker.ask(self.relay.address, ask)
        exchange = self.exchange(ask, start, shown)
        self.must("the client sent the request", bool(exchange.requests))
        self.check_request(ask, exchange.request)
        return exchange

    def exchange(self, ask: Ask, start: int, shown: Shown | None) -> Exchange:
        """The first exchange with the method and path of ``ask`` that began after datagram number ``start``."""
        window = self.relay.seen[start:]
        before = {seen.data for seen in self.relay.seen[:start]}
        wanted = tuple(segment for _, segment in uri_path(ask.path))
        requests = [
            seen for seen in window
            if seen.to_server and seen.message is not None and seen.message.code == ask.code and seen.data not in before
            and path_segments(seen.message.options) == wanted
        ]  # fmt: skip
        if not requests:
            return Exchange([], [], shown)
        first = requests[0].message
        assert first is not None
        requests = [seen for seen in requests if seen.data == requests[0].data]
        responses = [
            seen for seen in window
            if not seen.to_server and seen.message is not None and seen.message.code >> 5 in (2, 4, 5)
            and seen.message.token == first.token
            and (seen.message.type != Type.ACK or seen.message.mid == first.mid)
        ]  # fmt: skip
        return Exchange(requests, responses, shown)

    def check_request(self, ask: Ask, request: Message) -> None:
        """The request has what the client was asked for."""
        kind = Type.CON if ask.confirmable else Type.NON
        self.check(f"request: Type = {kind.value} ({kind.name})", request.type == kind, Type(request.type).name)
        self.check(f"request: Code = {code_text(ask.code)} ({Code(ask.code).name})", request.code == ask.code)
        path = [segment.decode() for segment in path_segments(request.options)]
        self.check(f"request: Uri-Path = {ask.path}", path == ask.path.split("/"), "/".join(path))
        self.check("request: token of at most 8 bytes", len(request.token) <= 8, len(request.token))
        if ask.query:
            found = queries(request.options)
            self.check(f"request: Uri-Query = {', '.join(ask.query)}", found == ask.query, ", ".join(found))
        for name, wanted, number in (
            ("Content-Format", ask.content_format, Option.CONTENT_FORMAT),
            ("Accept", ask.accept, Option.ACCEPT),
        ):
            if wanted is not None:
                value = request.option(number)
                found_number = None if value is None else int.from_bytes(value, "big")
                self.check(f"request: {name} = {wanted}", found_number == wanted, found_number)
        if ask.etag:
            self.check("request: ETag = ETAG1", request.all(Option.ETAG) == [ask.etag])
        if ask.if_match is not None:
            self.check("request: If-Match = the ETag", request.all(Option.IF_MATCH) == [ask.if_match])
        if ask.if_none_match:
            self.check("request: If-None-Match", request.option(Option.IF_NONE_MATCH) is not None)
        if ask.payload and ask.block is None:
            self.check("request: the payload", request.payload == ask.payload, f"{len(request.payload)} bytes")

    async def transact(
        self, ask: Ask, codes: Iterable[int], *, payload: bool | None = None, content_format: int | None = None,
        display: bool = True,
    ) -> Exchange:  # fmt: skip
        """A whole exchange: the request, and a response with one of ``codes`` that belongs to it, piggybacked for a
        Confirmable request. ``payload``: there must (not) be one."""
        exchange = await self.send(ask)
        self.must("a response came", bool(exchange.responses))
        request, response = exchange.request, exchange.response
        self.check_code(response, codes)
        if request.type == Type.CON:
            self.check("response: Message ID = the request's", response.mid == request.mid, response.mid)
            self.check("response: Type = 2 (ACK)", response.type == Type.ACK, Type(response.type).name)
        else:
            self.check("response: Type = 1 (NON)", response.type == Type.NON, Type(response.type).name)
        self.check_response(exchange, payload=payload, content_format=content_format, display=display)
        return exchange

    def check_code(self, response: Message, codes: Iterable[int]) -> None:
        """The response's code is one of these."""
        wanted = list(codes)
        self.check(
            "response: Code = " + " or ".join(code_text(code) for code in wanted),
            response.code in wanted, code_text(response.code),
        )  # fmt: skip

    def check_response(
        self, exchange: Exchange, *, payload: bool | None, content_format: int | None = None, display: bool = True
    ) -> None:
        """Token, Content-Format and payload of the response, and what the client shows of it."""
        request, response = exchange.request, exchange.response
        self.check("response: token = the request's", response.token == request.token, response.token.hex())
        found = response.option(Option.CONTENT_FORMAT)
        shown_format = None if found is None else int.from_bytes(found, "big")
        if content_format is not None:
            self.check(f"response: Content-Format = {content_format}", shown_format == content_format, shown_format)
        elif response.payload and response.code >> 5 == 2:
            self.check("response: Content-Format with the payload", found is not None)
        if payload is not None:
            text = "response: a payload" if payload else "response: no payload"
            self.check(text, bool(response.payload) == payload, f"{len(response.payload)} bytes")
        if display:
            self.check_display(exchange.shown, response.code, response.payload)

    def check_display(self, shown: Shown | None, code: int, payload: bytes) -> None:
        """The client shows this response."""
        right = shown is not None and shown.code in (None, code) and shown.payload == payload
        seen = "nothing" if shown is None else f"{len(shown.payload)} bytes"
        self.check("the client displays the response", right, "" if right else seen)

    # The server's other users

    async def change(self, ask: Ask) -> Message:
        """Someone else sends ``ask``, directly to the server."""
        ask = self.named(ask)
        how: How = {"options": ask.extra()}
        if ask.payload:
            how["content_format"] = OCTETS if ask.content_format is None else ask.content_format
        return await self.helper.request(ask.code, ask.uri(self.target), ask.payload, **how)

    async def ensure(self, path: str, content: bytes = b"content of the test") -> None:
        """There is something at ``path``, put there if need be."""
        if (await self.change(Ask(Code.GET, path))).code != Code.CONTENT:
            await self.change(Ask(Code.PUT, path, payload=content))


Steps = Callable[[Trial], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Case:
    """A row of the list: ``resources`` it uses, so that no two cases disturb each other; ``sections`` of the RFCs."""

    id: str
    objective: str
    sections: str
    resources: tuple[str, ...]
    steps: Steps


CASES: dict[str, Case] = {}


def case(id_: str, objective: str, sections: str, *resources: str) -> Callable[[Steps], Steps]:
    """Enter a coroutine into the list."""

    def enter(steps: Steps) -> Steps:
        CASES[id_] = Case(id_, objective, sections, resources, steps)
        return steps

    return enter
