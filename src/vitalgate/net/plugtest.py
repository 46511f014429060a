"""The server of the ETSI CoAP plugtests: every resource that the test descriptions (CORE, BLOCK, OBS, LINK) ask for,
and POST /benchmark?rlen=N, which answers with N bytes.

/obs, /obs-non, /obs-large and /obs-pumping change by themselves, and at once where a client puts or deletes something.
What clients put here lives in memory, in bounded tables, and is anyone's to read and change: a server to try things on.
"""

import asyncio
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Final

from vitalgate.coap.formats import ContentFormat
from vitalgate.coap.linkformat import Link, format_links
from vitalgate.coap.message import Code, Message, Options
from vitalgate.coap.options import Option, build_options, decode_uint, path_segments, queries
from vitalgate.coap.site import ResponseError
from vitalgate.engine import Path
from vitalgate.net.coap import CoapServer

LARGE: Final = b"".join(b"%03d: what is longer than a block travels in blocks, RFC 7959\n" % n for n in range(32))
"""2 kB in lines of 64 bytes."""
MAX_CREATED: Final = 64
"""Resources that /large-create keeps; the oldest goes when another one comes."""
MAX_RLEN: Final = 65536
"""The longest answer of /benchmark; 4.00 beyond."""
SUBRESOURCES: Final = ("sub1", "sub2", "sub3")

_TEXT: Final = build_options(content_format=ContentFormat.TEXT)
_XML: Final = build_options(content_format=ContentFormat.XML)
_LINKS: Final = build_options(content_format=ContentFormat.LINK_FORMAT)
_LOCATION: Final = tuple((Option.LOCATION_PATH, b"location%d" % n) for n in (1, 2, 3))
_LOCATION_QUERY: Final = ((Option.LOCATION_QUERY, b"first=1"), (Option.LOCATION_QUERY, b"second=2"))


def etag(content: bytes) -> bytes:
    """An entity tag of ``content``: the same for the same bytes."""
    return sha256(content).digest()[:8]


class Stored:
    """A resource whose content a client may replace: GET with ETag validation, PUT with If-Match and If-None-Match,
    DELETE (RFC 7252 sections 5.8, 5.10.6, 5.10.8). ``content`` None: it does not exist."""

    def __init__(
        self, content: bytes | None, content_format: int = ContentFormat.TEXT, *, max_age: int | None = None
    ) -> None:
        self.content = content
        self.max_age = max_age
        self.content_format = content_format
        self.changed: list[Callable[[], object]] = []
        """Called after each change."""

    def get(self, request: Message, _path: Path, _identity: str, _now: float) -> Message:
        """2.05, or 2.03 where the client has it already."""
        if self.content is None:
            raise ResponseError(Code.NOT_FOUND)
        tag = etag(self.content)
        if tag in request.all(Option.ETAG):
            return Message(Code.VALID, build_options(max_age=self.max_age, more=((Option.ETAG, tag),)))
        options = build_options(content_format=self.content_format, max_age=self.max_age, more=((Option.ETAG, tag),))
        return Message(Code.CONTENT, options, self.content)

    def put(self, request: Message, _path: Path, _identity: str, _now: float) -> Message:
        """2.01 or 2.04; 4.12 where a condition does not hold (RFC 7252 section 5.10.8)."""
        self._check(request)
        created = self.content is None
        self.content = request.payload
        given = request.option(Option.CONTENT_FORMAT)
        self.content_format = ContentFormat.TEXT if given is None else decode_uint(given)
        self._tell()
        return Message(Code.CREATED if created else Code.CHANGED)

    def delete(self, request: Message, _path: Path, _identity: str, _now: float) -> Message:
        """2.02, also where there was nothing."""
        self._check(request)
        self.content = None
        self._tell()
        return Message(Code.DELETED)

    def replace(self, content: bytes) -> None:
        """New content of the server's own, as text; there again if it was deleted."""
        self.content = content
        self.content_format = ContentFormat.TEXT
        self._tell()

    def _check(self, request: Message) -> None:
        wanted = request.all(Option.IF_MATCH)
        # An empty If-Match asks only that the resource exists (section 5.10.8.1).
        if wanted and (self.content is None or not (b"" in wanted or etag(self.content) in wanted)):
            raise ResponseError(Code.PRECONDITION_FAILED)
        if request.option(Option.IF_NONE_MATCH) is not None and self.content is not None:
            raise ResponseError(Code.PRECONDITION_FAILED)

    def _tell(self) -> None:
        for each in self.changed:
            each()


class Plugtest:
    """Adds the resources to ``server``; ``separate_after`` is how long /separate thinks, ``interval`` how long the
    observable resources stay as they are, in seconds."""

    def __init__(self, server: CoapServer, *, separate_after: float = 2.0, interval: float = 5.0) -> None:
        self.test = Stored(b"This is the resource /test. It can be read, replaced, posted to and deleted.")
        self.validate = Stored(b"Read me, then ask again with my ETag.")
        self.large_update = Stored(LARGE)
        self.create1 = Stored(None)
        max_age = math.ceil(interval)  # there is something new then
        self.obs = Stored(b"0", max_age=max_age)
        self.obs_non = Stored(b"0", max_age=max_age)
        self.obs_large = Stored(LARGE, max_age=max_age)
        self.obs_pumping = Stored(LARGE, max_age=max_age)
        self._separate_after = separate_after
        self._interval = interval
        self._created: dict[bytes, Stored] = {}
        self._count = 0
        self._server = server
        self._add()

    def _add(self) -> None:
        site, get, put, post, delete = self._server.site, [Code.GET], [Code.PUT], [Code.POST], [Code.DELETE]
        conditions = (Option.IF_MATCH, Option.IF_NONE_MATCH)
        for path, stored in (
            ("test", self.test),
            ("validate", self.validate),
            ("large-update", self.large_update),
            ("create1", self.create1),
        ):
            site.add(path, stored.get, methods=get, idempotent=True)
            site.add(path, stored.put, methods=put, small=True, understands=conditions)
            site.add(path, stored.delete, methods=delete, small=True, understands=conditions)
        site.add("test", self._post_test, methods=post, small=True)
        for path, content in (
            ("seg1/seg2/seg3", b"This is /seg1/seg2/seg3."),
            ("location1/location2/location3", b"Made by a POST to /test."),
            ("", b"The resources of the ETSI CoAP plugtests; see /.well-known/core"),
        ):
            site.add(path, _fixed(_TEXT, content), methods=get, idempotent=True, listed=bool(path))
        site.add("query", self._query, methods=get, idempotent=True)
        site.add("location-query", self._location_query, methods=post, small=True)
        self._server.add("separate", self._separate, methods=get)
        site.add("large", _fixed(_TEXT, LARGE), methods=get, idempotent=True, sz=len(LARGE))
        site.add("large-create", self._create, methods=post, small=True, subtree=True)
        site.add("large-create", self._get_created, methods=get, idempotent=True)
        site.add("large-post", self._large_post, methods=post)
        site.add("multi-format", self._multi_format, methods=get, idempotent=True,
                 formats=[ContentFormat.TEXT, ContentFormat.XML])  # fmt: skip
        for path, types, interface in (
            ("link1", "Type1 Type2", "If1"), ("link2", "Type2 Type3", "If2"), ("link3", "Type1 Type3", "foo"),
        ):  # fmt: skip
            site.add(path, _fixed(_TEXT, b"This is /" + path.encode()), methods=get, idempotent=True,
                     rt=types, interface=interface)  # fmt: skip
        site.add("path", _fixed(_LINKS, format_links(Link(f"/path/{name}") for name in SUBRESOURCES).encode()),
                 methods=get, idempotent=True, formats=[ContentFormat.LINK_FORMAT])  # fmt: skip
        for name in SUBRESOURCES:
            site.add(f"path/{name}", _fixed(_TEXT, f"/path/{name}".encode()), methods=get, idempotent=True,
                     listed=False)  # fmt: skip
        site.add("benchmark", _benchmark, methods=post, idempotent=True)
        for path, stored in self._observed():
            site.add(path, stored.get, methods=get, idempotent=True, observable=True, confirmable=path != "obs-non")
            site.add(path, stored.put, methods=put, small=True, understands=conditions)
            site.add(path, stored.delete, methods=delete, small=True, understands=conditions)
            stored.changed.append(functools.partial(self._server.notify, path))

    def _observed(self) -> Iterator[tuple[str, Stored]]:
        yield "obs", self.obs
        yield "obs-non", self.obs_non
        yield "obs-large", self.obs_large
        yield "obs-pumping", self.obs_pumping

    async def run(self) -> None:
        """Change what can be observed, again and again, until cancelled."""
        for number in itertools.count(1):
            await asyncio.sleep(self._interval)
            head = b"%d\n" % number
            self.obs.replace(head)
            self.obs_non.replace(head)
            self.obs_large.replace(head + LARGE)
            self.obs_pumping.replace(head + (b"" if number % 2 else LARGE))

    def _post_test(self, _request: Message, _path: Path, _identity: str, _now: float) -> Message:
        return Message(Code.CREATED, _LOCATION)

    def _location_query(self, _request: Message, _path: Path, _identity: str, _now: float) -> Message:
        return Message(Code.CREATED, _LOCATION_QUERY)

    def _query(self, request: Message, _path: Path, _identity: str, _now: float) -> Message:
        return Message(Code.CONTENT, _TEXT, "\n".join(queries(request.options)).encode() or b"no query")

    def _multi_format(self, request: Message, _path: Path, _identity: str, _now: float) -> Message:
        accept = request.option(Option.ACCEPT)
        if accept is not None and decode_uint(accept) == ContentFormat.XML:
            return Message(Code.CONTENT, _XML, b"<text>as XML</text>")
        return Message(Code.CONTENT, _TEXT, b"as text")

    async def _separate(self, _request: Message) -> Message:
        await asyncio.sleep(self._separate_after)
        return Message(Code.CONTENT, _TEXT, b"This took a while.")

    def _create(self, request: Message, _path: Path, _identity: str, _now: float) -> Message:
        self._count += 1
        name = b"%d" % self._count
        given = request.option(Option.CONTENT_FORMAT)
        self._created[name] = Stored(request.payload, ContentFormat.TEXT if given is None else decode_uint(given))
        if len(self._created) > MAX_CREATED:
            del self._created[next(iter(self._created))]
        return Message(Code.CREATED, ((Option.LOCATION_PATH, b"large-create"), (Option.LOCATION_PATH, name)))

    def _get_created(self, request: Message, path: Path, identity: str, now: float) -> Message:
        segments = path_segments(request.options)
        found = self._created.get(segments[1]) if len(segments) == 2 else None
        if found is None:
            raise ResponseError(Code.NOT_FOUND)
        return found.get(request, path, identity, now)

    def _large_post(self, request: Message, _path: Path, _identity: str, _now: float) -> Message:
        return Message(Code.CHANGED, _TEXT, b"%d bytes came\n" % len(request.payload) + LARGE)


def _fixed(options: Options, content: bytes) -> Callable[[Message, Path, str, float], Message]:
    def answer(_request: Message, _path: Path, _identity: str, _now: float) -> Message:
        return Message(Code.CONTENT, options, content)

    return answer


def _benchmark(request: Message, _path: Path, _identity: str, _now: float) -> Message:
    length = 0
    for query in queries(request.options):
        name, _, value = query.partition("=")
        if name != "rlen":
            continue
        if not (value.isascii() and value.isdigit() and len(value) < 8 and int(value) <= MAX_RLEN):
            raise ResponseError(Code.BAD_REQUEST, f"rlen is a number up to {MAX_RLEN}")
        length = int(value)
    return Message(Code.CHANGED, _TEXT, b"*" * length)
