"""Who may call what: each page is a row (`Way`), and what a row asks for is checked in one place, before its handler.

Cookies: the session's token, and for visitors without a session a random value that their forms are bound to. Both are
HttpOnly and SameSite=Strict; over TLS they carry the ``__Host-`` prefix (RFC 6265bis section 4.1.3.2) and Secure.
Forms repeat a token derived from the cookie (against CSRF), and a browser that says where a form came from must say
this origin.
"""

import base64
import enum
import hmac
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, quote

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from vitalgate.cloud.roles import Permission
from vitalgate.cloud.sessions import Session
from vitalgate.cloud.web.events import EventHub, EventStream
from vitalgate.cloud.web.guard import host_name
from vitalgate.cloud.web.settings import Services, WebSettings
from vitalgate.cloud.web.throttle import Throttle
from vitalgate.counters import Counters

MAX_FIELDS: Final = 16
FORM_TOKEN: Final = "csrf"  # noqa: S105 - the name of a form's field
_VISITOR_SECONDS: Final = 3600


class Kind(enum.Enum):
    """How a refusal looks: a page (or the way to sign-in), or JSON."""

    PAGE = "page"
    DATA = "data"


@dataclass(frozen=True, slots=True)
class Call:
    """One request, after every check of its row. ``session`` is None only on public rows."""

    request: Request
    session: Session | None
    form: Mapping[str, str] = field(repr=False)
    visitor: str = field(default="", repr=False)

    @property
    def signed_in(self) -> Session:
        """The session, on rows that demand one."""
        assert self.session is not None
        return self.session


Handler = Callable[["Web", Call], Response | EventStream]


@dataclass(frozen=True, slots=True)
class Way:
    """One row: a path and method, what it asks for, and its handler (run in a worker thread).

    ``needs`` None: anybody. ``throttled``: counts against sign-in attempts of the address. ``unset``: may be used by a
    user who has yet to set a password.
    """

    method: str
    path: str
    handler: Handler
    needs: Permission | None
    kind: Kind = Kind.PAGE
    throttled: bool = False
    unset: bool = False


@dataclass(frozen=True, slots=True)
class Web:
    """What handlers share.

    ``hosts`` are the names under which browsers may ask; ``form_key`` binds visitors' forms to their cookies, for the
    life of the process.
    """

    services: Services
    settings: WebSettings
    counters: Counters
    render: Callable[..., Response]
    throttle: Throttle
    hub: EventHub
    hosts: set[str]
    form_key: bytes = field(default_factory=lambda: os.urandom(32), repr=False)

    @property
    def session_cookie(self) -> str:
        """The name of the session's cookie."""
        return "__Host-vitalgate" if self.settings.secure else "vitalgate"

    @property
    def visitor_cookie(self) -> str:
        """The name of the visitors' cookie."""
        return "__Host-vitalgate-visitor" if self.settings.secure else "vitalgate-visitor"

    def form_token(self, call: Call) -> str:
        """The token that a form made for this call must repeat."""
        return call.session.csrf if call.session is not None else self._visitor_token(call.visitor)

    def _visitor_token(self, visitor: str) -> str:
        return base64.urlsafe_b64encode(hmac.digest(self.form_key, visitor.encode(), "sha256")).rstrip(b"=").decode()

    def set_cookie(self, response: Response, name: str, value: str, seconds: int | None = None) -> None:
        """Give the browser a cookie that scripts cannot read and other sites cannot send."""
        response.set_cookie(
            name, value, max_age=seconds, path="/", httponly=True, samesite="strict", secure=self.settings.secure
        )

    def start_session(self, response: Response, session: Session) -> None:
        """Hand out a session, and forget the visitor's cookie."""
        self.set_cookie(response, self.session_cookie, session.token)
        self.forget(response, self.visitor_cookie)

    def forget(self, response: Response, name: str) -> None:
        """Delete a cookie."""
        response.delete_cookie(name, path="/", httponly=True, samesite="strict", secure=self.settings.secure)

    # checks

    async def session_of(self, request: Request) -> Session | None:
        """The session of the request's cookie, looked up anew."""
        token = request.cookies.get(self.session_cookie, "")
        return await run_in_threadpool(self.services.sessions.get, token) if token else None

    async def admit(self, way: Way, request: Request) -> Call | Response:
        """Check a request against its row: the call, or the answer that refuses it. Raises `HTTPException`."""
        session = await self.session_of(request)
        if way.needs is not None:
            refused = self._refuse_visitor(way, request, session)
            if refused is not None:
                return refused
        form: Mapping[str, str] = {}
        visitor = request.cookies.get(self.visitor_cookie, "")
        if request.method == "POST":
            form = await self._form(request)
            self._check_form(request, form, session, visitor)
            address = request.client.host if request.client else ""
            if way.throttled and not self.throttle.admits(address, self.settings.clock()):
                self.counters.add("cloud_web_refused", "rate")
                wait = str(self.throttle.retry_after)
                raise HTTPException(429, "Too many attempts; wait a little.", {"Retry-After": wait})
        elif session is None and not visitor and way.kind is Kind.PAGE:
            visitor = base64.urlsafe_b64encode(os.urandom(18)).decode()
        return Call(request, session, form, visitor)

    def _refuse_visitor(self, way: Way, request: Request, session: Session | None) -> Response | None:
        if session is None:
            if way.kind is Kind.DATA:
                raise HTTPException(401, "Sign in first.")
            target = ""
            if request.method == "GET" and way.path != "/":
                target = f"?next={quote(request.url.path)}"
            return RedirectResponse(f"/sign-in{target}", 303)
        if self.settings.demand_password and not session.user.has_password and not way.unset:
            if way.kind is Kind.DATA:
                raise HTTPException(403, "Set a password first.")
            return RedirectResponse("/password", 303)
        assert way.needs is not None
        if not session.user.may(way.needs):
            raise HTTPException(403, "Your role does not allow this.")
        return None

    @staticmethod
    async def _form(request: Request) -> Mapping[str, str]:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            raise HTTPException(415, "A form is expected.")
        try:
            body = await request.body()  # bounded by the application
            pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
        except (ValueError, ClientDisconnect) as error:
            raise HTTPException(400, "The form cannot be read.") from error
        form = dict(pairs)
        if len(form) != len(pairs):
            raise HTTPException(400, "The form says something twice.")
        return form

    def _check_form(self, request: Request, form: Mapping[str, str], session: Session | None, visitor: str) -> None:
        """Refuse a form that another site may have sent."""
        given = form.get(FORM_TOKEN, "")
        if session is not None:
            good = session.csrf_matches(given)
        else:
            good = bool(visitor) and hmac.compare_digest(self._visitor_token(visitor).encode(), given.encode())
        origin = request.headers.get("origin")
        own = f"{request.url.scheme}://{request.headers.get('host', '')}"
        elsewhere = origin is not None and origin.lower() != own.lower()
        elsewhere |= request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
        if not good or elsewhere:
            self.counters.add("cloud_web_refused", "form")
            raise HTTPException(403, "The form is out of date: go back, reload the page and try again.")

    def endpoint(self, way: Way) -> Callable[[Request], Any]:
        """The row as Starlette calls it."""

        async def answer(request: Request) -> Response | EventStream:
            call = await self.admit(way, request)
            if isinstance(call, Response):
                return call
            response = await run_in_threadpool(way.handler, self, call)
            fresh = request.method == "GET" and call.visitor != request.cookies.get(self.visitor_cookie, "")
            if fresh and isinstance(response, Response):
                self.set_cookie(response, self.visitor_cookie, call.visitor, _VISITOR_SECONDS)
            return response

        return answer


def local_path(text: str) -> str:
    """``text`` where it is a path of this site, else '/': what follows sign-in must not lead elsewhere."""
    plain = all(0x20 < ord(letter) < 0x7F and letter != "\\" for letter in text)
    return text if plain and text.startswith("/") and not text.startswith("//") else "/"


def is_loopback(request: Request) -> bool:
    """Whether the request came over loopback, for a loopback name."""
    address = request.client.host if request.client else ""
    name = host_name(request.headers.get("host", ""))
    return address in ("127.0.0.1", "::1") and name in ("localhost", "127.0.0.1", "[::1]")
