"""The client side of Observe (RFC 7641 section 3): one resource that we observe."""

from typing import Final, Protocol

from vitalgate.coap.blocks import block_option
from vitalgate.coap.client import Owner
from vitalgate.coap.events import Failure
from vitalgate.coap.message import Message
from vitalgate.coap.options import Option, sort_options, uint_option, without_option
from vitalgate.coap.transfer import Blocks, Transfer
from vitalgate.engine import Path

HALF: Final = 1 << 23
FRESHER_AFTER: Final = 128.0
"""Seconds after which a notification is newer whatever its number says (section 3.4)."""
MAX_AGE: Final = 60
WAIT: Final = 5.0
SPREAD: Final = 10.0
"""Section 3.3.1: 5 to 15 seconds after Max-Age, registration is renewed."""


def is_newer(number: int, now: float, last: int, then: float) -> bool:
    """Whether a notification with Observe ``number`` that came at ``now`` is newer than that with ``last`` at ``then``
    (RFC 7641 section 3.4)."""
    return last < number < last + HALF or number < last - HALF or now > then + FRESHER_AFTER


class Watches(Blocks, Protocol):
    """What observations share."""

    ordered: bool
    """True where what comes is the newest anyway: a security layer refused what is older (RFC 8613 section 7.4.1)."""

    def subscribe(
        self, request: Message, path: Path, identity: str, now: float, owner: Owner, *, confirmable: bool
    ) -> int:
        """Send a request to observe."""

    def renew(self, exchange: int, request: Message, now: float, *, ending: bool) -> bool:
        """Send it again under its token, or where ``ending`` one to observe no longer."""

    def wake(self, watch: "Watch", due: float) -> None:
        """Have ``watch`` called at ``due``."""

    def rest(self, watch: "Watch") -> None:
        """Have ``watch`` not called."""

    def random(self) -> float:
        """A number from 0 to 1."""

    def notified(self, watch: "Watch", response: Message) -> None:
        """A new state, whole."""

    def concluded(self, watch: "Watch", response: Message, now: float) -> None:
        """The last response."""

    def lost(self, watch: "Watch", reason: Failure) -> None:
        """The end without one."""


class _Rest:
    """Takes what a transfer made of a notification's first block."""

    __slots__ = ("_more", "_watch")

    def __init__(self, watch: "Watch", *, more: bool) -> None:
        self._watch = watch
        self._more = more

    def answered(self, response: Message, now: float, *, more: bool) -> None:
        """The whole representation."""
        self._watch.fetched(response, now, more=self._more)

    def failed(self, reason: Failure, now: float) -> None:
        """It could not be fetched."""
        self._watch.not_fetched(reason, now, more=self._more)


class Watch:
    """One observation of ours, from the registration until it ends."""

    __slots__ = (
        "_confirmable", "_ending", "_fetch", "_last", "_last_at", "_number", "_renewing", "_watches", "due",
        "exchange", "identity", "path", "request",
    )  # fmt: skip

    def __init__(
        self, watches: Watches, exchange: int, request: Message, path: Path, identity: str, *, confirmable: bool
    ) -> None:
        self._watches = watches
        self.exchange = exchange
        self.request = request
        """Without the Observe option."""
        self.path = path
        self.identity = identity
        self._confirmable = confirmable
        self._number: int | None = None
        """The exchange whose token the notifications have."""
        self._last: int | None = None
        self._last_at = 0.0
        self._renewing = True
        """True until a response to the (last) registration."""
        self._ending = False
        self._fetch: Transfer | None = None
        self.due: float | None = None

    def start(self, now: float) -> None:
        """Register."""
        asked = self._asking(b"")
        number = self._watches.subscribe(asked, self.path, self.identity, now, self, confirmable=self._confirmable)
        self._number = number

    def deregister(self, now: float) -> None:
        """Ask to observe no longer, where it does already (section 3.6); else just stop."""
        if self._ending:
            return
        self._ending = True
        self._stop_fetching(now)
        self._watches.rest(self)
        if self._number is None or not self._watches.renew(self._number, self._asking(b"\1"), now, ending=True):
            self.abort(now)
            self._watches.lost(self, Failure.CANCELLED)

    def abort(self, now: float) -> None:
        """Forget it: the next notification is rejected, which ends it at the server (section 3.6)."""
        self._stop_fetching(now)
        self._watches.rest(self)
        if self._number is not None:
            self._watches.drop(self._number, now)
            self._number = None

    def on_due(self, now: float) -> None:
        """What was known last is not fresh any more: register again (section 3.3.1)."""
        self._renewing = True
        if self._number is None or not self._watches.renew(self._number, self._asking(b""), now, ending=False):
            self._await(now, MAX_AGE)

    # Under its token

    def answered(self, response: Message, now: float, *, more: bool) -> None:
        """A notification, or the response that ends it."""
        if more:
            self._take(response, now)
            return
        self._number = None
        self._stop_fetching(now)
        self._watches.rest(self)
        if not self._ending and response.code >> 5 == 2 and self._in_blocks(response):
            self._fetch_rest(response, now, more=False)
        else:
            self._watches.concluded(self, response, now)

    def failed(self, reason: Failure, now: float) -> None:
        """The peer does not answer, or does not know what it is about."""
        self._number = None
        self._stop_fetching(now)
        self._watches.rest(self)
        self._watches.lost(self, reason)

    def _take(self, response: Message, now: float) -> None:
        self._watches.counters.add("coap_notifications_received")
        number = uint_option(response, Option.OBSERVE) or 0
        if not (
            self._last is None
            or self._renewing
            or self._watches.ordered
            or is_newer(number, now, self._last, self._last_at)
        ):
            self._watches.counters.add("coap_notifications_stale")
            return
        # What answers a registration counts whatever its number: the server may have started again meanwhile.
        self._renewing = False
        self._last, self._last_at = number, now
        age = uint_option(response, Option.MAX_AGE)
        self._await(now, MAX_AGE if age is None else age)
        self._stop_fetching(now)
        if self._in_blocks(response):
            self._fetch_rest(response, now, more=True)
        else:
            self._watches.notified(self, response)

    def _await(self, now: float, age: float) -> None:
        self._watches.wake(self, now + age + WAIT + SPREAD * self._watches.random())

    # Notifications in blocks (RFC 7959 section 2.6)

    def fetched(self, response: Message, now: float, *, more: bool) -> None:
        """A representation is whole."""
        self._fetch = None
        if not more:
            self._watches.concluded(self, response, now)
        elif response.code >> 5 == 2:
            self._watches.notified(self, response)
        # else: it is gone meanwhile, and a notification will say so

    def not_fetched(self, reason: Failure, now: float, *, more: bool) -> None:
        """It could not be had; where that was because it changes, the next notification is on its way."""
        self._fetch = None
        if not more or reason is not Failure.INCOMPLETE:
            self.abort(now)
            self._watches.lost(self, reason)

    def _in_blocks(self, response: Message) -> bool:
        return block_option(response, Option.BLOCK2) is not None and block_option(self.request, Option.BLOCK2) is None

    def _fetch_rest(self, response: Message, now: float, *, more: bool) -> None:
        self._watches.counters.add("coap_transfers")
        rest = _Rest(self, more=more)
        self._fetch = Transfer(
            self._watches, self.exchange, self.request, self.path, self.identity, rest, confirmable=self._confirmable
        )
        self._fetch.resume(response, now)

    def _stop_fetching(self, now: float) -> None:
        if self._fetch is not None:
            self._fetch.abort(now)
            self._fetch = None

    def _asking(self, value: bytes) -> Message:
        options = sort_options((*without_option(self.request.options, Option.OBSERVE), (int(Option.OBSERVE), value)))
        return Message(self.request.code, options, self.request.payload)
