"""What a client under test is asked to do."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from vitalgate.coap.message import Options
from vitalgate.coap.options import Option, build_options, uri_path


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that the client is asked to send. ``block``: the block size to ask for from the start (early
    negotiation); ``token``: this very token."""

    code: int
    path: str
    query: tuple[str, ...] = ()
    payload: bytes = b""
    confirmable: bool = True
    content_format: int | None = None
    accept: int | None = None
    etag: bytes = b""
    if_match: bytes | None = None
    if_none_match: bool = False
    block: int | None = None
    token: bytes | None = None

    def extra(self) -> list[tuple[int, bytes]]:
        """The conditional options and ETag."""
        pairs: list[tuple[int, bytes]] = []
        if self.if_match is not None:
            pairs.append((Option.IF_MATCH, self.if_match))
        if self.etag:
            pairs.append((Option.ETAG, self.etag))
        if self.if_none_match:
            pairs.append((Option.IF_NONE_MATCH, b""))
        return pairs

    def options(self) -> Options:
        """All options of the request but Uri-Host and Uri-Port."""
        pairs = [*self.extra(), *uri_path(self.path), *((Option.URI_QUERY, each.encode()) for each in self.query)]
        return build_options(content_format=self.content_format, accept=self.accept, more=pairs)

    def uri(self, address: tuple[str, int]) -> str:
        """Where it is sent to."""
        query = "?" + "&".join(self.query) if self.query else ""
        return f"coap://{address[0]}:{address[1]}/{self.path}{query}"


@dataclass(frozen=True, slots=True)
class Shown:
    """What the client shows for it: ``code`` None where it does not say."""

    code: int | None
    payload: bytes


class Asker(Protocol):
    """A client under test. Each method speaks to ``address``."""

    name: str

    async def ask(self, address: tuple[str, int], ask: Ask) -> Shown | None:
        """Send the request; None where the client says that there is no response."""

    async def ping(self, address: tuple[str, int]) -> bool:
        """Send a CoAP ping (RFC 7252 section 4.3); True where it was answered."""

    async def close(self) -> None:
        """Give back what is held."""


@runtime_checkable
class Observing(Protocol):
    """A client under test that can observe (RFC 7641)."""

    def observe(self, address: tuple[str, int], ask: Ask) -> AbstractAsyncContextManager[list[Shown]]:
        """Observe while inside; the list is whole once outside. Leaving cancels the observation."""

    async def reboot(self) -> None:
        """Forget everything without a word to the server, and be there again."""
