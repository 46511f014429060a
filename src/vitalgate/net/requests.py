"""Requests and observations under way from one socket, as coroutines wait for them."""

import asyncio
import socket
from collections import deque
from collections.abc import AsyncGenerator, Callable

from vitalgate.coap.endpoint import Endpoint
from vitalgate.coap.events import (
    Failure,
    NotificationReceived,
    RequestFailed,
    RequestSent,
    ResponseReceived,
    TransferProgressed,
)
from vitalgate.coap.message import Code, Message
from vitalgate.counters import Counters
from vitalgate.engine import Path
from vitalgate.net.udp import UdpDriver

Progress = Callable[[TransferProgressed], None]
"""Called as a block-wise transfer goes on."""

MAX_STATES = 64
"""States of an observed resource that wait for who reads them; with more, the oldest is skipped."""

WORDS: dict[Failure, str] = {
    Failure.TIMEOUT: "no answer",
    Failure.RESET: "the peer refused the message (Reset)",
    Failure.CANCELLED: "cancelled",
    Failure.REJECTED: "the response has a critical option that is not understood",
    Failure.LIMIT: "a limit of this client is reached",
    Failure.PROTECTION: "the security layer refused the request or the response",
    Failure.INCOMPLETE: "the blocks that came make no whole",
    Failure.BACK_OFF: "the server asked for a pause (4.29), which is not over",
}
"""What a `Failure` is to people."""


class RequestError(Exception):
    """A request that got no response; ``reason`` says why. An error code (4.xx, 5.xx) is a response like any other."""

    def __init__(self, reason: Failure, uri: str) -> None:
        super().__init__(f"{uri}: {WORDS[reason]}")
        self.reason = reason


class _Watched:
    """An observation: its states that were not read yet, and whether there will be more."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.states: deque[Message] = deque(maxlen=MAX_STATES)
        self.changed = asyncio.Event()
        self.ended = False
        self.error: RequestError | None = None

    def take(self, state: Message) -> None:
        self.states.append(state)
        self.changed.set()

    def end(self, error: RequestError | None) -> None:
        self.ended = True
        self.error = error
        self.changed.set()


class Requests:
    """By exchange number: the future that waits for a response, and who reads an observation."""

    def __init__(self, endpoint: Endpoint, sock: socket.socket, counters: Counters) -> None:
        self._endpoint = endpoint
        self._clock = asyncio.get_running_loop().time
        self._waiting: dict[int, tuple[asyncio.Future[Message], str]] = {}
        self._watched: dict[int, _Watched] = {}
        self._progress: dict[int, Progress] = {}
        self._driver = UdpDriver(endpoint, sock, on_turn=self._take_events, counters=counters, clock=self._clock)

    async def send(
        self, request: Message, path: Path, uri: str, *, confirmable: bool, progress: Progress | None = None
    ) -> Message:
        """Send a request and wait for its response; an Empty message where it wanted none (RFC 7967). Raises
        `RequestError`."""
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        exchange = self._endpoint.request(request, path, self._clock(), confirmable=confirmable)
        self._waiting[exchange] = future, uri
        if progress is not None:
            self._progress[exchange] = progress
        self._driver.turn()
        try:
            return await future
        finally:
            self._progress.pop(exchange, None)
            if self._waiting.pop(exchange, None) is not None:  # the caller was cancelled
                self._endpoint.cancel(exchange, self._clock())
                self._driver.turn()

    async def observe(
        self, request: Message, path: Path, uri: str, *, confirmable: bool, progress: Progress | None = None
    ) -> AsyncGenerator[Message, None]:
        """The states of a resource as they come, the last response included; closing it deregisters. Raises
        `RequestError`."""
        exchange = self._endpoint.observe(request, path, self._clock(), confirmable=confirmable)
        watched = self._watched[exchange] = _Watched(uri)
        if progress is not None:
            self._progress[exchange] = progress
        self._driver.turn()
        try:
            while True:
                await watched.changed.wait()
                watched.changed.clear()
                while watched.states:
                    yield watched.states.popleft()
                if watched.ended:
                    if watched.error is not None:
                        raise watched.error
                    return
        finally:
            self._progress.pop(exchange, None)
            if self._watched.pop(exchange, None) is not None and not watched.ended:
                self._endpoint.deregister(exchange, self._clock())
                self._driver.turn()

    def close(self) -> None:
        """Close the socket; who waits gets `Failure.CANCELLED`. Observations are ended at their servers."""
        for exchange, watched in self._watched.items():
            if not watched.ended:
                self._endpoint.deregister(exchange, self._clock())
                watched.end(RequestError(Failure.CANCELLED, watched.uri))
        self._watched.clear()
        self._driver.turn()
        self._driver.close()
        for future, uri in self._waiting.values():
            if not future.done():
                future.set_exception(RequestError(Failure.CANCELLED, uri))
        self._waiting.clear()

    def _take_events(self, _now: float) -> None:
        while (event := self._endpoint.next_event()) is not None:
            if isinstance(event, NotificationReceived):
                watched = self._watched.get(event.exchange)
                if watched is not None:
                    watched.take(event.response)
            elif isinstance(event, TransferProgressed):
                progress = self._progress.get(event.exchange)
                if progress is not None:
                    progress(event)
            elif isinstance(event, ResponseReceived | RequestFailed | RequestSent):
                self._conclude(event)

    def _conclude(self, event: ResponseReceived | RequestFailed | RequestSent) -> None:
        watched = self._watched.get(event.exchange)
        if watched is not None:
            if isinstance(event, ResponseReceived):
                watched.take(event.response)
            watched.end(RequestError(event.reason, watched.uri) if isinstance(event, RequestFailed) else None)
            return
        future, uri = self._waiting.pop(event.exchange, (None, ""))
        if future is None or future.done():
            return
        if isinstance(event, ResponseReceived):
            future.set_result(event.response)
        elif isinstance(event, RequestSent):
            future.set_result(Message(Code.EMPTY))
        else:
            future.set_exception(RequestError(event.reason, uri))
