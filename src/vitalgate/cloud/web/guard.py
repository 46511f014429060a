"""What every request passes first and every answer carries: host check, size bound, security headers."""

from collections.abc import Awaitable, Callable, MutableMapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

from vitalgate.counters import Counters

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
HEADERS: Final = (
    ("content-security-policy", POLICY),
    ("referrer-policy", "same-origin"),  # no-referrer would blank the Origin that forms are checked by
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=(), serial=()"),
    ("cache-control", "no-store"),
)
"""On every answer. Static files bring a ``cache-control`` of their own, which then stands."""
HSTS: Final = ("strict-transport-security", "max-age=31536000")

MAX_TARGET: Final = 4096


def host_name(header: str) -> str:
    """The host of a Host header, without port, in lower case; '' for what is none."""
    name = header.strip().lower()
    if name.startswith("["):
        end = name.find("]")
        return name[: end + 1] if end > 0 else ""
    return name.partition(":")[0].rstrip(".")


class Guard:
    """ASGI middleware round the whole application. ``hosts`` (`host_name`'s form) may grow before the server starts."""

    def __init__(self, app: Application, *, hosts: AbstractSet[str], secure: bool, counters: Counters) -> None:
        self._app = app
        self._hosts = hosts
        self._headers = HEADERS + ((HSTS,) if secure else ())
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a good request on; answer others here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                present = {bytes(name).lower() for name, _ in headers}
                added = ((name.encode(), value.encode()) for name, value in self._headers)
                message["headers"] = headers + [pair for pair in added if pair[0] not in present]
                self._counters.add("cloud_web_requests", f"{message['status'] // 100}xx")
            await send(message)

        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or host_name(hosts[0].decode("latin-1")) not in self._hosts:
            self._counters.add("cloud_web_refused", "host")
            await _refuse(sealed, 421, "This name is not one of this server's.")
        elif len(scope.get("raw_path") or b"") + len(scope.get("query_string", b"")) > MAX_TARGET:
            self._counters.add("cloud_web_refused", "target")
            await _refuse(sealed, 414, "The address is too long.")
        else:
            await self._app(scope, receive, sealed)


async def _refuse(send: Send, status: int, words: str) -> None:
    body = words.encode() + b"\n"
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
