"""The listening socket of the pages: how many connections there are is bounded before anybody has said a word.

The server counts requests. A peer that only connects, or never ends its TLS handshake, makes none, and would otherwise
take file descriptors that the store needs.
"""

import socket
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

MAX_CONNECTIONS: Final = 256
MAX_OF_ADDRESS: Final = 128
"""Of one address other than loopback; a proxy beside the server speaks for everybody."""


class _Visit(socket.socket):
    """An accepted connection that gives its place back when it is closed."""

    leave: Callable[[], None] | None = None

    def close(self) -> None:
        super().close()
        leave, self.leave = self.leave, None
        if leave is not None:
            leave()


class Door(socket.socket):
    """A listening TCP socket; `accept` closes what is one too many. For one event loop."""

    def __init__(self, family: int, *, total: int = MAX_CONNECTIONS, each: int = MAX_OF_ADDRESS) -> None:
        # asyncio switches Nagle's delay off only where the protocol is named
        super().__init__(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._total = total
        self._each = each
        self._held: Counter[str] = Counter()
        self.turned_away = 0
        """Connections closed because there were too many."""

    def accept(self) -> tuple[socket.socket, Any]:
        """As `socket.socket.accept`; raises ConnectionAbortedError for one that was closed again."""
        accepted, peer = super().accept()
        visit = _Visit(accepted.family, accepted.type, accepted.proto, accepted.detach())
        address = str(peer[0])
        if self._held.total() >= self._total or self._held[address] >= self._each:
            visit.close()
            self.turned_away += 1
            raise ConnectionAbortedError("too many connections")
        self._held[address] += 1
        visit.leave = lambda: self._left(address)
        return visit, peer

    def _left(self, address: str) -> None:
        self._held[address] -= 1
        if not self._held[address]:
            del self._held[address]
