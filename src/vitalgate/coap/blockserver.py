"""The server side of block-wise transfers (RFC 7959): request bodies put together, large representations cut up.

A request body that comes in blocks is handed on whole, and a representation that is too large for one message is kept
while its blocks are fetched. What is kept can always be dropped: a GET makes the representation anew, all else is
answered 4.08 and starts again.
"""

from collections.abc import Hashable
from hashlib import blake2s

from vitalgate.coap.blocks import (
    BLOCK_OPTIONS,
    RESERVED_SZX,
    Block,
    block_option,
    szx_of,
    transfer_key,
    without_options,
)
from vitalgate.coap.core import Core
from vitalgate.coap.message import Code, Message, Options
from vitalgate.coap.options import (
    Option,
    build_options,
    content_format,
    encode_uint,
    sort_options,
    uint_option,
    with_option,
)
from vitalgate.coap.site import SAFE_METHODS
from vitalgate.engine import Path

ETAG_BYTES = 8
BUSY_SECONDS = 10
"""Max-Age of 5.03 where no more bodies can be taken: when to try again."""
_REQUEST_BLOCK_OPTIONS = BLOCK_OPTIONS | {int(Option.SIZE1)}
_NO_BLOCK1 = frozenset((int(Option.BLOCK1), int(Option.SIZE1)))


class Assembly:
    """A request body on its way: the blocks so far, and the options of the first."""

    __slots__ = ("_server", "body", "due", "key", "options")

    def __init__(self, server: "BlockServer", key: Hashable, options: Options) -> None:
        self._server = server
        self.key = key
        self.options = options
        self.body = bytearray()
        self.due: float | None = None

    def on_due(self, _now: float) -> None:
        """No block came for EXCHANGE_LIFETIME."""
        self._server.expire_assembly(self)


class Representation:
    """A response whose blocks are being fetched."""

    __slots__ = ("_server", "due", "key", "question", "response")

    def __init__(self, server: "BlockServer", key: Hashable, question: bytes, response: Message) -> None:
        self._server = server
        self.key = key
        self.question = question
        """The payload of the request that it answers."""
        self.response = response
        self.due: float | None = None

    def on_due(self, _now: float) -> None:
        """EXCHANGE_LIFETIME is over."""
        self._server.expire_representation(self)


class BlockServer:
    """Bodies of requests and representations by (path, identity, method and options that are not the block's own)."""

    __slots__ = ("_assemblies", "_assembly_bytes", "_core", "_lifetime", "_representation_bytes", "_representations",
                 "_szx")  # fmt: skip

    def __init__(self, core: Core) -> None:
        self._core = core
        self._lifetime = core.parameters.exchange_lifetime
        self._szx = szx_of(core.parameters.block_size)
        self._assemblies: dict[Hashable, Assembly] = {}
        self._assembly_bytes = 0
        self._representations: dict[Hashable, Representation] = {}
        self._representation_bytes = 0

    def __len__(self) -> int:
        return len(self._assemblies) + len(self._representations)

    # Requests

    def assemble(self, request: Message, block: Block, path: Path, identity: str, now: float) -> Message | None:
        """Take a request with a Block1 option. None where the body is whole, and is now the request's payload; else
        the response: 2.31, or 4.00, 4.08, 4.13, 5.03 with the reason in RFC 7959 section 2."""
        size = len(request.payload)
        if block.szx == RESERVED_SZX or (size != block.size if block.more else size > block.size):
            return Message(Code.BAD_REQUEST, (), b"block size")
        key = (path, identity, *transfer_key(request.code, request.options))
        found = self._assemblies.get(key)
        if block.num == 0:
            if found is not None:
                self._drop_assembly(found)  # section 2.5: the client started again
            if not block.more:
                request.options = without_options(request.options, _NO_BLOCK1)
                return self._too_large(block) if len(request.payload) > self._core.limits.body_bytes else None
            refused = self._refuse_new(request, block)
            if refused is not None:
                return refused
            found = self._assemblies[key] = Assembly(self, key, request.options)
        elif found is None:
            self._core.counters.add("coap_bodies_refused", "unknown")
            return Message(Code.REQUEST_ENTITY_INCOMPLETE)
        elif uint_option(Message(0, found.options), Option.CONTENT_FORMAT) != content_format(request):
            self._core.counters.add("coap_bodies_refused", "content_format")
            return Message(Code.REQUEST_ENTITY_INCOMPLETE, (), b"Content-Format")
        refused = self._append(found, request.payload, block)
        if refused is not None:
            return refused
        self._core.timers.set(found, now + self._lifetime)
        if block.more:
            return Message(Code.CONTINUE, ((int(Option.BLOCK1), self._answered(block, more=True)),))
        self._drop_assembly(found)
        request.payload = bytes(found.body)
        # If-None-Match is in the first request alone (section 2.10), early negotiation of Block2 may be in the last.
        ours = without_options(found.options, _REQUEST_BLOCK_OPTIONS)
        last = tuple(pair for pair in request.options if pair[0] == Option.BLOCK2)
        request.options = sort_options([*ours, *last])
        self._core.counters.add("coap_bodies_assembled")
        return None

    def answered(self, response: Message, block: Block) -> Message:
        """``response`` to a body's last block, with the Block1 option that says so."""
        options = with_option(response.options, Option.BLOCK1, self._answered(block, more=False))
        return Message(response.code, options, response.payload)

    def _answered(self, block: Block, *, more: bool) -> bytes:
        return Block(block.num, more, min(block.szx, self._szx)).encode()

    def _refuse_new(self, request: Message, block: Block) -> Message | None:
        limits = self._core.limits
        if (uint_option(request, Option.SIZE1) or 0) > limits.body_bytes:
            return self._too_large(block)
        limit = ""
        if len(self._assemblies) >= limits.assemblies:
            limit = "assemblies"
        elif self._assembly_bytes + len(request.payload) > limits.assembly_bytes:
            limit = "assembly_bytes"
        if not limit:
            return None
        self._core.counters.add("coap_limit_reached", limit)
        return Message(Code.SERVICE_UNAVAILABLE, build_options(max_age=BUSY_SECONDS))

    def _append(self, found: Assembly, payload: bytes, block: Block) -> Message | None:
        limits = self._core.limits
        body = found.body
        offset = block.offset
        end = offset + len(payload)
        if offset < len(body) and block.more and end <= len(body) and body[offset:end] == payload:
            return None  # sent again in a new message, because our answer was lost
        if offset != len(body):
            self._core.counters.add("coap_bodies_refused", "order")
            return Message(Code.REQUEST_ENTITY_INCOMPLETE)
        if end > limits.body_bytes:
            self._drop_assembly(found)
            return self._too_large(block)
        if self._assembly_bytes + len(payload) > limits.assembly_bytes:
            self._drop_assembly(found)
            self._core.counters.add("coap_limit_reached", "assembly_bytes")
            return Message(Code.SERVICE_UNAVAILABLE, build_options(max_age=BUSY_SECONDS))
        body += payload
        self._assembly_bytes += len(payload)
        return None

    def _too_large(self, block: Block) -> Message:
        # Section 2.9.3 and RFC 7252 section 5.9.2.9: Size1 is the most that would be taken.
        self._core.counters.add("coap_limit_reached", "body_bytes")
        most = encode_uint(self._core.limits.body_bytes)
        options = ((int(Option.BLOCK1), self._answered(block, more=False)), (int(Option.SIZE1), most))
        return Message(Code.REQUEST_ENTITY_TOO_LARGE, options)

    def expire_assembly(self, found: Assembly) -> None:
        """Forget a body whose blocks stopped coming."""
        self._core.counters.add("coap_bodies_refused", "abandoned")
        self._drop_assembly(found)

    def _drop_assembly(self, found: Assembly) -> None:
        self._core.timers.clear(found)
        if self._assemblies.pop(found.key, None) is not None:
            self._assembly_bytes -= len(found.body)

    # Responses

    def part(self, request: Message, block: Block, path: Path, identity: str, now: float) -> Message | None:
        """A block after the first of a representation that is kept; None where there is none (any more)."""
        key = (path, identity, *transfer_key(request.code, request.options))
        found = self._representations.get(key)
        if found is None or (request.payload and request.payload != found.question):
            return None
        response = self._slice(found.response, Block(block.num, False, min(block.szx, self._szx)))
        answered = block_option(response, Option.BLOCK2)
        if answered is not None and answered.more:
            self._core.timers.set(found, now + self._lifetime)
        elif request.code in SAFE_METHODS:
            self._drop_representation(found)  # if the last block is asked for again, it is made again
        return response

    def cut(
        self, request: Message, response: Message, wanted: Block | None, path: Path, identity: str, now: float
    ) -> Message:
        """``response``, or where it is larger than a block may be (or ``wanted`` names a block) that block of it; the
        rest is kept to be fetched."""
        if response.option(Option.BLOCK2) is not None or response.code >> 5 != 2:
            return response  # the resource does it itself; diagnostic payloads are short
        szx = self._szx if wanted is None else min(wanted.szx, self._szx)
        num = 0 if wanted is None else wanted.num
        size = 16 << szx
        if wanted is None and len(response.payload) <= size:
            return response
        if len(response.payload) > size:
            if request.code in SAFE_METHODS and response.option(Option.ETAG) is None:
                etag = blake2s(response.payload, digest_size=ETAG_BYTES).digest()  # section 2.4
                response = Message(response.code, with_option(response.options, Option.ETAG, etag), response.payload)
            if (num + 1) * size < len(response.payload):
                self._keep(request, response, path, identity, now)
        return self._slice(response, Block(num, False, szx))

    def _slice(self, response: Message, block: Block) -> Message:
        payload = response.payload
        end = block.offset + block.size
        if block.num and block.offset >= len(payload):
            return Message(Code.BAD_REQUEST, (), b"beyond the last block")
        more = [(int(Option.BLOCK2), Block(block.num, end < len(payload), block.szx).encode())]
        if block.num == 0 and end < len(payload):
            more.append((int(Option.SIZE2), encode_uint(len(payload))))
        return Message(response.code, sort_options([*response.options, *more]), payload[block.offset : end])

    def _keep(self, request: Message, response: Message, path: Path, identity: str, now: float) -> None:
        limits = self._core.limits
        key = (path, identity, *transfer_key(request.code, request.options))
        found = self._representations.get(key)
        if found is not None:
            self._drop_representation(found)
        size = len(response.payload)
        if size > limits.representation_bytes:
            self._core.counters.add("coap_limit_reached", "representation_bytes")
            return
        while self._representations and (
            len(self._representations) >= limits.representations
            or self._representation_bytes + size > limits.representation_bytes
        ):
            limit = "representations" if len(self._representations) >= limits.representations else ""
            self._core.counters.add("coap_limit_reached", limit or "representation_bytes")
            self._drop_representation(next(iter(self._representations.values())))
        found = self._representations[key] = Representation(self, key, request.payload, response)
        self._representation_bytes += size
        self._core.timers.set(found, now + self._lifetime)

    def expire_representation(self, found: Representation) -> None:
        """Forget a representation whose blocks are not fetched any more."""
        self._drop_representation(found)

    def _drop_representation(self, found: Representation) -> None:
        self._core.timers.clear(found)
        if self._representations.pop(found.key, None) is not None:
            self._representation_bytes -= len(found.response.payload)
