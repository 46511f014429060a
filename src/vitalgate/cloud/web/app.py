"""`create_app`: the pages as one ASGI application. `WAYS` lists every page there is."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

from vitalgate.cloud.roles import Permission
from vitalgate.cloud.store.errors import StoreError, StoreUnavailable
from vitalgate.cloud.web import admin, api, pages, signin
from vitalgate.cloud.web.access import Kind, Way, Web
from vitalgate.cloud.web.events import EventHub
from vitalgate.cloud.web.guard import Guard, host_name
from vitalgate.cloud.web.render import render, render_error
from vitalgate.cloud.web.settings import LOOPBACK_HOSTS, Services, WebSettings
from vitalgate.cloud.web.throttle import Throttle
from vitalgate.counters import Counters

STATIC: Final = Path(__file__).parent / "static"
_BOARD, _TECHNICAL, _USERS, _AUDIT = (
    Permission.VIEW_BOARD,
    Permission.VIEW_TECHNICAL,
    Permission.MANAGE_USERS,
    Permission.VIEW_AUDIT,
)

WAYS: Final = (
    Way("GET", "/sign-in", signin.sign_in_page, None),
    Way("POST", "/sign-in", signin.sign_in, None, throttled=True),
    Way("GET", "/link", signin.link_page, None),
    Way("POST", "/link", signin.link, None, throttled=True),
    Way("POST", "/sign-out", signin.sign_out, _BOARD, unset=True),
    Way("GET", "/password", signin.password_page, _BOARD, unset=True),
    Way("POST", "/password", signin.set_password, _BOARD, throttled=True, unset=True),
    Way("GET", "/", pages.dashboard, _BOARD),
    Way("GET", "/devices/{urn:path}", pages.device, _BOARD),
    Way("POST", "/devices/{urn:path}", pages.name_device, Permission.NAME_DEVICES),
    Way("GET", "/gaps", pages.gaps, _BOARD),
    Way("GET", "/quarantine", pages.quarantine, _TECHNICAL),
    Way("GET", "/security", pages.security, _TECHNICAL),
    Way("GET", "/users", admin.users, _USERS),
    Way("POST", "/users", admin.add_user, _USERS),
    Way("POST", "/users/{user:int}", admin.change_user, _USERS),
    Way("GET", "/audit", admin.audit, _AUDIT),
    Way("POST", "/audit", admin.verify_audit, _AUDIT),
    Way("GET", "/api/board", api.board, _BOARD, Kind.DATA),
    Way("GET", "/api/devices", api.devices, _BOARD, Kind.DATA),
    Way("GET", "/api/devices/{urn:path}", api.device, _BOARD, Kind.DATA),
    Way("GET", "/api/gaps", api.gaps, _BOARD, Kind.DATA),
    Way("GET", "/api/quarantine", api.quarantine, _TECHNICAL, Kind.DATA),
    Way("GET", "/api/security", api.security, _TECHNICAL, Kind.DATA),
    Way("GET", "/api/session", api.session, _BOARD, Kind.DATA),
    Way("GET", "/events", api.events, _BOARD, Kind.DATA),
    Way("GET", "/health", api.health, None, Kind.DATA),
    Way("GET", "/ready", api.ready, None, Kind.DATA),
    Way("GET", "/metrics", api.metrics, None, Kind.DATA),
)


class _Static(StaticFiles):
    """Files that ship with the program: the browser asks each time whether they changed."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"
        return response


def _wants_data(request: Request) -> bool:
    path = request.url.path
    return path.startswith("/api/") or path in ("/events", "/health", "/ready", "/metrics")


def _refusal(request: Request, status: int, words: str, headers: Mapping[str, str] | None = None) -> Response:
    if _wants_data(request):
        response = api.answer({"error": words}, status)
    else:
        response = HTMLResponse(render_error(status, words), status)
    response.headers.update(headers or {})
    return response


async def _http_fault(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _refusal(request, error.status_code, error.detail, error.headers)


async def _store_fault(request: Request, error: Exception) -> Response:
    assert isinstance(error, StoreError)
    words = str(error)[:1].upper() + str(error)[1:] + "."
    wait = {"Retry-After": "5"} if isinstance(error, StoreUnavailable) else {}
    return _refusal(request, 503 if isinstance(error, StoreUnavailable) else 500, words, wait)


async def _fault(request: Request, error: Exception) -> Response:
    return _refusal(request, 500, "Something went wrong here. It has been logged.")


class _Pages(Starlette):
    """Starlette with the guard outside everything: answers to faults and to bodies too large pass it as well."""

    def __init__(self, web: Web, **how: Any) -> None:
        super().__init__(**how)
        self.state.web = web

    def build_middleware_stack(self) -> ASGIApp:
        web: Web = self.state.web
        inner = super().build_middleware_stack()
        return Guard(inner, hosts=web.hosts, secure=web.settings.secure, counters=web.counters)


def create_app(services: Services, settings: WebSettings | None = None) -> Starlette:
    """The pages over ``services``; each application has its own event hub, started with the server.

    ``app.state.web`` is the `Web` that handlers share (its ``counters`` and ``hub`` with it).
    """
    settings = settings or WebSettings()
    counters = Counters()
    web = Web(
        services=services,
        settings=settings,
        counters=counters,
        render=render,
        throttle=Throttle(settings.sign_ins_per_minute, settings.sign_ins_at_once),
        hub=EventHub(services.board, settings.stream, counters),
        hosts={host_name(name) for name in (*LOOPBACK_HOSTS, *settings.hosts)},
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        ticking = asyncio.create_task(web.hub.run())
        try:
            yield
        finally:
            web.hub.close()
            ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticking

    routes = [Route(way.path, web.endpoint(way), methods=[way.method]) for way in WAYS]
    app = _Pages(
        web,
        routes=[*routes, Mount("/static", _Static(directory=STATIC))],
        exception_handlers={HTTPException: _http_fault, StoreError: _store_fault, Exception: _fault},
        lifespan=lifespan,
        max_body_size=settings.max_body,
    )
    app.router.redirect_slashes = False
    return app
