"""A response cache (RFC 7252 section 5.6): what was answered before, for as long as it is fresh or can be validated.

It has no network and no timer: whoever asks origin servers (`coap.proxy`) asks it first, and tells it every response.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from hashlib import blake2s

from vitalgate.coap.message import Code, Message, Options
from vitalgate.coap.options import Option, encode_uint, is_no_cache_key, is_unsafe, sort_options, uint_option
from vitalgate.coap.site import SAFE_METHODS
from vitalgate.counters import Counters

DEFAULT_MAX_AGE = 60
"""Seconds that a response without Max-Age is fresh for (RFC 7252 section 5.10.5)."""
ENTRY_COST = 512
"""What an entry takes besides payload, options and key, about, in bytes."""

_RESOURCE = frozenset((Option.URI_HOST, Option.URI_PORT, Option.URI_PATH, Option.URI_QUERY))
_INTERPRETED = frozenset(
    (Option.ETAG, Option.OBSERVE, Option.HOP_LIMIT, Option.BLOCK1, Option.BLOCK2, Option.REQUEST_TAG,
     Option.NO_RESPONSE)
)  # fmt: skip
"""Options that this cache takes care of, so that they need not match; besides those marked NoCacheKey."""
_NOT_STORED = frozenset(
    (Code.UNAUTHORIZED, Code.REQUEST_ENTITY_INCOMPLETE, Code.REQUEST_ENTITY_TOO_LARGE, Code.TOO_MANY_REQUESTS,
     Code.HOP_LIMIT_REACHED)
)  # fmt: skip
"""Errors that are about one client, one transfer or one route and so say nothing to the next who asks."""
_NOT_KEPT = frozenset((Option.MAX_AGE, Option.OBSERVE, Option.BLOCK1, Option.BLOCK2, Option.SIZE1, Option.SIZE2,
                       Option.ECHO))  # fmt: skip


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """The bounds of a `ResponseCache`; each reached is counted as ``coap_limit_reached`` with the name here."""

    cache_entries: int = 4096
    """Stored responses. Full: the one that was used the longest ago is forgotten."""
    cache_bytes: int = 1 << 24
    """Their bytes with what they cost, all together. Full: the same."""
    cache_entry_bytes: int = 1 << 18
    """Bytes of one. Larger: not stored."""


@dataclass(frozen=True, slots=True)
class CacheKey:
    """What two requests must have in common for one response to answer both. ``resource`` alone names what they are
    about: where it is (the target) and its Uri-* options."""

    code: int
    resource: tuple[Hashable, Options]
    options: Options
    body: bytes
    """Of FETCH, whose payload is a part of the question (RFC 8132 section 2.1): its hash."""


def cache_key(request: Message, target: Hashable) -> CacheKey:
    """The Cache-Key of ``request`` (with its Uri-* options as the origin server gets them) to ``target``."""
    options = tuple(
        pair
        for pair in request.options
        if pair[0] not in _RESOURCE and pair[0] not in _INTERPRETED and not is_no_cache_key(pair[0])
    )
    body = blake2s(request.payload).digest() if request.code == Code.FETCH else b""
    return CacheKey(request.code, resource_of(target, request.options), options, body)


def resource_of(target: Hashable, options: Options) -> tuple[Hashable, Options]:
    """The resource that a request with ``options`` to ``target`` is about."""
    return target, tuple(pair for pair in options if pair[0] in _RESOURCE)


class Stored:
    """One stored response, without its Max-Age; fresh until ``expires``."""

    __slots__ = ("etag", "expires", "key", "response", "size")

    def __init__(self, key: CacheKey, response: Message, expires: float, size: int) -> None:
        self.key = key
        self.response = response
        self.etag = response.option(Option.ETAG) if response.code == Code.CONTENT else None
        """With it the origin server can be asked whether the response is still valid; errors cannot be validated."""
        self.expires = expires
        self.size = size


class ResponseCache:
    """Stored responses by `CacheKey`, the least recently used first.

    >>> cache = ResponseCache()
    >>> request = Message(Code.GET, ((11, b"t"),))
    >>> key = cache_key(request, "origin")
    >>> cache.answer(key, request, now=0.0) is None
    True
    >>> cache.take(key, request, Message(Code.CONTENT, ((14, b"\\x0a"),), b"21"), asked_at=0.0, now=0.1).payload
    b'21'
    >>> cache.answer(key, request, now=4.0)  # fresh for 6 seconds more
    Message(2.05 CON mid=0 token= options=[14] payload=2B)
    """

    def __init__(self, limits: CacheLimits = CacheLimits(), *, counters: Counters | None = None) -> None:
        self.limits = limits
        self.counters = Counters() if counters is None else counters
        self._stored: OrderedDict[CacheKey, Stored] = OrderedDict()
        self._resources: dict[tuple[Hashable, Options], set[CacheKey]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._stored)

    @property
    def size(self) -> int:
        """Bytes stored, with what they cost."""
        return self._bytes

    def answer(self, key: CacheKey, request: Message, now: float) -> Message | None:
        """The response to ``request`` where a fresh one is stored: with what is left of its Max-Age (section 5.7.1),
        and as 2.03 where the client has that representation already (section 5.10.6.2); else None."""
        stored = self._stored.get(key)
        if stored is None or now >= stored.expires:
            return None
        self._stored.move_to_end(key)
        self.counters.add("coap_cache_answers", "fresh")
        return self._render(stored, request, now)

    def validator(self, key: CacheKey) -> Stored | None:
        """The stored response that the origin server may be asked to validate (section 5.6.2), or None. Keep it and
        give it to `take` with the response."""
        stored = self._stored.get(key)
        return None if stored is None or stored.etag is None else stored

    def take(
        self,
        key: CacheKey,
        request: Message,
        response: Message,
        *,
        asked_at: float,
        now: float,
        validated: Stored | None = None,
        outdated: bool = False,
    ) -> Message | None:
        """Learn ``response`` of the origin server, which was asked at ``asked_at``, and return what the client of
        ``request`` gets. None for a 2.03 about a representation that neither side was asked about.

        Age counts from ``asked_at``: how long the response was under way is not known. ``validated`` is what
        `validator` gave when the request went out. ``outdated``: the resource changed while it was under way, so what
        is stored is not fresh.
        """
        if response.code == Code.VALID:
            return self._take_valid(key, request, response, asked_at, now, validated, outdated)
        if key.code not in SAFE_METHODS:
            if response.code >> 5 == 2:
                self._changed(key, response, now)
            return response
        if self._storable(response):
            self._store(key, response, now if outdated else asked_at + max_age(response))
        elif response.code >> 5 == 2:
            self._forget(key)
        return response

    def invalidate(self, resource: tuple[Hashable, Options], now: float) -> None:
        """What is stored of ``resource`` is not fresh any more (sections 5.9.1.1, 5.9.1.2, 5.9.1.4)."""
        for key in self._resources.get(resource, ()):
            stored = self._stored[key]
            stored.expires = min(stored.expires, now)

    def clear(self) -> None:
        """Forget everything."""
        self._stored.clear()
        self._resources.clear()
        self._bytes = 0

    def _take_valid(
        self,
        key: CacheKey,
        request: Message,
        response: Message,
        asked_at: float,
        now: float,
        validated: Stored | None,
        outdated: bool,
    ) -> Message | None:
        etag = response.option(Option.ETAG)
        if validated is None or etag is None or etag != validated.etag:
            return response if etag is not None and etag in request.all(Option.ETAG) else None
        # Section 5.9.1.3: Max-Age and every type of safe option in the 2.03 replace those of the stored response.
        replaced = {n for n, _ in response.options if not is_unsafe(n)}
        old = validated.response
        kept = [pair for pair in old.options if pair[0] not in replaced]
        new = [pair for pair in response.options if pair[0] in replaced]
        updated = Message(old.code, sort_options([*kept, *new]), old.payload)
        expires = now if outdated else asked_at + max_age(response)
        self.counters.add("coap_cache_answers", "validated")
        self._store(key, updated, expires)
        return self._render(Stored(key, updated, asked_at + max_age(response), 0), request, now)

    def _render(self, stored: Stored, request: Message, now: float) -> Message:
        response = stored.response
        left = (int(Option.MAX_AGE), encode_uint(max(0, int(stored.expires - now))))
        if stored.etag is not None and stored.etag in request.all(Option.ETAG):
            return Message(Code.VALID, ((int(Option.ETAG), stored.etag), left))
        return Message(response.code, sort_options([*response.options, left]), response.payload)

    @staticmethod
    def _storable(response: Message) -> bool:
        # Section 5.6: successes that are not known are not stored. Max-Age 0 without an ETag is of no use.
        if response.code == Code.CONTENT:
            return max_age(response) > 0 or response.option(Option.ETAG) is not None
        return response.code >> 5 in (4, 5) and response.code not in _NOT_STORED and max_age(response) > 0

    def _store(self, key: CacheKey, response: Message, expires: float) -> None:
        self._forget(key)
        options = tuple(pair for pair in response.options if pair[0] not in _NOT_KEPT)
        size = ENTRY_COST + len(response.payload)
        for pairs in (options, key.options, key.resource[1]):
            size += sum(len(value) + 32 for _, value in pairs)
        if size > min(self.limits.cache_entry_bytes, self.limits.cache_bytes):
            self.counters.add("coap_limit_reached", "cache_entry_bytes")
            return
        while self._stored and (
            len(self._stored) >= self.limits.cache_entries or self._bytes + size > self.limits.cache_bytes
        ):
            full = "cache_entries" if len(self._stored) >= self.limits.cache_entries else "cache_bytes"
            self.counters.add("coap_limit_reached", full)
            self._forget(next(iter(self._stored)))
        self._stored[key] = Stored(key, Message(response.code, options, response.payload), expires, size)
        self._resources.setdefault(key.resource, set()).add(key)
        self._bytes += size

    def _forget(self, key: CacheKey) -> None:
        stored = self._stored.pop(key, None)
        if stored is None:
            return
        self._bytes -= stored.size
        keys = self._resources[key.resource]
        keys.discard(key)
        if not keys:
            del self._resources[key.resource]

    def _changed(self, key: CacheKey, response: Message, now: float) -> None:
        target, options = key.resource
        self.invalidate(key.resource, now)
        location = location_of(response)
        if location:
            where = tuple(pair for pair in options if pair[0] in (Option.URI_HOST, Option.URI_PORT))
            self.invalidate((target, sort_options([*where, *location])), now)


def location_of(response: Message) -> Options:
    """The Location-* options of ``response`` as the Uri-* options of a request for what was created (RFC 7252 section
    5.10.7)."""
    uri = {int(Option.LOCATION_PATH): int(Option.URI_PATH), int(Option.LOCATION_QUERY): int(Option.URI_QUERY)}
    return tuple((uri[number], value) for number, value in response.options if number in uri)


def max_age(response: Message) -> int:
    """Seconds that ``response`` is fresh for, counted from its making."""
    value = uint_option(response, Option.MAX_AGE)
    return DEFAULT_MAX_AGE if value is None else value
