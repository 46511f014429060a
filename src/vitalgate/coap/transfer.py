"""The client side of block-wise transfers (RFC 7959): a request whose body goes out in blocks, and its response put
together from blocks."""

from typing import Protocol

from vitalgate.coap.blocks import (
    BLOCK_OPTIONS,
    MAX_NUM,
    MAX_SZX,
    Block,
    block_option,
    without_options,
)
from vitalgate.coap.client import Owner
from vitalgate.coap.events import Event, Failure, TransferProgressed
from vitalgate.coap.message import Code, Message, Options
from vitalgate.coap.options import Option, encode_uint, sort_options, uint_option
from vitalgate.coap.parameters import Limits
from vitalgate.coap.site import SAFE_METHODS
from vitalgate.counters import Counters
from vitalgate.engine import Path

RESTARTS = 3
"""How often a read starts again because the representation changed under it."""
_OURS = frozenset((*BLOCK_OPTIONS, Option.OBSERVE, Option.SIZE1, Option.SIZE2, Option.NO_RESPONSE))
"""What a transfer sets itself; and without the answer to a block there is no next one, so No-Response goes too."""
_FIRST_ONLY = frozenset((int(Option.IF_NONE_MATCH),))
"""Not in requests for later blocks (section 2.10)."""
_IN_PARTS = frozenset((*BLOCK_OPTIONS, Option.SIZE2))
_EARLY = SAFE_METHODS | {Code.POST}
"""Methods whose responses may be large."""
_INCOMPLETE = (Code.REQUEST_ENTITY_INCOMPLETE,)


class Blocks(Protocol):
    """What transfers share: how their messages travel, and what bounds them."""

    counters: Counters
    limits: Limits
    szx: int
    """The largest block to make or ask for, as its exponent."""

    def send(self, request: Message, path: Path, identity: str, now: float, owner: Owner, *, confirmable: bool) -> int:
        """Send a message of a transfer; its response goes to ``owner``."""

    def drop(self, exchange: int, now: float) -> None:
        """Lose interest in one."""

    def tell(self, event: Event) -> None:
        """Say something to the application."""

    def tag(self, transfer: "Transfer") -> bytes | None:
        """The Request-Tag for the body of ``transfer``, None for none (RFC 9175 section 3.4)."""


class Transfer:
    """One request of the application on its way in blocks, there or back or both. ``owner`` gets the outcome; `start`
    or `resume` it."""

    __slots__ = (
        "_body", "_created", "_first", "_last", "_offset", "_options", "_sending", "_szx", "_tag", "_under_way",
        "blocks", "confirmable", "ended", "exchange", "identity", "owner", "path", "request", "restarts",
    )  # fmt: skip

    def __init__(
        self, blocks: Blocks, exchange: int, request: Message, path: Path, identity: str, owner: Owner, *,
        confirmable: bool,
    ) -> None:  # fmt: skip
        self.blocks = blocks
        self.exchange = exchange
        """The application's number for it."""
        self.request = request
        self.path = path
        self.identity = identity
        self.owner = owner
        self.confirmable = confirmable
        self.ended = False
        self.restarts = 0
        self._options: Options = without_options(request.options, _OURS)
        self._szx = blocks.szx
        self._sending = False
        """True while the body goes out in blocks."""
        self._offset = 0
        self._last = 0
        """Bytes in the block under way."""
        self._tag: bytes | None = None
        self._created = False
        self._first: Message | None = None
        self._body = bytearray()
        self._under_way: int | None = None

    @property
    def tag(self) -> bytes | None:
        """The Request-Tag in use."""
        return self._tag

    # The way there

    def start(self, now: float) -> None:
        """Send the first message."""
        self._offset = 0
        self._first = None
        self._body = bytearray()
        self._created = False
        self._sending = len(self.request.payload) > 16 << self._szx
        if self._sending:
            self._tag = self.blocks.tag(self)
            self._send_block(now)
        else:
            self._send(self._early(self._options), self.request.payload, now)

    def resume(self, response: Message, now: float) -> None:
        """Go on from the response to the request as it was sent without blocks."""
        if response.code == Code.REQUEST_ENTITY_TOO_LARGE:
            self._shrink(response, now)
        else:
            self._take(response, now)

    def abort(self, now: float) -> None:
        """Stop; the owner hears nothing."""
        self.ended = True
        if self._under_way is not None:
            self.blocks.drop(self._under_way, now)

    def answered(self, response: Message, now: float, *, more: bool) -> None:
        """The response to the message under way."""
        self._under_way = None
        if self.ended:
            return
        if self._sending:
            self._continue(response, now)
        elif self._first is None:
            self._take(response, now)
        else:
            self._append(self._first, response, now)

    def failed(self, reason: Failure, now: float) -> None:
        """The message under way got no response, or the blocks make no whole."""
        self._under_way = None
        if not self.ended:
            self.ended = True
            self.owner.failed(reason, now)

    def _send(self, options: Options, payload: bytes, now: float) -> None:
        message = Message(self.request.code, options, payload)
        sent = self.blocks.send(message, self.path, self.identity, now, self, confirmable=self.confirmable)
        if not self.ended:
            self._under_way = sent

    def _early(self, options: Options) -> Options:
        # Section 2.4: a size smaller than the largest is asked for with the first request that a response may follow.
        if self._szx == MAX_SZX or self.request.code not in _EARLY:
            return options
        return sort_options((*options, (int(Option.BLOCK2), Block(0, False, self._szx).encode())))

    def _send_block(self, now: float) -> None:
        payload = self.request.payload
        size = 16 << self._szx
        part = payload[self._offset : self._offset + size]
        num = self._offset // size
        if num > MAX_NUM:
            self.blocks.counters.add("coap_limit_reached", "block_number")
            self.failed(Failure.LIMIT, now)
            return
        self._last = len(part)
        more = self._offset + len(part) < len(payload)
        options = self._options if num == 0 else without_options(self._options, _FIRST_ONLY)
        pairs = [*options, (int(Option.BLOCK1), Block(num, more, self._szx).encode())]
        if num == 0:
            pairs.append((int(Option.SIZE1), encode_uint(len(payload))))
        if self._tag is not None:
            pairs.append((int(Option.REQUEST_TAG), self._tag))
        complete = sort_options(pairs)
        self._send(complete if more else self._early(complete), part, now)

    def _continue(self, response: Message, now: float) -> None:
        total = len(self.request.payload)
        after = self._offset + self._last
        echoed = block_option(response, Option.BLOCK1)
        if response.code == Code.REQUEST_ENTITY_TOO_LARGE and self._offset == 0:
            self._shrink(response, now)
        elif response.code == Code.REQUEST_ENTITY_INCOMPLETE and self.restarts == 0:
            # Section 2.5: the server lost what it had. Once more from the first block, as another body.
            self.restarts += 1
            self.blocks.counters.add("coap_transfers_restarted", "request")
            self.start(now)
        elif response.code >> 5 == 2 and after < total:
            # 2.31, or where the server acts on each block by itself what that led to (section 2.3).
            self._created = self._created or response.code == Code.CREATED
            self._offset = after
            if echoed is not None:
                self._szx = min(self._szx, echoed.szx)
            self._tell(after, None)
            self._send_block(now)
        elif response.code == Code.CONTINUE:
            self.failed(Failure.INCOMPLETE, now)  # there is nothing left to go on with
        else:
            self._sending = False
            if response.code == Code.CHANGED and self._created:
                response.code = Code.CREATED  # section 2.10: it dominates what later blocks led to
            if after == total and response.code >> 5 == 2:
                self._tell(total, None)
            self._take(response, now)

    def _shrink(self, response: Message, now: float) -> None:
        # Section 2.9.3: 4.13 without blocks asks for them; with a smaller size, for that. Size1 is the most of all.
        most = uint_option(response, Option.SIZE1)
        echoed = block_option(response, Option.BLOCK1)
        size = len(self.request.payload)
        szx = self._szx if echoed is None else min(self._szx, echoed.szx)
        if not self._sending:
            while szx > 0 and 16 << szx >= size:
                szx -= 1
        smaller = szx < self._szx or not self._sending
        if not smaller or 16 << szx >= size or (most is not None and most < size):
            self._finish(response, now)
            return
        self._szx = szx
        self.blocks.counters.add("coap_transfers_restarted", "size")
        self.start(now)

    # The way back

    def _take(self, response: Message, now: float) -> None:
        block = block_option(response, Option.BLOCK2)
        if block is None or response.code >> 5 != 2:
            self._finish(response, now)
        elif block.num:
            self.failed(Failure.INCOMPLETE, now)
        else:
            self._append(response, response, now)

    def _append(self, first: Message, response: Message, now: float) -> None:
        block = block_option(response, Option.BLOCK2)
        changed = response.option(Option.ETAG) != first.option(Option.ETAG) or response.code != first.code
        if response.code >> 5 != 2 and response.code not in _INCOMPLETE:
            self._finish(response, now)
        elif changed and self.request.code in SAFE_METHODS:
            self._read_again(now)
        elif changed or block is None or not self._fits(block, len(response.payload)):
            self.failed(Failure.INCOMPLETE, now)
        elif max(len(self._body) + len(response.payload), uint_option(response, Option.SIZE2) or 0) > (
            self.blocks.limits.body_bytes
        ):
            self.blocks.counters.add("coap_limit_reached", "body_bytes")
            self.failed(Failure.LIMIT, now)
        else:
            self._first = first
            self._body += response.payload
            if block.more:
                self._szx = min(self._szx, block.szx)
                self._tell(len(self.request.payload), uint_option(first, Option.SIZE2))
                self._ask_next(now)
            else:
                size = len(self._body)
                if block.num:
                    self._tell(len(self.request.payload), size)
                self._finish(Message(first.code, first.options, bytes(self._body)), now)

    def _fits(self, block: Block, length: int) -> bool:
        if block.szx > MAX_SZX or block.offset != len(self._body):
            return False
        return length == block.size if block.more else length <= block.size

    def _ask_next(self, now: float) -> None:
        num = len(self._body) >> (self._szx + 4)
        if num > MAX_NUM:
            self.blocks.counters.add("coap_limit_reached", "block_number")
            self.failed(Failure.LIMIT, now)
            return
        pairs = [
            *without_options(self._options, _FIRST_ONLY),
            (int(Option.BLOCK2), Block(num, False, self._szx).encode()),
        ]
        if self._tag is not None:
            pairs.append((int(Option.REQUEST_TAG), self._tag))
        # Section 2.7: without the body; but a FETCH without its question means nothing to who did not keep the answer.
        whole = self.request.code == Code.FETCH and len(self.request.payload) <= 16 << self.blocks.szx
        self._send(sort_options(pairs), self.request.payload if whole and self._tag is None else b"", now)

    def _read_again(self, now: float) -> None:
        self.blocks.counters.add("coap_transfers_restarted", "changed")
        self.restarts += 1
        if self.restarts > RESTARTS:
            self.failed(Failure.INCOMPLETE, now)
        else:
            self.start(now)

    def _finish(self, response: Message, now: float) -> None:
        self.ended = True
        response.options = without_options(response.options, _IN_PARTS)
        self.owner.answered(response, now, more=False)

    def _tell(self, sent: int, to_receive: int | None) -> None:
        event = TransferProgressed(
            self.exchange, self.path, sent, len(self.request.payload), len(self._body), to_receive
        )
        self.blocks.tell(event)
