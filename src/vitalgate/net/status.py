"""A status server for programs without a web application: `/metrics`, `/ready`, `/health`, on loopback, GET only.

Small on purpose: one request a connection, a bounded head, a bounded time.
"""

import asyncio
import contextlib
from collections.abc import Callable

MAX_HEAD = 8192
SECONDS = 5.0
MAX_CLIENTS = 16

Page = Callable[[], tuple[int, str, str]]
"""Makes an answer: (HTTP status, content type, body)."""

REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


class StatusServer:
    """Serves ``pages`` (path -> `Page`)."""

    def __init__(self, pages: dict[str, Page]) -> None:
        self._pages = pages
        self._server: asyncio.Server | None = None
        self._clients = 0

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; returns the bound (host, port). Raises OSError."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=MAX_HEAD)
        name = self._server.sockets[0].getsockname()
        return name[0], name[1]

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            if self._clients <= MAX_CLIENTS:
                async with asyncio.timeout(SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._answer(head))
                    await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # nobody to answer, or a head past the bound
        finally:
            self._clients -= 1
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _answer(self, head: bytes) -> bytes:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            status, kind, body = 400, "text/plain", "not an HTTP/1 request\n"
        elif words[0] != b"GET":
            status, kind, body = 405, "text/plain", "only GET\n"
        else:
            page = self._pages.get(words[1].split(b"?", 1)[0].decode("latin-1"))
            status, kind, body = page() if page else (404, "text/plain", "try /metrics, /ready or /health\n")
        data = body.encode()
        return (
            f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n"
            "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
        ).encode() + data
