"""What options do to a request on its way through a server: Block1 and Block2 (RFC 7959), Observe (RFC 7641) and
No-Response (RFC 7967). Requests without them do not come here, except to have a large response cut up."""

from dataclasses import replace
from typing import Protocol

from vitalgate.coap.blocks import RESERVED_SZX, Block, block_option
from vitalgate.coap.blockserver import BlockServer
from vitalgate.coap.message import Code, Message
from vitalgate.coap.observe import DEREGISTER, REGISTER
from vitalgate.coap.options import Option, uint_option, without_option
from vitalgate.coap.site import SAFE_METHODS, Route
from vitalgate.engine import Path

EXTENSION_OPTIONS = frozenset((Option.OBSERVE, Option.BLOCK1, Option.BLOCK2, Option.NO_RESPONSE))


def is_muted(request: Message, code: int) -> bool:
    """True where the request's No-Response option says that no response of the class of ``code`` is wanted (RFC 7967
    section 2.1: bit n - 1 for class n)."""
    value = uint_option(request, Option.NO_RESPONSE)
    return value is not None and bool(value >> (code >> 5) - 1 & 1)


class Extended:
    """One request with such options. `route` is what serves it: the resource's own, with this in front."""

    __slots__ = ("_extensions", "block1", "block2", "done", "muted", "observe", "resource", "route")

    def __init__(self, extensions: "Extensions", request: Message, route: Route) -> None:
        self._extensions = extensions
        self.resource = route
        self.block1 = block_option(request, Option.BLOCK1)
        self.block2 = block_option(request, Option.BLOCK2)
        # Section 2.6 of RFC 7959: later blocks are fetched without it; an observation is of the whole.
        later = self.block2 is not None and self.block2.num > 0
        observable = request.code in SAFE_METHODS and not later
        self.observe = uint_option(request, Option.OBSERVE) if observable else None
        self.muted = request.option(Option.NO_RESPONSE) is not None
        self.done = False
        """True where the response is about a block and goes out as it is."""
        # A duplicate must not be a block out of order, or bring back an observation that was ended since.
        idempotent = route.idempotent and self.block1 is None and self.observe is None
        self.route = replace(route, handler=self.handle, idempotent=idempotent)

    def keeps_state(self, by_event: bool) -> bool:
        """True where to answer makes an entry in a table: not for an address that is not verified. A resource that
        does not say beforehand that it can be observed then is not; without a site (``by_event``) any may be."""
        if self.block1 is not None and self.block1.more:
            return True
        if self.observe == REGISTER:
            if self.resource.observable or by_event:
                return True
            self.observe = None
        return False

    def mutes(self, request: Message, code: int) -> bool:
        """True where no response with ``code`` is wanted; between blocks the client needs one to go on."""
        return is_muted(request, code) and not (self.block1 is not None and self.block1.more)

    def handle(self, request: Message, path: Path, identity: str, now: float) -> Message | None:
        """The resource's handler, once the request is whole and where the answer is not at hand."""
        blocks = self._extensions.blocks
        if self.block2 is not None and self.block2.szx == RESERVED_SZX:
            self.done = True
            return Message(Code.BAD_REQUEST, (), b"block size")
        if self.block1 is not None:
            answer = blocks.assemble(request, self.block1, path, identity, now)
            if answer is not None:
                self.done = True
                return answer
            self.block2 = block_option(request, Option.BLOCK2)
        if self.block2 is not None and self.block2.num > 0:
            self.done = True
            answer = blocks.part(request, self.block2, path, identity, now)
            if answer is not None:
                return answer
            if request.code not in SAFE_METHODS or (request.code == Code.FETCH and not request.payload):
                # To do it again for a block would do it twice; and what a FETCH asks for is in its payload.
                return Message(Code.REQUEST_ENTITY_INCOMPLETE)
            self.done = False
        if self.observe != REGISTER or not self.resource.forwards:
            request.options = without_option(request.options, Option.OBSERVE)  # the resource is asked as by a GET
        if self.observe == DEREGISTER:
            self._extensions.observations.deregister(path, request.token, now)
        return self.resource.handler(request, path, identity, now)

    def finish(self, request: Message, response: Message, path: Path, identity: str, now: float) -> Message:
        """The response as it goes out."""
        if self.done:
            return response
        extensions = self._extensions
        asked = response.option(Option.OBSERVE) is not None
        if asked:
            response = Message(response.code, without_option(response.options, Option.OBSERVE), response.payload)
        whole = response
        response = extensions.blocks.cut(request, response, self.block2, path, identity, now)
        if self.observe == REGISTER:
            response = extensions.observations.register(
                request, whole, response, self.resource, self.block2, path, identity, now, asked=asked
            )
        if self.block1 is not None:
            response = extensions.blocks.answered(response, self.block1)
        return response


class Observers(Protocol):
    """The list of observers, or what a security layer puts in front of it (`observe.Observations`)."""

    def register(
        self, request: Message, whole: Message, response: Message, route: Route, block: Block | None, path: Path,
        identity: str, now: float, *, asked: bool,
    ) -> Message:  # fmt: skip
        """Enter the client of ``request`` and return ``response`` with the Observe option."""

    def deregister(self, path: Path, token: bytes, now: float) -> None:
        """Remove the entry of this client and token."""


class Extensions:
    """The layers of one server."""

    __slots__ = ("blocks", "observations")

    def __init__(self, blocks: BlockServer, observations: Observers) -> None:
        self.blocks = blocks
        self.observations = observations

    def cut(self, request: Message, response: Message, path: Path, identity: str, now: float) -> Message:
        """The first block of a large response to a request without any of the options."""
        return self.blocks.cut(request, response, None, path, identity, now)
