"""TD_COAP_CORE_01 to 23 and 31: RFC 7252."""

from vitalgate.coap.message import Code, Message, Type
from vitalgate.coap.options import Option
from vitalgate.net.etsi.asking import Ask
from vitalgate.net.etsi.trial import OCTETS, Exchange, Trial, case
from vitalgate.net.etsi.wire import Seen

TEXT, XML = 0, 41
CHANGED = (Code.CHANGED, Code.CREATED)


def _put(path: str, payload: bytes, *, confirmable: bool = True) -> Ask:
    return Ask(Code.PUT, path, payload=payload, content_format=OCTETS, confirmable=confirmable)


async def _basic(trial: Trial, code: Code, *, confirmable: bool) -> None:
    if code is Code.GET:
        await trial.ensure("test")
        await trial.transact(Ask(Code.GET, "test", confirmable=confirmable), [Code.CONTENT], payload=True)
    elif code is Code.DELETE:
        await trial.ensure("test")
        await trial.transact(Ask(Code.DELETE, "test", confirmable=confirmable), [Code.DELETED])
        await trial.ensure("test")
    elif code is Code.PUT:
        await trial.transact(_put("test", b"put by the test", confirmable=confirmable), CHANGED)
        after = await trial.change(Ask(Code.GET, "test"))
        trial.check("the server has what was put", after.payload == b"put by the test", after.payload)
    else:
        await trial.ensure("test")
        ask = Ask(Code.POST, "test", payload=b"posted by the test", content_format=OCTETS, confirmable=confirmable)
        await trial.transact(ask, CHANGED)


@case("TD_COAP_CORE_01", "GET, Confirmable", "RFC 7252 section 5.8.1", "test")
async def core_01(trial: Trial) -> None:
    """GET of /test."""
    await _basic(trial, Code.GET, confirmable=True)


@case("TD_COAP_CORE_02", "DELETE, Confirmable", "RFC 7252 section 5.8.4", "test")
async def core_02(trial: Trial) -> None:
    """DELETE of /test."""
    await _basic(trial, Code.DELETE, confirmable=True)


@case("TD_COAP_CORE_03", "PUT, Confirmable", "RFC 7252 section 5.8.3", "test")
async def core_03(trial: Trial) -> None:
    """PUT to /test."""
    await _basic(trial, Code.PUT, confirmable=True)


@case("TD_COAP_CORE_04", "POST, Confirmable", "RFC 7252 section 5.8.2", "test")
async def core_04(trial: Trial) -> None:
    """POST to /test."""
    await _basic(trial, Code.POST, confirmable=True)


@case("TD_COAP_CORE_05", "GET, Non-confirmable", "RFC 7252 sections 5.8.1, 5.2.3", "test")
async def core_05(trial: Trial) -> None:
    """GET of /test, NON."""
    await _basic(trial, Code.GET, confirmable=False)


@case("TD_COAP_CORE_06", "DELETE, Non-confirmable", "RFC 7252 sections 5.8.4, 5.2.3", "test")
async def core_06(trial: Trial) -> None:
    """DELETE of /test, NON."""
    await _basic(trial, Code.DELETE, confirmable=False)


@case("TD_COAP_CORE_07", "PUT, Non-confirmable", "RFC 7252 sections 5.8.3, 5.2.3", "test")
async def core_07(trial: Trial) -> None:
    """PUT to /test, NON."""
    await _basic(trial, Code.PUT, confirmable=False)


@case("TD_COAP_CORE_08", "POST, Non-confirmable", "RFC 7252 sections 5.8.2, 5.2.3", "test")
async def core_08(trial: Trial) -> None:
    """POST to /test, NON."""
    await _basic(trial, Code.POST, confirmable=False)


def _empty(trial: Trial, seen: Seen, kind: Type, mid: int) -> bool:
    message = seen.message
    return message is not None and message.code == 0 and message.type == kind and message.mid == mid


async def _check_separate(trial: Trial, exchange: Exchange) -> None:
    request, response = exchange.request, exchange.response
    trial.check("response: Type = 0 (CON)", response.type == Type.CON, Type(response.type).name)
    trial.check_code(response, [Code.CONTENT])
    trial.check_response(exchange, payload=True)
    acknowledged = await trial.relay.until(
        lambda: any(seen.to_server and _empty(trial, seen, Type.ACK, response.mid) for seen in trial.relay.seen),
        trial.patience,
    )
    trial.check("the client acknowledges the response: Type = 2 (ACK), Code = 0, its Message ID", acknowledged)
    acknowledgements = [
        seen for seen in trial.relay.seen if not seen.to_server and _empty(trial, seen, Type.ACK, request.mid)
    ]
    trial.check("the server acknowledges the request: Type = 2 (ACK), Code = 0, its Message ID", bool(acknowledgements))


async def _separate(trial: Trial, *, token: bool) -> None:
    exchange = await trial.send(Ask(Code.GET, "separate"))
    if token:
        size = len(exchange.request.token)
        trial.check("request: a token of 1 to 8 bytes", 1 <= size <= 8, size)
    trial.must("a response came", bool(exchange.responses))
    await _check_separate(trial, exchange)


@case("TD_COAP_CORE_09", "GET with a separate response, Confirmable", "RFC 7252 section 5.2.2", "separate")
async def core_09(trial: Trial) -> None:
    """GET of /separate."""
    await _separate(trial, token=False)


@case("TD_COAP_CORE_10", "GET with a token", "RFC 7252 section 5.3.1", "test")
async def core_10(trial: Trial) -> None:
    """The response carries the request's token."""
    await trial.ensure("test")
    exchange = await trial.transact(Ask(Code.GET, "test"), [Code.CONTENT], payload=True)
    size = len(exchange.request.token)
    trial.check("request: a token of 1 to 8 bytes", 1 <= size <= 8, size)


@case("TD_COAP_CORE_11", "GET with a token and a separate response", "RFC 7252 sections 5.2.2, 5.3.1", "separate")
async def core_11(trial: Trial) -> None:
    """GET of /separate: the separate response carries the request's token."""
    await _separate(trial, token=True)


@case("TD_COAP_CORE_12", "GET with an empty token", "RFC 7252 section 5.3.1", "test")
async def core_12(trial: Trial) -> None:
    """A token may be of no length."""
    await trial.ensure("test")
    exchange = await trial.transact(Ask(Code.GET, "test", token=b""), [Code.CONTENT], payload=True)
    trial.check("request: a token of no length", exchange.request.token == b"", exchange.request.token.hex())


@case("TD_COAP_CORE_13", "GET with several Uri-Path options", "RFC 7252 sections 5.10.1, 6.5", "seg1/seg2/seg3")
async def core_13(trial: Trial) -> None:
    """GET of /seg1/seg2/seg3."""
    await trial.ensure("seg1/seg2/seg3")
    await trial.transact(Ask(Code.GET, "seg1/seg2/seg3"), [Code.CONTENT], payload=True)


@case("TD_COAP_CORE_14", "GET with several Uri-Query options", "RFC 7252 sections 5.10.1, 6.5", "query")
async def core_14(trial: Trial) -> None:
    """GET of /query with three arguments."""
    await trial.ensure("query")
    ask = Ask(Code.GET, "query", query=("first=1", "second=2", "third=3"))
    await trial.transact(ask, [Code.CONTENT], payload=True)


def _first(trial: Trial, *, to_server: bool, code: int | None = None, empty: bool = False) -> None:
    # Lose the first datagram that goes this way: with this code, a response, or empty.
    done = False

    def lose(seen: Seen) -> bool:
        nonlocal done
        message = seen.message
        if done or seen.to_server != to_server or message is None:
            return False
        done = message.code == 0 if empty else message.code == code if code is not None else message.code >> 5 == 2
        return done

    trial.relay.lose = lose


def _check_sent_again(trial: Trial, what: str, seen: list[Seen]) -> None:
    trial.check(f"{what} is sent again, the same", len(seen) > 1 and len({each.data for each in seen}) == 1, len(seen))


@case("TD_COAP_CORE_15", "GET, piggybacked, with loss", "RFC 7252 sections 4.2, 5.2.1", "test")
async def core_15(trial: Trial) -> None:
    """A request and then a response is lost."""
    await trial.ensure("test")
    for what in ("request", "response"):
        _first(trial, to_server=what == "request", code=Code.GET if what == "request" else None)
        exchange = await trial.transact(Ask(Code.GET, "test"), [Code.CONTENT], payload=True)
        trial.check(f"a {what} was lost", sum(seen.lost for seen in trial.relay.seen) == 1 + (what == "response"))
        _check_sent_again(trial, f"the request (a {what} was lost)", exchange.requests)
        if what == "response":
            _check_sent_again(trial, "the response", exchange.responses)


@case("TD_COAP_CORE_16", "GET, separate, with loss", "RFC 7252 sections 4.2, 5.2.2", "separate")
async def core_16(trial: Trial) -> None:
    """A request, its acknowledgement, the response, and the acknowledgement of that is lost."""
    stopped: Exchange | None = None
    for what, to_server, code, empty in (
        ("request", True, Code.GET, False),
        ("acknowledgement of the request", False, None, True),
        ("response", False, None, False),
        ("acknowledgement of the response", True, None, True),
    ):
        start = len(trial.relay.seen)
        _first(trial, to_server=to_server, code=code, empty=empty)
        exchange = await trial.send(Ask(Code.GET, "separate"))
        trial.must("a response came", bool(exchange.responses))
        await _check_separate(trial, exchange)
        lost = [seen for seen in trial.relay.seen[start:] if seen.lost]
        trial.check(f"the {what} was lost", len(lost) == 1, len(lost))
        if what == "request":
            _check_sent_again(trial, "the request", exchange.requests)
        elif what == "acknowledgement of the request":
            stopped = exchange
        else:
            mid = exchange.response.mid

            def again(start: int = start, mid: int = mid) -> list[Seen]:
                return [
                    seen for seen in trial.relay.seen[start:]
                    if not seen.to_server and seen.message and seen.message.code and seen.message.mid == mid
                ]  # fmt: skip

            await trial.relay.until(lambda: len(again()) > 1, trial.patience)
            _check_sent_again(trial, "the response", again())
    # Only now, when it would have been sent again.
    if stopped is not None:
        data, answered = stopped.requests[0].data, stopped.responses[0].at
        late = [seen for seen in trial.relay.seen if seen.data == data and seen.at > answered]
        trial.check("the response ends the retransmission of the request", not late, len(late))


@case("TD_COAP_CORE_17", "GET with a separate response, Non-confirmable", "RFC 7252 section 5.2.3", "separate")
async def core_17(trial: Trial) -> None:
    """GET of /separate, NON: nothing is acknowledged."""
    exchange = await trial.transact(Ask(Code.GET, "separate", confirmable=False), [Code.CONTENT], payload=True)
    mid = exchange.request.mid
    empty = [seen for seen in trial.relay.seen if not seen.to_server and _empty(trial, seen, Type.ACK, mid)]
    trial.check("the server sends no acknowledgement", not empty, len(empty))


@case("TD_COAP_CORE_18", "POST answered with Location-Path", "RFC 7252 section 5.10.7", "test")
async def core_18(trial: Trial) -> None:
    """POST to /test."""
    await trial.ensure("test")
    ask = Ask(Code.POST, "test", payload=b"make something of it", content_format=OCTETS)
    exchange = await trial.transact(ask, [Code.CREATED])
    found = exchange.response.all(Option.LOCATION_PATH)
    wanted = [b"location1", b"location2", b"location3"]
    trial.check("response: Location-Path = location1, location2, location3", found == wanted, found)


@case("TD_COAP_CORE_19", "POST answered with Location-Query", "RFC 7252 section 5.10.7", "location-query")
async def core_19(trial: Trial) -> None:
    """POST to /location-query."""
    ask = Ask(Code.POST, "location-query", payload=b"make something of it", content_format=OCTETS)
    exchange = await trial.transact(ask, [Code.CREATED])
    found = exchange.response.all(Option.LOCATION_QUERY)
    trial.check("response: Location-Query = first=1, second=2", found == [b"first=1", b"second=2"], found)


@case("TD_COAP_CORE_20", "GET with Accept", "RFC 7252 section 5.10.4", "multi-format")
async def core_20(trial: Trial) -> None:
    """GET of /multi-format as text and as XML."""
    contents = []
    for accept in (TEXT, XML):
        ask = Ask(Code.GET, "multi-format", accept=accept)
        exchange = await trial.transact(ask, [Code.CONTENT], payload=True, content_format=accept)
        contents.append(exchange.response.payload)
    trial.check("the two formats have their own content", contents[0] != contents[1])


def _etag(trial: Trial, message: Message) -> bytes:
    found = message.all(Option.ETAG)
    trial.must("response: one ETag of 1 to 8 bytes", len(found) == 1 and 1 <= len(found[0]) <= 8, found)
    return found[0]


@case("TD_COAP_CORE_21", "GET with ETag", "RFC 7252 sections 5.6.2, 5.10.6", "validate")
async def core_21(trial: Trial) -> None:
    """GET of /validate, again with its ETag, and once more after it changed."""
    await trial.ensure("validate")
    first = await trial.transact(Ask(Code.GET, "validate"), [Code.CONTENT], payload=True)
    trial.check("request: no ETag", first.request.option(Option.ETAG) is None)
    tag = _etag(trial, first.response)
    second = await trial.transact(Ask(Code.GET, "validate", etag=tag), [Code.VALID], payload=False, display=False)
    trial.check("response: ETag = ETAG1", second.response.all(Option.ETAG) == [tag])
    await trial.change(_put("validate", b"changed since: " + first.response.payload[:20]))
    third = await trial.transact(Ask(Code.GET, "validate", etag=tag), [Code.CONTENT], payload=True)
    trial.check("response: another ETag", _etag(trial, third.response) != tag)
    trial.check("response: another payload", third.response.payload != first.response.payload)


@case("TD_COAP_CORE_22", "PUT with If-Match", "RFC 7252 section 5.10.8.1", "validate")
async def core_22(trial: Trial) -> None:
    """An update of what was read, and one of what was changed meanwhile."""
    await trial.ensure("validate")
    first = await trial.transact(Ask(Code.GET, "validate"), [Code.CONTENT], payload=True)
    trial.check("request: no ETag", first.request.option(Option.ETAG) is None)
    tag = _etag(trial, first.response)
    content = b"updated " + first.response.payload[:20]
    update = Ask(Code.PUT, "validate", payload=content, content_format=OCTETS, if_match=tag)
    await trial.transact(update, [Code.CHANGED])
    again = await trial.transact(Ask(Code.GET, "validate"), [Code.CONTENT], payload=True)
    trial.check("response: the payload that was put", again.response.payload == content)
    tag2 = _etag(trial, again.response)
    trial.check("response: another ETag", tag2 != tag)
    await trial.transact(_put("validate", b"by someone else"), [Code.CHANGED])
    late = Ask(Code.PUT, "validate", payload=b"too late", content_format=OCTETS, if_match=tag2)
    await trial.transact(late, [Code.PRECONDITION_FAILED])
    after = await trial.change(Ask(Code.GET, "validate"))
    trial.check("the server did not change it", after.payload == b"by someone else", after.payload)


@case("TD_COAP_CORE_23", "PUT with If-None-Match", "RFC 7252 section 5.10.8.2", "create1")
async def core_23(trial: Trial) -> None:
    """/create1 can be created once."""
    await trial.change(Ask(Code.DELETE, "create1"))
    ask = Ask(Code.PUT, "create1", payload=b"created", content_format=OCTETS, if_none_match=True)
    await trial.transact(ask, [Code.CREATED])
    await trial.transact(ask, [Code.PRECONDITION_FAILED])


@case("TD_COAP_CORE_31", "Ping", "RFC 7252 section 4.3")
async def core_31(trial: Trial) -> None:
    """An Empty Confirmable message is answered with Reset."""
    answered = await trial.asker.ping(trial.relay.address)
    trial.check("the client displays that the ping was successful", answered)
    pings = [seen for seen in trial.relay.seen if seen.to_server and seen.message and seen.message.code == 0]
    trial.must("the client sent Type = 0, Code = 0", bool(pings) and pings[0].data[0] == 0x40)
    trial.check("the ping has four bytes", len(pings[0].data) == 4, len(pings[0].data))
    wanted = b"\x70\x00" + pings[0].data[2:4]
    answers = [seen for seen in trial.relay.seen if not seen.to_server]
    trial.check("the server sends four bytes: Type = 3 (RST), Code = 0, the same Message ID",
                any(seen.data == wanted for seen in answers), [seen.data.hex() for seen in answers])  # fmt: skip
