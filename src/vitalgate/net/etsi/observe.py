"""TD_COAP_OBS_01, 02 and 04 to 14: RFC 7641, and section 2.6 of RFC 7959."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vitalgate.coap.blocks import block_option
from vitalgate.coap.message import Code, Message, Type, code_text
from vitalgate.coap.options import Option, content_format, path_segments, uint_option, uri_path
from vitalgate.net.etsi.asking import Ask, Observing, Shown
from vitalgate.net.etsi.block import BODY, check_blocks, pairs
from vitalgate.net.etsi.trial import LeftOutError, Trial, case
from vitalgate.net.etsi.wire import Seen

JSON = 50
GET = Code.GET
PROMPT = 3.0
"""Seconds after a change in which it is notified where nothing is outstanding."""
RANDOM_WAIT = 15.0
"""Seconds from 5 to this that a client waits before it registers again (RFC 7641 section 3.3.1)."""


class Watch:
    """One observation as the wire shows it, from its first request on."""

    def __init__(self, trial: Trial, ask: Ask, resource: str) -> None:
        self.resource = resource
        self._trial = trial
        self._relay = trial.relay
        self._start = len(trial.relay.seen)
        self._path = tuple(segment for _, segment in uri_path(ask.path))
        self.shown: list[Shown] = []
        """What the client displays; whole once the observation is over."""

    def _requests(self) -> list[Message]:
        return [
            seen.message for seen in self._relay.seen[self._start :]
            if seen.to_server and seen.message is not None and seen.message.code == GET
            and path_segments(seen.message.options) == self._path
        ]  # fmt: skip

    def request(self) -> Message | None:
        """The registration."""
        found = [request for request in self._requests() if request.option(Option.OBSERVE) is not None]
        return found[0] if found else None

    def cancellation(self) -> Message | None:
        """The request with Observe = 1."""
        found = [request for request in self._requests() if uint_option(request, Option.OBSERVE) == 1]
        return found[0] if found else None

    def answers(self) -> list[Seen]:
        """The responses with the observation's token, each once."""
        request = self.request()
        found: dict[int, Seen] = {}
        for seen in self._relay.seen[self._start :] if request is not None else ():
            message = seen.message
            if seen.to_server or message is None or request is None or message.token != request.token:
                continue
            if message.code >= 0x40 and (message.type != Type.ACK or message.mid == request.mid):
                found.setdefault(message.mid, seen)
        return list(found.values())

    def format(self) -> int:
        """The Content-Format of the first response."""
        return content_format(_first(self)) or 0

    def notifications(self) -> list[Message]:
        """What came after the response to the registration."""
        return [seen.message for seen in self.answers()[1:] if seen.message is not None]

    async def more(self, count: int = 1) -> list[Message]:
        """Wait for ``count`` more notifications and return them. A resource that does not change by itself is
        changed."""
        before = len(self.notifications())
        for number in range(1, count + 1):
            wanted = before + number

            def arrived(wanted: int = wanted) -> bool:
                return len(self.notifications()) >= wanted

            if not await self._relay.until(arrived, self._trial.nudge_after):
                await self.nudge(wanted)
            come = await self._relay.until(arrived, self._trial.patience)
            self._trial.must("notifications come", come, len(self.notifications()) - before)
        return self.notifications()[before : before + count]

    def acknowledged(self, notification: Message, kind: Type = Type.ACK) -> bool:
        """True where the client answered ``notification`` with an Empty message of this type."""
        wanted = bytes((0x40 | kind << 4, 0)) + notification.mid.to_bytes(2, "big")
        return any(seen.to_server and seen.data == wanted for seen in self._relay.seen[self._start :])

    async def nudge(self, number: int) -> None:
        """Change the resource to state ``number``, large where it is a large one, or every other time."""
        large = self.resource == "obs-large" or (self.resource == "obs-pumping" and number % 2 == 1)
        content = b"changed by the test, %d\n" % number + (BODY if large else b"")
        await _change(self._trial, self.resource, content, self.format())

    async def check_acknowledged(self, notification: Message) -> None:
        """The client acknowledges a Confirmable notification."""
        done = await self._relay.until(lambda: self.acknowledged(notification), self._trial.patience)
        self._trial.check("the client sends an ACK", done)


@asynccontextmanager
async def _observing(trial: Trial, path: str, *, confirmable: bool = True) -> AsyncIterator[Watch]:
    # The registration and its response are checked here, steps 1 to 3 of every case.
    ask = trial.named(Ask(GET, path, confirmable=confirmable))
    watch = Watch(trial, ask, path)
    if not isinstance(trial.asker, Observing):
        raise LeftOutError("this client cannot observe")
    async with trial.asker.observe(trial.relay.address, ask) as watch.shown:
        await trial.relay.until(lambda: bool(watch.answers()), trial.patience)
        request = watch.request()
        trial.must("the client sent a request with Observe", request is not None)
        assert request is not None
        trial.check_request(ask, request)
        trial.check("request: Observe is empty", request.option(Option.OBSERVE) == b"")
        trial.must("a response came", bool(watch.answers()))
        response = watch.answers()[0].message
        assert response is not None
        wanted = Type.ACK if confirmable else Type.NON
        trial.check(f"response: Type = {wanted.value} ({wanted.name})", response.type == wanted)
        trial.check_code(response, [Code.CONTENT])
        trial.check("response: Content-Format", content_format(response) is not None)
        trial.must("response: Observe", response.option(Option.OBSERVE) is not None)
        yield watch


def _first(watch: Watch) -> Message:
    message = watch.answers()[0].message
    assert message is not None
    return message


def _check_notifications(trial: Trial, watch: Watch, kind: Type = Type.CON) -> None:
    first = _first(watch)
    found = watch.notifications()
    trial.check(f"notifications: Code = {code_text(Code.CONTENT)}", all(each.code == Code.CONTENT for each in found))
    if kind is Type.CON:
        trial.check("notifications: Type = 0 (CON)", all(each.type == kind for each in found))
    else:  # one of them may be Confirmable to see whether the client is there (section 4.5)
        trial.check("notifications: Type = 1 (NON)", any(each.type == kind for each in found))
    formats = {content_format(each) for each in (first, *found)}
    trial.check("notifications: Content-Format = the response's", len(formats) == 1, formats)
    numbers = [uint_option(each, Option.OBSERVE) for each in (first, *found)]
    # Section 3.4: V1 < V2 in arithmetic modulo 2^24.
    rising = all(
        a is not None and b is not None and 0 < (b - a) % (1 << 24) < 1 << 23 for a, b in itertools.pairwise(numbers)
    )
    trial.check("notifications: Observe increases", rising, numbers)


def _check_displayed(trial: Trial, watch: Watch, wanted: list[Message]) -> None:
    displayed = b"".join(each.payload for each in watch.shown)
    missing = [each.payload for each in wanted if each.payload not in displayed]
    trial.check("the client displays the received information", not missing, missing)


async def _change(trial: Trial, path: str, payload: bytes, format_: int) -> None:
    await trial.change(Ask(Code.PUT, path, payload=payload, content_format=format_))


async def _check_silence(trial: Trial, watch: Watch, path: str) -> None:
    # A change that the server has answered has been notified too, if it is to be.
    await trial.ensure(path)
    before = len(watch.answers())
    for number in range(2):
        await _change(trial, path, b"nobody observes %d" % number, watch.format())
        await trial.change(Ask(GET, path))
    trial.check("the server sends no further notification", len(watch.answers()) == before, len(watch.answers()))


async def _periodic(trial: Trial, path: str, kind: Type) -> None:
    await trial.ensure(path)
    async with _observing(trial, path, confirmable=kind is Type.CON) as watch:
        found = await watch.more(2)
        _check_notifications(trial, watch, kind)
        for each in found:
            if each.type == Type.CON:
                await watch.check_acknowledged(each)
        await watch.more()  # whose arrival shows that the client is done with those before
    _check_displayed(trial, watch, [_first(watch), *found])


@case("TD_COAP_OBS_01", "Observation, Confirmable", "RFC 7641 sections 1.2, 3, 4", "obs")
async def obs_01(trial: Trial) -> None:
    """/obs."""
    await _periodic(trial, "obs", Type.CON)


@case("TD_COAP_OBS_02", "Observation, Non-confirmable", "RFC 7641 sections 1.2, 3, 4", "obs-non")
async def obs_02(trial: Trial) -> None:
    """/obs-non."""
    await _periodic(trial, "obs-non", Type.NON)


@case("TD_COAP_OBS_04", "The client finds that it is not on the list any more", "RFC 7641 section 3.3.1", "obs")
async def obs_04(trial: Trial) -> None:
    """The server loses its list; the client registers again after Max-Age."""
    await trial.ensure("obs")
    async with _observing(trial, "obs") as watch:
        await watch.check_acknowledged((await watch.more())[0])
        request = watch.request()
        assert request is not None
        # What has the server forget: a Reset in the client's name, which the client knows nothing of.
        trial.relay.answer_with_reset()
        lost = await trial.relay.until(lambda: not trial.relay.resetting, trial.patience)
        trial.must("the server lost the observation", lost)
        start = len(trial.relay.seen)
        max_age = uint_option(_first(watch), Option.MAX_AGE)
        # Section 3.3.1: not at once when it is not fresh any more, but some random seconds later.
        wait = (60 if max_age is None else max_age) + trial.max_latency + RANDOM_WAIT + trial.patience

        def registrations() -> list[Message]:
            found = [seen.message for seen in trial.relay.seen[start:] if seen.to_server and seen.message is not None]
            return [each for each in found if each.option(Option.OBSERVE) == b""]

        again = await trial.relay.until(lambda: bool(registrations()), wait)
        trial.must("the client registers again: GET with Observe empty", again)
        trial.check("the request has the same token", registrations()[0].token == request.token)
        await watch.more(2)
        trial.check("the server has it on the list again", len(watch.notifications()) > 2)


@case("TD_COAP_OBS_05", "The server finds that the client is off", "RFC 7641 section 4.5", "obs")
async def obs_05(trial: Trial) -> None:
    """Nothing reaches the client or comes from it any more."""
    await trial.ensure("obs")
    async with _observing(trial, "obs") as watch:
        await watch.check_acknowledged((await watch.more())[0])
        before = len(watch.answers())
        start = len(trial.relay.seen)
        trial.relay.lose = lambda _: True
        await trial.relay.until(lambda: len(watch.answers()) > before, trial.patience)
        await _change(trial, "obs", b"not the same", watch.format())

        def sent() -> list[Seen]:
            return [seen for seen in trial.relay.seen[start:] if not seen.to_server and seen.message is not None]

        again = await trial.relay.until(lambda: len(sent()) > 2, trial.patience)
        trial.check("unacknowledged notifications are sent again", again, len(sent()))
        numbers = {uint_option(seen.message, Option.OBSERVE) for seen in sent() if seen.message is not None}
        trial.check("what is sent again has an updated Observe value", len(numbers) > 1, numbers)
        await trial.relay.until(lambda: False, trial.gives_up)
        await _check_silence(trial, watch, "obs")


@case("TD_COAP_OBS_06", "The client refuses notifications with Reset", "RFC 7641 section 4.2", "obs")
async def obs_06(trial: Trial) -> None:
    """The client has rebooted and knows nothing of the observation."""
    await trial.ensure("obs")
    async with _observing(trial, "obs") as watch:
        await watch.check_acknowledged((await watch.more())[0])
        trial.relay.reboot()
        assert isinstance(trial.asker, Observing)
        await trial.asker.reboot()
        await trial.asker.ask(trial.relay.address, trial.named(Ask(GET, "link1")))  # it has its address again
        found = (await watch.more())[0]
        refused = await trial.relay.until(lambda: watch.acknowledged(found, Type.RST), trial.patience)
        trial.check("the client sends RST", refused)
        await trial.change(Ask(GET, "obs"))
        await _check_silence(trial, watch, "obs")


async def _ended(trial: Trial, watch: Watch, code: Code) -> None:
    # The server ends the observation by a notification with this code; one or two may have been on their way before.
    before = len(watch.notifications())

    def found() -> bool:
        return any(each.code == code for each in watch.notifications())

    await trial.relay.until(lambda: found() or len(watch.notifications()) > before + 2, PROMPT)
    arrived = found()
    last = watch.notifications()[-1]
    trial.must(f"a notification: Code = {code_text(code)}", arrived, code_text(last.code))
    trial.check("notification: Type = 0 (CON)", last.type == Type.CON, Type(last.type).name)
    trial.check("notification: no Observe option any more", last.option(Option.OBSERVE) is None)
    if last.type == Type.CON:
        await watch.check_acknowledged(last)


@case("TD_COAP_OBS_07", "The server ends observations on DELETE", "RFC 7641 section 4.2", "obs")
async def obs_07(trial: Trial) -> None:
    """Someone deletes /obs."""
    await trial.ensure("obs")
    async with _observing(trial, "obs") as watch:
        await watch.check_acknowledged((await watch.more())[0])
        await trial.change(Ask(Code.DELETE, "obs"))
        await _ended(trial, watch, Code.NOT_FOUND)
        await _check_silence(trial, watch, "obs")


@case("TD_COAP_OBS_08", "The server ends observations when the Content-Format changes", "RFC 7641 section 4.2", "obs")
async def obs_08(trial: Trial) -> None:
    """Someone puts JSON where text was."""
    await trial.ensure("obs")
    async with _observing(trial, "obs") as watch:
        await watch.check_acknowledged((await watch.more())[0])
        await _change(trial, "obs", b"{}", JSON)
        await _ended(trial, watch, Code.NOT_ACCEPTABLE)
        await _check_silence(trial, watch, "obs")


@case("TD_COAP_OBS_09", "Update of what is observed", "RFC 7641 section 4.2", "obs")
async def obs_09(trial: Trial) -> None:
    """Someone puts a new value to /obs."""
    await trial.ensure("obs")
    async with _observing(trial, "obs") as watch:
        await watch.check_acknowledged((await watch.more())[0])
        value = b"the new value"
        await _change(trial, "obs", value, watch.format())
        arrived = await trial.relay.until(
            lambda: any(m.payload == value for m in watch.notifications()), trial.patience
        )
        trial.must("a notification: payload = the new value", arrived)
        found = next(each for each in watch.notifications() if each.payload == value)
        await watch.check_acknowledged(found)
        await watch.more()
        _check_notifications(trial, watch)
    _check_displayed(trial, watch, [found])


@case("TD_COAP_OBS_10", "GET does not end an observation", "RFC 7641 sections 1.2, 3, 4", "obs")
async def obs_10(trial: Trial) -> None:
    """A GET without Observe meanwhile."""
    await trial.ensure("obs")
    async with _observing(trial, "obs") as watch:
        await watch.check_acknowledged((await watch.more())[0])
        request = watch.request()
        assert request is not None
        start = len(trial.relay.seen)
        ask = trial.named(Ask(GET, "obs"))
        shown = await trial.asker.ask(trial.relay.address, ask)
        window = [
            seen for seen in trial.relay.seen[start:]
            if seen.message is not None and seen.message.token != request.token and seen.message.code
        ]  # fmt: skip
        trial.must("the client sent a request with another token and got a response", len(window) > 1)
        asked, answer = window[0].message, window[-1].message
        assert asked is not None
        assert answer is not None
        trial.check("request: no Observe", asked.option(Option.OBSERVE) is None)
        trial.check("response: Type = 2 (ACK)", answer.type == Type.ACK, Type(answer.type).name)
        trial.check_code(answer, [Code.CONTENT])
        trial.check("response: no Observe", answer.option(Option.OBSERVE) is None)
        trial.check("response: Content-Format = the first's", content_format(answer) == content_format(_first(watch)))
        trial.check_display(shown, answer.code, answer.payload)
        await watch.check_acknowledged((await watch.more())[0])
        _check_notifications(trial, watch)


@case("TD_COAP_OBS_11", "Observation, Confirmable, with loss", "RFC 7641 sections 4.5, 4.5.2", "obs")
async def obs_11(trial: Trial) -> None:
    """Two transmissions in a row are lost: never more than one notification is under way."""
    await trial.ensure("obs")
    async with _observing(trial, "obs") as watch:
        await watch.check_acknowledged((await watch.more())[0])
        start = len(trial.relay.seen)

        def sent() -> list[Seen]:
            return [
                seen for seen in trial.relay.seen[start:]
                if not seen.to_server and seen.message is not None and seen.message.code
            ]  # fmt: skip

        trial.relay.lose = lambda seen: not seen.to_server and len(sent()) < 2
        if not await trial.relay.until(lambda: bool(sent()), trial.nudge_after):
            await watch.nudge(0)
        await trial.relay.until(lambda: len(sent()) > 2, trial.patience)
        trial.must("what was lost is sent again", len(sent()) > 2, len(sent()))
        first, second, third = sent()[:3]
        # Each waits twice as long as the one before; a second notification under way would come between.
        waited, longer = second.at - first.at, third.at - second.at
        text = "one notification at a time, each transmission after twice the time"
        trial.check(text, 1.5 * waited < longer < 3 * waited, f"{waited:.2f} s, {longer:.2f} s")
        last = third.message
        assert last is not None
        await watch.check_acknowledged(last)
        await watch.more()
        _check_notifications(trial, watch)
    _check_displayed(trial, watch, [last])


@case("TD_COAP_OBS_12", "GET with Observe = 1 ends an observation", "RFC 7641 section 3.6", "obs")
async def obs_12(trial: Trial) -> None:
    """The client does not want to observe any more."""
    await trial.ensure("obs")
    async with _observing(trial, "obs") as watch:
        await watch.check_acknowledged((await watch.more())[0])
        request = watch.request()
        assert request is not None
    await trial.relay.until(lambda: watch.cancellation() is not None, trial.patience)
    cancellation = watch.cancellation()
    trial.must("the client sent a request with Observe = 1", cancellation is not None)
    assert cancellation is not None
    trial.check("request: Type = 0 (CON)", cancellation.type == Type.CON, Type(cancellation.type).name)
    trial.check("request: the observation's token", cancellation.token == request.token, cancellation.token.hex())

    def answer() -> Message | None:
        found = [seen.message for seen in trial.relay.seen if not seen.to_server and seen.message is not None]
        return next((each for each in found if each.mid == cancellation.mid and each.type == Type.ACK), None)

    await trial.relay.until(lambda: answer() is not None, trial.patience)
    response = answer()
    trial.must("response: Type = 2 (ACK), the request's Message ID", response is not None)
    assert response is not None
    trial.check_code(response, [Code.CONTENT])
    trial.check("response: the same token", response.token == request.token)
    trial.check("response: no Observe", response.option(Option.OBSERVE) is None)
    await _check_silence(trial, watch, "obs")


async def _large(trial: Trial, watch: Watch, notification: Message, start: int) -> bytes:
    # The client has the rest of a notification's representation: TD_COAP_BLOCK_02 from the second request on.
    path = b"/".join(path_segments((watch.request() or notification).options)).decode()
    wanted = block_option(notification, Option.BLOCK2)
    assert wanted is not None
    trial.check("notification: Block2 NUM = 0, M = 1", wanted.num == 0 and wanted.more, wanted)

    def rest() -> list[tuple[Message, Message]]:
        found = [pair for pair in pairs(trial, Ask(GET, path), start) if pair[0].option(Option.OBSERVE) is None]
        end = [at for at, (_, b) in enumerate(found) if (last := block_option(b, Option.BLOCK2)) and not last.more]
        return found[: end[0] + 1] if end else []

    whole = await trial.relay.until(lambda: bool(rest()), trial.patience)
    trial.must("the client obtains the rest of the representation", whole)
    return check_blocks(trial, [(notification, notification), *rest()], Code.CONTENT)


async def _observe_large(trial: Trial, path: str, rounds: int) -> set[bool]:
    # Returns whether there were notifications with, and without Block2.
    kinds: set[bool] = set()
    bodies: list[Message] = []
    await trial.ensure(path, BODY)
    start = len(trial.relay.seen)
    async with _observing(trial, path) as watch:
        found: list[Message] = [_first(watch)]
        for number in range(rounds):
            if number:
                start = len(trial.relay.seen)
                found = await watch.more()
                start = next(at for at, seen in enumerate(trial.relay.seen) if seen.message is found[0])
                await watch.check_acknowledged(found[0])
            in_blocks = block_option(found[0], Option.BLOCK2) is not None
            kinds.add(in_blocks)
            body = await _large(trial, watch, found[0], start) if in_blocks else found[0].payload
            bodies.append(Message(found[0].code, (), body))
        await watch.more()
        _check_notifications(trial, watch)
    _check_displayed(trial, watch, bodies)
    return kinds


@case("TD_COAP_OBS_13", "Observation of a large resource", "RFC 7641, RFC 7959 section 2.6", "obs-large")
async def obs_13(trial: Trial) -> None:
    """/obs-large."""
    trial.check("every notification was in blocks", await _observe_large(trial, "obs-large", 2) == {True})


@case("TD_COAP_OBS_14", "Observation of a resource of varying size", "RFC 7641, RFC 7959 section 2.6", "obs-pumping")
async def obs_14(trial: Trial) -> None:
    """/obs-pumping is in blocks or not."""
    kinds = await _observe_large(trial, "obs-pumping", 3)
    trial.check("notifications with and without Block2 were seen", kinds == {True, False}, kinds)
