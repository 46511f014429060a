"""The event stream: what changed on the board, to every open screen.

**Back-pressure.** Nothing is queued for a screen. Each remembers only the version of the board it has seen; when its
connection takes data again, it is given what changed since that version, in one message, however much happened
meanwhile. The board keeps a bounded stretch of each waveform, so a message is bounded too, and a screen that was away
for longer sees that samples are missing. A connection that takes nothing at all is cut by the server
(`vitalgate.cloud.web.server`).

Screens that keep up share one message, made once.
"""

import asyncio
import contextlib
import json
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from vitalgate.cloud.live import LiveBoard
from vitalgate.cloud.roles import Permission
from vitalgate.cloud.sessions import Session
from vitalgate.cloud.users import User
from vitalgate.cloud.web.settings import StreamLimits
from vitalgate.counters import Counters

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class View:
    """What of the board a user may see."""

    patients: bool
    technical: bool


def view_of(user: User) -> View:
    """The view that goes with a user's role."""
    return View(user.may(Permission.VIEW_PATIENTS), user.may(Permission.VIEW_TECHNICAL))


def seen(board: Json, view: View) -> Json:
    """A board message without what ``view`` may not see: patients and places, ports and serial numbers."""
    shown = dict(board)
    if not view.patients:
        shown["devices"] = [device | {"patient": "", "location": ""} for device in board["devices"]]
    if not view.technical and board["quarantine"] is not None:
        shown["quarantine"] = [row | {"port": "", "serial": ""} for row in board["quarantine"]]
    return shown


def _finite(value: Any) -> Any:
    """The same value with null for numbers that JSON has no form for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value


def to_json(value: Any) -> bytes:
    """ASCII JSON without line breaks; infinities and NaN become null."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    except ValueError:
        return json.dumps(_finite(value), separators=(",", ":"), allow_nan=False).encode()


def event(name: str, value: Any, identifier: int | None = None) -> bytes:
    """One server-sent event (WHATWG HTML, 9.2)."""
    head = f"id: {identifier}\n" if identifier is not None else ""
    return f"{head}event: {name}\ndata: ".encode() + to_json(value) + b"\n\n"


@dataclass(eq=False, slots=True)
class Viewer:
    """One open screen."""

    user: int
    session: str = field(repr=False)
    view: View
    version: int


@dataclass(slots=True)
class _Tick:
    since: int
    version: int
    changes: Json | None
    encoded: dict[View, bytes] = field(default_factory=dict)


class EventHub:
    """Every open screen of one application. Lives in one event loop; `run` is its task."""

    def __init__(self, board: LiveBoard, limits: StreamLimits, counters: Counters) -> None:
        self._board = board
        self.counters = counters
        self.limits = limits
        self._viewers: dict[Viewer, None] = {}
        self._changed = asyncio.Event()
        self._told = False  # a wake-up is on its way: one is enough, however often the board changes meanwhile
        self._wakers: set[asyncio.Future[None]] = set()
        self._tick = _Tick(-1, -1, None)
        self.closing = False

    def __len__(self) -> int:
        return len(self._viewers)

    def open(self, session: Session, view: View, since: int) -> Viewer | None:
        """Admit a screen that has seen version ``since`` (-1: nothing yet), or None where there is no room."""
        if self.closing or not self.has_room(session):
            return None
        viewer = Viewer(session.user.id, session.token, view, since)
        self._viewers[viewer] = None
        return viewer

    def has_room(self, session: Session) -> bool:
        """Whether one more screen of this session would be admitted."""
        limits, viewers = self.limits, tuple(self._viewers)
        return (
            len(viewers) < limits.clients
            and sum(viewer.user == session.user.id for viewer in viewers) < limits.per_user
            and sum(viewer.session == session.token for viewer in viewers) < limits.per_session
        )

    def leave(self, viewer: Viewer) -> None:
        """Forget a screen."""
        self._viewers.pop(viewer, None)

    def close(self) -> None:
        """End every stream; no new one is admitted."""
        self.closing = True
        self._wake()

    async def run(self) -> None:
        """Turn the board's changes into ticks, until cancelled."""
        loop = asyncio.get_running_loop()

        def board_changed() -> None:  # in the thread that publishes
            if not self._told and not loop.is_closed():
                self._told = True
                with contextlib.suppress(RuntimeError):  # closed since
                    loop.call_soon_threadsafe(self._changed.set)

        cancel = self._board.subscribe(board_changed)
        try:
            while True:
                try:
                    async with asyncio.timeout(self.limits.beat):
                        await self._changed.wait()
                except TimeoutError:
                    pass  # nothing new: the beat goes out all the same, and marks that depend on time are looked at
                self._changed.clear()
                self._told = False
                if self._viewers:
                    since = self._tick.version
                    changes = self._board.changes_since(since)
                    self._tick = _Tick(-1 if changes["full"] else since, changes["version"], changes)
                self._wake()
                await asyncio.sleep(self.limits.period)
        finally:
            cancel()

    async def next_message(self, viewer: Viewer) -> bytes:
        """What this screen has not seen; waits for the next tick. b'' when the hub is closing."""
        if viewer.version < 0:
            return self._own(viewer, self._board.snapshot())
        waker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wakers.add(waker)
        try:
            await waker
        finally:
            self._wakers.discard(waker)
        if self.closing:
            return b""
        tick = self._tick
        if tick.changes is None or tick.since != viewer.version:
            return self._own(viewer, self._board.changes_since(viewer.version))
        if viewer.view not in tick.encoded:
            tick.encoded[viewer.view] = event("board", seen(tick.changes, viewer.view), tick.version)
        viewer.version = tick.version
        return tick.encoded[viewer.view]

    def _own(self, viewer: Viewer, board: Json) -> bytes:
        viewer.version = board["version"]
        return event("board", seen(board, viewer.view), viewer.version)

    def _wake(self) -> None:
        for waker in tuple(self._wakers):
            if not waker.done():
                waker.set_result(None)


Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class EventStream:
    """The answer to `/events`: an ASGI application for one screen, admitted when it is called.

    ``alive`` is asked every ``recheck`` seconds whether the screen's session still holds.
    """

    def __init__(
        self, hub: EventHub, session: Session, view: View, since: int, alive: Callable[[], Awaitable[bool]]
    ) -> None:
        self._hub = hub
        self._session = session
        self._view = view
        self._since = since
        self._alive = alive

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Send until the browser leaves, the session ends or the server stops."""
        viewer = self._hub.open(self._session, self._view, self._since)
        if viewer is None:
            self._hub.counters.add("cloud_web_refused", "screens")
            await self._refuse(send)
            return
        gone = asyncio.ensure_future(self._until_gone(receive))
        sending = asyncio.ensure_future(self._send(viewer, send))
        try:
            await asyncio.wait({gone, sending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._hub.leave(viewer)
            for task in (gone, sending):
                task.cancel()
            ended = await asyncio.gather(gone, sending, return_exceptions=True)
        for outcome in ended:
            if isinstance(outcome, Exception):  # a fault of ours; being cancelled is none
                raise outcome

    @staticmethod
    async def _refuse(send: Send) -> None:
        body = to_json({"error": "Too many screens are open."})
        headers = [(b"content-type", b"application/json"), (b"retry-after", b"10")]
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    @staticmethod
    async def _until_gone(receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def _send(self, viewer: Viewer, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        loop = asyncio.get_running_loop()
        checked = loop.time()
        reason = "stopping"
        while message := await self._hub.next_message(viewer):
            await send({"type": "http.response.body", "body": message, "more_body": True})
            self._hub.counters.add("cloud_web_messages")
            if loop.time() - checked >= self._hub.limits.recheck:
                checked = loop.time()
                if not await self._alive():
                    reason = "signed-out"
                    break
        await send({"type": "http.response.body", "body": event("end", {"reason": reason}), "more_body": False})
