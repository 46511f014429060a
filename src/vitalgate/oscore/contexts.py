"""The contexts of an endpoint: bounded, changed at run time, found by what a request names."""

from typing import TypeVar

from vitalgate.engine import Path
from vitalgate.oscore.context import ContextError, SecurityContext
from vitalgate.oscore.option import Header

DEFAULT_LIMIT = 4096
SAME_ID = 4
"""Contexts that may share (ID Context, Recipient ID): each costs a trial decryption (RFC 8613 section 3.3)."""

_K = TypeVar("_K")
_Key = tuple[bytes | None, bytes]


class Contexts:
    """Security contexts by (ID Context, Recipient ID) for what arrives, and by name for what is sent.

    Several contexts may bear one name: while keys are rotated the old one is *retired*, which means that it still
    verifies until its time is up but sends no more requests; among the others the newest sends. A context with an ID
    Context is found only by requests that carry it.
    """

    def __init__(self, *, limit: int = DEFAULT_LIMIT) -> None:
        self._limit = limit
        self._by_id: dict[_Key, tuple[SecurityContext, ...]] = {}
        self._by_name: dict[str, tuple[SecurityContext, ...]] = {}
        self._retired: dict[SecurityContext, float] = {}
        self._soonest: float | None = None
        self._paths: dict[Path, str] = {}
        self._all: set[SecurityContext] = set()

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, context: SecurityContext) -> bool:
        return context in self._all

    def add(self, context: SecurityContext, *, path: Path | None = None) -> None:
        """Put a context into service; with ``path``, requests to it go to the context's name (`bind`).

        Raises `ContextError` when the limit is reached or `SAME_ID` contexts have its identifiers already."""
        key = (context.id_context, context.recipient.kid)
        same = self._by_id.get(key, ())
        if context in self._all:
            raise ContextError("the context is in service already")
        if len(self._all) >= self._limit:
            raise ContextError(f"{self._limit} contexts are in service; no more fit")
        if len(same) >= SAME_ID:
            raise ContextError(f"{SAME_ID} contexts have this Recipient ID already")
        self._all.add(context)
        self._by_id[key] = (context, *same)  # the newest is tried first
        self._by_name[context.name] = (context, *self._by_name.get(context.name, ()))
        if path is not None:
            self.bind(path, context.name)

    def bind(self, path: Path, name: str) -> None:
        """Requests to ``path`` that name no identity go to the peer ``name``. Raises `ContextError` at the limit."""
        if path not in self._paths and len(self._paths) >= self._limit:
            raise ContextError(f"{self._limit} paths are bound; no more fit")
        self._paths[path] = name

    def retire(self, context: SecurityContext, until: float) -> None:
        """Send no more requests under ``context``; what arrives under it is verified until ``until``."""
        if context in self._all:
            self._retired[context] = until
            self._soonest = min(self._retired.values())

    def remove(self, context: SecurityContext) -> None:
        """Take a context out of service at once; what was under way under it neither verifies nor is answered."""
        if context not in self._all:
            return
        self._all.discard(context)
        if self._retired.pop(context, None) is not None:
            self._soonest = min(self._retired.values(), default=None)
        _drop(self._by_id, (context.id_context, context.recipient.kid), context)
        _drop(self._by_name, context.name, context)
        if context.name not in self._by_name:
            self._paths = {path: name for path, name in self._paths.items() if name != context.name}

    def revoke(self, name: str) -> int:
        """Take every context of ``name`` out of service; returns how many there were."""
        found = self._by_name.get(name, ())
        for context in found:
            self.remove(context)
        return len(found)

    def find(self, header: Header) -> tuple[SecurityContext, ...]:
        """The contexts that a request with ``header`` may be under, newest first; empty when there is none."""
        return () if header.kid is None else self._by_id.get((header.kid_context, header.kid), ())

    def named(self, name: str) -> SecurityContext | None:
        """The context that sends requests to the peer ``name``, or None."""
        for context in self._by_name.get(name, ()):
            if context not in self._retired:
                return context
        return None

    def towards(self, path: Path) -> SecurityContext | None:
        """The context that sends requests to ``path``, or None."""
        name = self._paths.get(path)
        return None if name is None else self.named(name)

    def next_timeout(self) -> float | None:
        """When the next retired context goes, or None."""
        return self._soonest

    def handle_timeout(self, now: float) -> int:
        """Take retired contexts whose time is up out of service; returns how many went."""
        if self._soonest is None or now < self._soonest:
            return 0
        over = [context for context, until in self._retired.items() if until <= now]
        for context in over:
            self.remove(context)
        return len(over)


def _drop(table: dict[_K, tuple[SecurityContext, ...]], key: _K, context: SecurityContext) -> None:
    rest = tuple(other for other in table[key] if other is not context)
    if rest:
        table[key] = rest
    else:
        del table[key]
