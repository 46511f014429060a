"""What an endpoint needs to know of the proxy that it is a side of (RFC 7252 section 5.7)."""

from collections.abc import Collection
from typing import Protocol

from vitalgate.coap.message import Message, Options
from vitalgate.coap.options import OPTIONS, Use, check_options, is_unsafe
from vitalgate.engine import Path


class Forwarding(Protocol):
    """A proxy, as the endpoint that its clients speak to sees it."""

    def takes(self, options: Options) -> bool:
        """True where a request with ``options``, which nobody has checked yet, is for the proxy and not for the
        endpoint's own resources."""

    def handle(self, request: Message, path: Path, identity: str, now: float) -> Message | None:
        """A `Handler` for such requests: the response where it is at hand, else None."""


def check_forwarded(options: Options, use: Use, understood: Collection[int]) -> tuple[Options, tuple[int, ...]]:
    """What a proxy keeps of ``options``, and the numbers of those that keep it from forwarding the message.

    As `check_options`, but by RFC 7252 section 5.7.1: what a proxy does not recognise it forwards where it is marked
    Safe-to-Forward, critical or not, and may not forward where it is marked Unsafe, elective or not. The rest, which it
    recognises, is kept; a critical Unsafe one that is not in ``understood`` counts as unrecognised.
    """
    bad: list[int] = []
    previous = -1
    for number, value in options:
        if is_unsafe(number):
            row = OPTIONS.get(number)
            alone = number != previous or (row is not None and row.repeatable is not None and use in row.repeatable)
            kept, refused = check_options(((number, value),), use, understood)
            if refused or not kept or not alone:
                bad.append(number)
        previous = number
    return options, tuple(bad)
