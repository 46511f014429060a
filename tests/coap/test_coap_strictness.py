"""Wire strictness: each row of the table is played against a live engine, and the document is what the table says."""

import re
from pathlib import Path

import pytest
import strictness_row as t
from coap_lockstep import PEER, Lockstep, seeded
from strictness_table import document as printed
from strictness_table import table

from vitalgate.coap import (
    Code,
    Endpoint,
    Failure,
    GroupPath,
    Message,
    Parameters,
    RequestFailed,
    ResponseReceived,
    Site,
    Type,
    build_options,
    decode,
)
from vitalgate.coap.message import is_request, is_response

ROWS = table()
GET = Message(Code.GET, build_options("t"))
ROLES = (t.CON_REQUEST, t.NON_REQUEST, t.ACKNOWLEDGED)


def playing(setting: str) -> tuple[Lockstep, dict[str, bytes]]:
    """An engine in ``setting``, and the Message ID and token of its request."""
    site = Site(randomness=seeded(1))
    site.add(
        "t",
        lambda *_: Message(Code.CONTENT, (), b"22 C"),
        methods=[Code.GET],
        idempotent=True,
        formats=[0],
        groups=True,
    )
    parameters = Parameters(max_token_length=300 if setting == t.EXTENDED else 8)
    step = Lockstep(Endpoint(site=site, randomness=seeded(2), verify_addresses=False, parameters=parameters))
    if setting not in ROLES:
        return step, {}
    step.endpoint.request(GET, PEER, step.now, confirmable=setting != t.NON_REQUEST)
    (sent,) = step.said()
    if setting == t.ACKNOWLEDGED:
        step.hears(b"\x60\x00" + sent[2:4])
    return step, {"mid": sent[2:4], "token": sent[4:12]}


def what_became(step: Lockstep) -> str:
    """Of the request under way."""
    events = step.events()
    if not events:
        return t.GOES_ON
    (event,) = events
    if isinstance(event, ResponseReceived):
        return t.ANSWERED
    assert isinstance(event, RequestFailed)
    return {Failure.REJECTED: t.REJECTED, Failure.RESET: t.RESET_BY_PEER}[event.reason]


def same(sent: list[bytes], answer: str, known: dict[str, bytes]) -> bool:
    if not answer:
        return sent == []
    expected = re.escape(t.datagram(answer, **known))
    if "????" in answer:
        expected = (
            expected[: expected.index(re.escape(b"??"))] + b".." + expected[expected.index(re.escape(b"??")) + 4 :]
        )
    return len(sent) == 1 and re.fullmatch(expected, sent[0], re.DOTALL) is not None


@pytest.mark.parametrize("row", ROWS, ids=[f"{number}-{row.group}-{row.what}" for number, row in enumerate(ROWS)])
def test_row(row):
    step, known = playing(row.setting)
    before = dict(step.endpoint.counters)
    idle = step.endpoint.next_timeout()
    if row.setting == t.MULTICAST:
        step.endpoint.receive_multicast(t.datagram(row.given), GroupPath(PEER, "group"), step.now)
    else:
        step.hears(t.datagram(row.given, **known))
    sent = step.said()
    assert same(sent, row.answer, known), [data.hex(" ") for data in sent]
    after = dict(step.endpoint.counters)
    risen = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    assert risen == dict.fromkeys(row.counted, 1)
    if row.setting in ROLES:
        assert what_became(step) == row.then
    else:
        assert step.events() == []
        assert step.endpoint.next_timeout() == idle, "nothing is kept of it"


def test_the_document_is_the_table():
    """After a change of the table: python tests/coap/strictness_table.py > docs/coap-strictness.md"""
    document = Path(__file__).parents[2] / "docs" / "coap-strictness.md"
    assert document.read_text() == printed()


@pytest.mark.parametrize("kind", Type)
def test_every_type_with_every_code(kind):
    """RFC 7252 table 1 and section 4: 256 codes of each type, judged by their class."""
    for code in range(256):
        step, _ = playing(t.SERVER)
        step.hears(bytes((0x40 | kind << 4, code, 0x12, 0x34)))
        sent = [decode(data) for data in step.said()]
        assert step.events() == []
        if kind in (Type.ACK, Type.RST):
            assert sent == [], "never answered"
            assert step.endpoint.counters.total("coap_rejected") == 1
        elif is_request(code):
            (response,) = sent
            assert response.type == (Type.ACK if kind is Type.CON else Type.NON)
            assert response.code == (Code.NOT_FOUND if code < 8 else Code.METHOD_NOT_ALLOWED)
        elif kind is Type.CON or is_response(code):
            (reset,) = sent
            assert (reset.type, reset.code, reset.mid) == (Type.RST, 0, 0x1234)
        else:
            assert sent == [], "a Non-confirmable message that is empty or of a reserved class"
        assert len(step.endpoint._core.peers) == 0, "strangers leave no record"


def test_the_table_names_every_reason_to_reject():
    """A reason that no row has would be a rule that nothing shows."""
    room = Path(__file__).parents[2] / "src" / "vitalgate" / "coap"
    source = "".join((room / f"{name}.py").read_text() for name in ("codec", "endpoint", "client", "server"))
    in_codec = set(re.findall(r'MessageFormatError\("(\w+)"', source))
    in_engine = set(re.findall(r'reject\(path, mid, "(\w+)"', source)) | set(re.findall(r'reason = "(\w+)"', source))
    in_engine |= set(re.findall(r'return "(group_\w+)"', (room / "multicast.py").read_text()))
    named = {name for row in ROWS for name in re.findall(r"coap_rejected\{(\w+)\}", " ".join(row.counted))}
    elsewhere = {"protection"}  # a layer above refused it: tests/oscore
    assert in_codec
    assert (in_codec | in_engine) - named - elsewhere == set()
