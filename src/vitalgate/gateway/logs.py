"""JSON logs with redaction: one line an event, and nothing in it that is a secret or a patient's.

Rules: an event is a fixed sentence; what varies stands in named fields; bytes and unknown objects are never printed;
fields whose names are on the redaction list are replaced, so that a careless caller still leaks nothing.
"""

import logging
import sys
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, TextIO

import structlog

REDACTED = "[redacted]"
_SECRET_WORDS = (
    "key", "secret", "password", "passphrase", "token", "code", "salt", "patient", "value", "cookie", "payload", "text",
)  # fmt: skip
_PLAIN = (str, int, float, bool, type(None))
MAX_FIELD = 300

EventDict = MutableMapping[str, Any]


def redact(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Replace what must not be printed: secret-sounding fields, bytes, objects; cut what is long, escape controls."""
    for name, value in event.items():
        if name == "event":
            continue
        if any(word in name.lower() for word in _SECRET_WORDS):
            event[name] = REDACTED
        elif not isinstance(value, _PLAIN):
            event[name] = f"<{type(value).__name__}>"
        elif isinstance(value, str):
            event[name] = value if len(value) <= MAX_FIELD else value[:MAX_FIELD] + "…"
    return event


def _stamp(_logger: object, method: str, event: EventDict) -> EventDict:
    event["time"] = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{int(time.time() % 1 * 1000):03d}Z"
    event["level"] = method
    return event


class _Limited:
    """At most `BURST` lines of one event a second; what is left out is counted and said with the next line."""

    BURST = 20

    def __init__(self) -> None:
        self._second = 0
        self._seen: dict[str, int] = {}

    def __call__(self, _logger: object, _method: str, event: EventDict) -> EventDict:
        second = int(time.monotonic())
        if second != self._second:
            self._second, held = second, {name: n - self.BURST for name, n in self._seen.items() if n > self.BURST}
            self._seen = {}
            if held.get(str(event["event"])):
                event["left_out"] = held[str(event["event"])]
        name = str(event["event"])
        self._seen[name] = self._seen.get(name, 0) + 1
        if self._seen[name] > self.BURST:
            raise structlog.DropEvent
        return event


def configure(level: str = "info", file: Path | None = None) -> None:
    """Send logs of ``level`` and above to ``file`` (appended, 0600) or standard error, as JSON lines."""
    stream: TextIO = sys.stderr
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600, exist_ok=True)
        stream = file.open("a", encoding="utf-8", buffering=1)
    structlog.configure(
        processors=[_Limited(), _stamp, redact, structlog.processors.JSONRenderer(ensure_ascii=True)],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )


def get(room: str) -> Any:
    """The logger of one room: ``log.info("sentence", field=...)``."""
    return structlog.get_logger().bind(room=room)
