"""Requests of ours to a group (RFC 7252 section 8): one Non-confirmable message, any number of responses, an end time.

Only the token matches responses with the request (section 8.2), so whoever sees the request can answer it; a response
says where it came from, and that is what its links are relative to.
"""

from vitalgate.coap.codec import HEADER, MAX_TOKEN, VERSION_BITS, encode_empty, encode_options, encode_payload
from vitalgate.coap.core import Core
from vitalgate.coap.events import Failure, GroupRequestEnded, RequestFailed, ResponseReceived
from vitalgate.coap.message import Message, Type, is_request
from vitalgate.coap.options import Option, Use, check_options
from vitalgate.engine import Path

TRIES = 1000
"""Random Message IDs that are tried for one that no peer may know."""


class GroupExchange:
    """One request to a group and who has answered."""

    __slots__ = ("_client", "due", "exchange", "group", "seen", "token")

    def __init__(self, client: "GroupClient", exchange: int, group: Path, token: bytes) -> None:
        self._client = client
        self.exchange = exchange
        self.group = group
        self.token = token
        self.seen: set[tuple[Path, int]] = set()
        """(path, Message ID) of its responses."""
        self.due: float | None = None

    def on_due(self, now: float) -> None:
        """The time for responses is over."""
        self._client.end(self)


class GroupClient:
    """Requests to groups by token; all bounds are in `Limits`."""

    __slots__ = ("_core", "_tokens")

    def __init__(self, core: Core) -> None:
        self._core = core
        self._tokens: dict[bytes, GroupExchange] = {}

    def __len__(self) -> int:
        return len(self._tokens)

    def request(self, request: Message, group: Path, now: float, wait: float) -> int:
        """Send ``request`` to ``group`` and take responses for ``wait`` seconds. ValueError for what is no request or
        may not go to a group (section 8.2.1)."""
        core = self._core
        if not is_request(request.code):
            raise ValueError(f"code {request.code} is no request's")
        if request.option(Option.ETAG) is not None:
            raise ValueError("a request to a group must have no ETag (RFC 7252 section 8.2.1)")
        exchange = core.new_exchange()
        tail = encode_options(request.options) + encode_payload(request.payload)
        limit = ""
        mid = None
        if HEADER.size + MAX_TOKEN + len(tail) > core.limits.message_bytes:
            limit = "message_bytes"
        elif len(self._tokens) >= core.limits.group_requests:
            limit = "group_requests"
        else:
            mid = self._message_id(now)
            limit = "message_ids" if mid is None else ""
        if mid is None:
            core.counters.add("coap_limit_reached", limit)
            core.counters.add("coap_requests_failed", Failure.LIMIT.value)
            core.events.append(RequestFailed(exchange, group, Failure.LIMIT))
            return exchange
        token = core.randomness(MAX_TOKEN)
        started = self._tokens[token] = GroupExchange(self, exchange, group, token)
        core.timers.set(started, now + wait)
        head = HEADER.pack(VERSION_BITS | Type.NON << 4 | MAX_TOKEN, request.code, mid)
        core.outgoing.append((head + token + tail, group))
        core.counters.add("coap_group_requests_sent")
        return exchange

    def cancel(self, exchange: int) -> bool:
        """Take no more responses; False where ``exchange`` is none of these."""
        for found in self._tokens.values():
            if found.exchange == exchange:
                self._core.timers.clear(found)
                self.end(found)
                return True
        return False

    def end(self, exchange: GroupExchange) -> None:
        """Say that no response is taken any more."""
        del self._tokens[exchange.token]
        self._core.events.append(GroupRequestEnded(exchange.exchange, exchange.group, len(exchange.seen)))

    def respond(self, message: Message, path: Path) -> bool:
        """A response, Confirmable or not; False where its token is no group request's."""
        found = self._tokens.get(message.token)
        if found is None:
            return False
        core = self._core
        confirmable = message.type == Type.CON
        if (path, message.mid) in found.seen:
            core.counters.add("coap_duplicates")
        elif len(found.seen) >= core.limits.group_answers:
            core.counters.add("coap_limit_reached", "group_answers")
            return True
        else:
            kept, bad = check_options(message.options, Use.RESPONSE, core.understands)
            if bad:
                core.reject(path, message.mid, "bad_option", reset=confirmable)  # section 5.4.1
                return True
            message.options = kept
            found.seen.add((path, message.mid))
            core.counters.add("coap_responses_received")
            core.events.append(ResponseReceived(found.exchange, message, path))
        if confirmable:
            core.outgoing.append((encode_empty(Type.ACK, message.mid), path))
        return True

    def _message_id(self, now: float) -> int | None:
        # Section 8.1: a Message ID that is not in use towards any peer that might get the message, nor for a while.
        core = self._core
        avoided = core.peers.avoided
        for mid in [mid for mid, until in avoided.items() if until <= now]:
            del avoided[mid]
        lifetime = core.parameters.exchange_lifetime
        for _ in range(TRIES):
            mid = int.from_bytes(core.randomness(2), "big")
            if mid not in avoided and not any(peer.mids.recent(mid, now, lifetime) for peer in core.peers.values()):
                avoided[mid] = now + lifetime
                return mid
        return None
