"""Every bound of an endpoint is reached by a test, and deduplication under load keeps its promises."""

import ast
from dataclasses import fields
from pathlib import Path

import pytest
from coap_lockstep import Lockstep, seeded

from vitalgate.coap import (
    Code,
    Endpoint,
    Limits,
    Message,
    Option,
    Parameters,
    Site,
    Type,
    build_options,
    decode,
    encode,
)

HERE = Path(__file__).parent
REACHED = {
    "message_bytes": "test_coap_server.py::test_too_long_a_request",
    "messages": "test_coap_server.py::test_full_deduplication_table_refuses_and_evicts_nobody",
    "messages_per_peer": "test_coap_server.py::test_one_peer_cannot_take_the_whole_table",
    "messages_per_unverified_peer": "test_coap_limits.py::test_strangers_cannot_fill_the_table",
    "peers": "test_coap_server.py::test_full_peer_table",
    "unverified_peers": "test_coap_limits.py::test_strangers_cannot_fill_the_table",
    "servers": "test_coap_client.py::test_own_limits_fail_the_request",
    "exchanges": "test_coap_client.py::test_own_limits_fail_the_request",
    "queued_per_peer": "test_coap_client.py::test_own_limits_fail_the_request",
    "deferred": "test_coap_server.py::test_full_table_of_deferred_requests",
    "deferred_per_peer": "test_coap_server.py::test_full_table_of_deferred_requests",
    "transmissions": "test_coap_server.py::test_no_place_for_a_transmission_sends_the_response_non_confirmable",
    "known_options": "test_coap_server.py::test_known_option_blocks_are_bounded",
    "known_option_bytes": "test_coap_server.py::test_known_option_blocks_are_bounded",
    "unverified_response_bytes": "test_coap_limits.py::test_most_bytes_for_an_unverified_address",
    "body_bytes": "test_coap_block1_server.py::*",
    "assemblies": "test_coap_block1_server.py::*",
    "assembly_bytes": "test_coap_block1_server.py::*",
    "representations": "test_coap_block2_server.py::*",
    "representation_bytes": "test_coap_block2_server.py::*",
    "observations": "test_coap_observe_server.py::*",
    "observations_per_peer": "test_coap_observe_server.py::*",
    "group_responses": "test_coap_multicast.py::test_responses_that_wait_are_bounded",
    "group_requests": "test_coap_multicast.py::test_own_limits",
    "group_answers": "test_coap_multicast.py::test_answers_to_one_request_are_bounded",
    "transfers": "test_coap_transfer.py::*",
    "observing": "test_coap_watch.py::*",
    "back_offs": "test_coap_restraint.py::*",
}
"""Field of `Limits` to the test that reaches it; * is one of the file."""
EXCHANGE_LIFETIME = 247.0


def test_every_field_is_named():
    assert set(REACHED) == {field.name for field in fields(Limits)}


@pytest.mark.parametrize("name", REACHED)
def test_every_bound_is_reached(name):
    """The test exists, sets the bound, and looks at what came of it."""
    file, _, wanted = REACHED[name].partition("::")
    text = (HERE / file).read_text()
    tests = [
        ast.get_source_segment(text, node) + "".join(ast.unparse(each) for each in node.decorator_list)
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and wanted in (node.name, "*")
    ]
    assert any((name in test and "assert" in test) or ("busy(" in test and name in test) for test in tests)


class Serving(Lockstep):
    """A server with a resource that stores and one that may run again."""

    def __init__(self, *, limits=Limits(), **kwargs):  # noqa: B008  # frozen
        self.runs: list[bytes] = []
        site = Site(randomness=seeded(1))

        def store(request, path, identity, now):
            self.runs.append(request.token)
            return Message(Code.CHANGED, (), b"x" * 40)

        site.add("store", store, methods=[Code.POST])
        site.add("read", store, methods=[Code.GET], idempotent=True)
        site.add("small", lambda *_: Message(Code.CHANGED), methods=[Code.POST], small=True)
        kwargs.setdefault("verify_addresses", False)
        super().__init__(Endpoint(site=site, randomness=seeded(), limits=limits, **kwargs))

    def asks(self, path="store", *, mid=0, peer="192.0.2.1", kind=Type.CON, code=None, payload=b"") -> Message | None:
        code = code or (Code.GET if path == "read" else Code.POST)
        raw = encode(Message(code, build_options(path), payload, kind, mid, peer.encode()[-8:]))
        self.hears(raw, path=(peer, 5683))
        sent = self.endpoint.datagrams_to_send(self.now)
        return decode(sent[0][0]) if sent else None

    @property
    def remembered(self) -> int:
        return len(self.endpoint._core.deduplication)


def test_what_is_idempotent_stores_nothing_whatever_the_load():
    """RFC 7252 section 4.5: 30,000 requests of 1,000 peers leave no entry and no record."""
    step = Serving()
    for number in range(30_000):
        step.now += 0.0001
        answer = step.asks("read", mid=number // 1000, peer=f"10.0.{number % 1000 >> 8}.{number % 1000 & 255}")
        assert answer is not None
    assert len(step.runs) == 30_000
    assert step.remembered == 0
    assert len(step.endpoint._core.peers) == 0
    assert step.endpoint.next_timeout() is None


def test_a_flood_evicts_nobody_before_exchange_lifetime():
    """Entries of others stay to the end of their time, while a flood is answered 5.03 (section 4.5, 5.9.3.4)."""
    step = Serving(limits=Limits(messages=1000))
    victims = [f"192.0.2.{number}" for number in range(20)]
    start = step.now
    first = [step.asks(mid=7, peer=victim) for victim in victims]
    assert len(step.runs) == 20
    refused = 0
    for number in range(3000):
        step.now = start + 100 + number / 100
        answer = step.asks(mid=number % 1000, peer=f"198.51.100.{number // 1000}")
        refused += answer.code == Code.SERVICE_UNAVAILABLE
        assert answer.code != Code.SERVICE_UNAVAILABLE or answer.option(Option.MAX_AGE) == b"\x0a"
    assert refused == 2020
    assert step.remembered == 1000
    for moment in (start + 150, start + EXCHANGE_LIFETIME - 0.001):
        step.now = moment
        assert [step.asks(mid=7, peer=victim) for victim in victims] == first, "the stored reply"
    assert len(step.runs) == 1000
    step.now = start + EXCHANGE_LIFETIME
    assert step.asks(mid=7, peer=victims[0]).code == Code.CHANGED
    assert len(step.runs) == 1001, "its time is over, so it is a new request"
    assert step.count("coap_limit_reached", "messages") == refused


def test_one_peer_leaves_room_for_the_others():
    step = Serving(limits=Limits(messages=100, messages_per_peer=30))
    for mid in range(50):
        step.asks(mid=mid, peer="198.51.100.1")
    assert step.remembered == 30
    assert step.asks(peer="192.0.2.1").code == Code.CHANGED
    assert step.count("coap_limit_reached", "messages_per_peer") == 20


def test_strangers_cannot_fill_the_table():
    """Invented addresses, none of them verified: they occupy a small part, and the rest is answered without state."""
    limits = Limits(unverified_peers=10, messages_per_unverified_peer=4, messages=1000)
    step = Serving(limits=limits, verify_addresses=True)
    codes = [step.asks("small", mid=mid, peer=f"10.0.0.{host}").code for host in range(200) for mid in range(6)]
    assert codes.count(Code.CHANGED) == 40
    assert codes.count(Code.UNAUTHORIZED) == 1200 - 40, "with an Echo value, for which nothing is kept"
    assert step.remembered == 40
    assert step.count("coap_limit_reached", "messages_per_unverified_peer") == 20
    assert step.count("coap_limit_reached", "unverified_peers") == 190 * 6


def test_a_full_table_empties_by_itself():
    step = Serving(limits=Limits(messages=10))
    for mid in range(10):
        step.now += 1
        step.asks(mid=mid)
    assert step.asks(mid=10).code == Code.SERVICE_UNAVAILABLE
    step.now += EXCHANGE_LIFETIME - 9
    assert step.asks(mid=10).code == Code.CHANGED, "the oldest is over, and only that"
    assert step.asks(mid=11).code == Code.SERVICE_UNAVAILABLE
    step.wait(300)
    assert step.remembered == 0


def test_non_confirmable_requests_are_refused_too():
    step = Serving(limits=Limits(messages=1))
    step.asks(mid=1, kind=Type.NON)
    answer = step.asks(mid=2, kind=Type.NON)
    assert (answer.type, answer.code) == (Type.NON, Code.SERVICE_UNAVAILABLE)
    step.now += Parameters().non_lifetime
    assert step.asks(mid=2, kind=Type.NON).code == Code.CHANGED


def test_most_bytes_for_an_unverified_address():
    """`Limits.unverified_response_bytes`, whatever the request's size."""
    for most, code in ((53, Code.CHANGED), (52, Code.UNAUTHORIZED)):
        step = Serving(limits=Limits(unverified_response_bytes=most), verify_addresses=True)
        step.now += 1
        answer = step.asks("read", payload=b"p" * 500)
        assert answer.code == code
