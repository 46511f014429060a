"""TD_COAP_BLOCK_01 to 06: RFC 7959."""

from collections.abc import Iterable

from vitalgate.coap.blocks import Block, block_option, szx_of
from vitalgate.coap.message import Code, Message, Type, code_text
from vitalgate.coap.options import Option, path_segments, uri_path
from vitalgate.net.etsi.asking import Ask, Shown
from vitalgate.net.etsi.trial import OCTETS, Trial, case

SIZE = 64
"""The block size that clients are asked to use where it is theirs to choose."""
BODY = b"".join(b"%04d what is put here does not fit one block\n" % number for number in range(40))

Pair = tuple[Message, Message]


def pairs(trial: Trial, ask: Ask, start: int = 0) -> list[Pair]:
    """The requests with the method and path of ``ask`` from datagram ``start`` on, each with its response; what was
    sent again counts once."""
    wanted = tuple(segment for _, segment in uri_path(trial.named(ask).path))
    found: list[Pair] = []
    messages = [(seen.to_server, seen.message) for seen in trial.relay.seen[start:] if seen.message is not None]
    known: set[int] = set()
    for at, (to_server, request) in enumerate(messages):
        if (
            not to_server
            or request.code != ask.code
            or path_segments(request.options) != wanted
            or request.mid in known
        ):
            continue
        known.add(request.mid)
        for back, response in messages[at + 1 :]:
            if back or response.code < 0x40 or response.token != request.token:
                continue
            if response.type != Type.ACK or response.mid == request.mid:
                found.append((request, response))
                break
    return found


async def _ask(trial: Trial, ask: Ask) -> tuple[list[Pair], Shown | None]:
    start = len(trial.relay.seen)
    shown = await trial.asker.ask(trial.relay.address, trial.named(ask))
    found = pairs(trial, ask, start)
    trial.must("the client sent requests that were answered", bool(found))
    trial.check_request(trial.named(ask), found[0][0])
    return found, shown


def _first_wrong(trial: Trial, text: str, wrong: Iterable[object]) -> None:
    found = list(wrong)
    trial.check(text, not found, found[0] if found else "")


def check_download(trial: Trial, found: list[Pair], code: int, *, early: int | None) -> bytes:
    """A representation fetched in blocks (RFC 7959 section 2.4): the first request names block size ``early`` or none.
    Returns the body."""
    trial.must("the transfer took more than one exchange", len(found) > 1, len(found))
    first_request, first_response = found[0]
    asked = block_option(first_request, Option.BLOCK2)
    if early is None:
        trial.check("first request: no Block2", asked is None, asked)
    else:
        trial.check(
            f"first request: Block2 NUM = 0, M = 0, size {early}", asked == Block(0, False, szx_of(early)), asked
        )
    body = check_blocks(trial, found, code)
    first = block_option(first_response, Option.BLOCK2)
    if first is not None and early is not None:
        trial.check("first response: SZX is at most what was asked for", first.szx <= szx_of(early), first)
    return body


def check_blocks(trial: Trial, found: list[Pair], code: int) -> bytes:
    """The blocks of a response in ``found``, from its first one on."""
    first = block_option(found[0][1], Option.BLOCK2)
    trial.must("first response: Block2 NUM = 0, M = 1", first is not None and first.num == 0 and first.more, first)
    _first_wrong(
        trial, f"every response: Code = {code_text(code)}", (code_text(b.code) for _, b in found if b.code != code)
    )
    later = [block_option(request, Option.BLOCK2) for request, _ in found[1:]]
    answers = [block_option(response, Option.BLOCK2) for _, response in found]
    trial.must("every later request and every response has Block2", None not in later and None not in answers)
    wanted = [block for block in later if block is not None]
    given = [block for block in answers if block is not None]
    _first_wrong(trial, "every later request: M = 0", (block for block in wanted if block.more))
    _first_wrong(
        trial, "every later request: SZX is at most the last response's",
        (block for block, before in zip(wanted, given, strict=False) if block.szx > before.szx),
    )  # fmt: skip
    body = b""
    wrong: list[Block] = []
    for at, (block, (_, response)) in enumerate(zip(given, found, strict=True)):
        if at and wanted[at - 1].offset != len(body):
            wrong.append(wanted[at - 1])
        body = body[: block.offset] + response.payload
    _first_wrong(trial, "every later request: NUM is the next block's", wrong)
    _first_wrong(
        trial, "every later response: NUM and SZX as in its request",
        (b for a, b in zip(wanted, given[1:], strict=True) if (a.num, a.szx) != (b.num, b.szx)),
    )  # fmt: skip
    _first_wrong(
        trial, "every response with M = 1: a payload of the block's size",
        (b for b, (_, r) in zip(given, found, strict=True) if b.more and len(r.payload) != b.size),
    )  # fmt: skip
    _first_wrong(trial, "every response but the last: M = 1", (block for block in given[:-1] if not block.more))
    last = given[-1]
    trial.check("last response: M = 0, a payload of at most the block's size",
                not last.more and len(found[-1][1].payload) <= last.size, last)  # fmt: skip
    return body


def check_upload(trial: Trial, found: list[Pair], body: bytes, continued: Iterable[int], done: Iterable[int]) -> None:
    """A body sent in blocks (RFC 7959 section 2.5), answered by codes ``continued`` and at last ``done``."""
    asked = [block_option(request, Option.BLOCK1) for request, _ in found]
    answers = [block_option(response, Option.BLOCK1) for _, response in found]
    trial.must("the transfer took more than one exchange, each request with Block1",
               len(found) > 1 and None not in asked, len(found))  # fmt: skip
    sent = [block for block in asked if block is not None]
    _first_wrong(trial, "every response: Block1", (sent[at] for at, block in enumerate(answers) if block is None))
    given = [block or sent[at] for at, block in enumerate(answers)]
    trial.check("first request: Block1 NUM = 0, M = 1", sent[0].num == 0 and sent[0].more, sent[0])
    _first_wrong(
        trial, "every request with M = 1: a payload of the block's size",
        (block for block, (r, _) in zip(sent, found, strict=True) if block.more and len(r.payload) != block.size),
    )  # fmt: skip
    _first_wrong(trial, "every request but the last: M = 1", (block for block in sent[:-1] if not block.more))
    _first_wrong(
        trial, "every later request: SZX is at most the response's before",
        (block for block, before in zip(sent[1:], given, strict=False) if block.szx > before.szx),
    )  # fmt: skip
    together, wrong = b"", []
    for block, (request, _) in zip(sent, found, strict=True):
        # Where the server wanted smaller blocks, the client goes on behind what was accepted of the first.
        if block.offset > len(together):
            wrong.append(block)
        together = together[: block.offset] + request.payload
    _first_wrong(trial, "every later request: NUM is the next block's", wrong)
    trial.check("the blocks are the body", together == body, f"{len(together)} bytes")
    trial.check("last request: M = 0, a payload of at most the block's size",
                not sent[-1].more and len(found[-1][0].payload) <= sent[-1].size, sent[-1])  # fmt: skip
    codes = list(continued)
    _first_wrong(
        trial, "every response but the last: Code = " + " or ".join(map(code_text, codes)),
        (code_text(response.code) for _, response in found[:-1] if response.code not in codes),
    )  # fmt: skip
    _first_wrong(
        trial, "every response: NUM as in its request, SZX at most",
        (b for a, b in zip(sent, given, strict=True) if a.num != b.num or b.szx > a.szx),
    )  # fmt: skip
    _first_wrong(
        trial, "every 2.31: M = 1",
        (b for b, (_, r) in zip(given, found, strict=True) if r.code == Code.CONTINUE and not b.more),
    )  # fmt: skip
    last = found[-1][1]
    trial.check_code(last, done)
    trial.check("last response: Block1 M = 0", answers[-1] is not None and not answers[-1].more, answers[-1])


async def _download(trial: Trial, early: int | None) -> None:
    await trial.ensure("large", BODY)
    found, shown = await _ask(trial, Ask(Code.GET, "large", block=early))
    body = check_download(trial, found, Code.CONTENT, early=early)
    trial.check_display(shown, Code.CONTENT, body)


@case("TD_COAP_BLOCK_01", "GET in blocks, early negotiation", "RFC 7959 sections 2.2 to 2.4", "large")
async def block_01(trial: Trial) -> None:
    """GET of /large, the first request names the size."""
    await _download(trial, SIZE)


@case("TD_COAP_BLOCK_02", "GET in blocks, late negotiation", "RFC 7959 sections 2.2 to 2.4", "large")
async def block_02(trial: Trial) -> None:
    """GET of /large, the first request knows nothing of blocks."""
    await _download(trial, None)


@case("TD_COAP_BLOCK_03", "PUT in blocks", "RFC 7959 sections 2.2, 2.3, 2.5", "large-update")
async def block_03(trial: Trial) -> None:
    """PUT to /large-update."""
    await trial.ensure("large-update")
    found, _ = await _ask(trial, Ask(Code.PUT, "large-update", payload=BODY, content_format=OCTETS, block=SIZE))
    check_upload(trial, found, BODY, [Code.CONTINUE, Code.CHANGED], [Code.CHANGED])
    after = await trial.change(Ask(Code.GET, "large-update"))
    trial.check("the server has the whole update", after.payload == BODY, f"{len(after.payload)} bytes")


@case("TD_COAP_BLOCK_04", "POST in blocks that creates", "RFC 7959 sections 2.2, 2.3, 2.5", "large-create")
async def block_04(trial: Trial) -> None:
    """POST to /large-create, and a GET of what came of it."""
    found, _ = await _ask(trial, Ask(Code.POST, "large-create", payload=BODY, content_format=OCTETS, block=SIZE))
    check_upload(trial, found, BODY, [Code.CONTINUE], [Code.CREATED])
    location = found[-1][1].all(Option.LOCATION_PATH)
    trial.must("last response: Location-Path = large-create and a segment of the server's",
               len(location) == 2 and location[0] == b"large-create" and b"/" not in location[1], location)  # fmt: skip
    created, shown = await _ask(trial, Ask(Code.GET, b"/".join(location).decode()))
    body = check_download(trial, created, Code.CONTENT, early=None)
    trial.check("the new resource is what was sent", body == BODY, f"{len(body)} bytes")
    trial.check_display(shown, Code.CONTENT, body)


@case("TD_COAP_BLOCK_05", "POST in blocks, answered in blocks", "RFC 7959 sections 2.2, 2.3, 2.5", "large-post")
async def block_05(trial: Trial) -> None:
    """POST to /large-post."""
    found, shown = await _ask(trial, Ask(Code.POST, "large-post", payload=BODY, content_format=OCTETS, block=SIZE))
    up = [pair for pair in found if block_option(pair[0], Option.BLOCK1) is not None]
    down = found[len(up) - 1 :]
    check_upload(trial, up, BODY, [Code.CONTINUE], [Code.CHANGED])
    trial.must("the response takes more than one exchange", len(down) > 1, len(down))
    _first_wrong(trial, "every further request: no payload", (len(a.payload) for a, _ in down[1:] if a.payload))
    body = check_blocks(trial, down, Code.CHANGED)
    trial.check_display(shown, Code.CHANGED, body)


@case("TD_COAP_BLOCK_06", "GET in blocks of 16 bytes", "RFC 7959 sections 2.2 to 2.4", "large")
async def block_06(trial: Trial) -> None:
    """GET of /large in the smallest blocks."""
    await _download(trial, 16)
