"""Observe, the server side: when notifications go, and which (RFC 7641 section 4.5)."""

import pytest
from coap_observed import DAY, Server, order

from vitalgate.coap import Code, Type


def test_a_day_without_confirmation():
    """Section 4.5: at least one Confirmable notification in 24 hours, also while nothing changes."""
    step = Server()
    step.asks("non")
    for n in range(24):
        step.wait(3599)
        step.changes("non", b"%d" % n)
        assert step.one().type == Type.NON
    step.wait(24)
    check = step.one()
    assert (check.type, check.payload) == (Type.CON, b"23")
    step.acks(check)
    step.wait(DAY - 1)
    step.silent()
    step.wait(2)
    assert step.one().type == Type.CON
    step.wait(100)
    assert step.observers == 0, "nobody confirmed that one"
    assert step.count("coap_observations_ended", "timeout") == 1


def test_one_outstanding_at_a_time_and_the_newest_next():
    """Section 4.5.1: not more than NSTART, and states between may be skipped (section 1.3, eventual consistency)."""
    step = Server()
    step.asks("con")
    for n in range(1, 6):
        step.changes("con", b"%d" % n)
    first = step.one()
    assert first.payload == b"1"
    runs = step.con.runs
    step.acks(first)
    second = step.one()
    assert (second.payload, step.con.runs) == (b"5", runs + 1)
    assert order(second) > order(first)
    step.acks(second)
    step.wait(100)
    step.silent()


def test_non_confirmable_ones_are_held_back():
    """Section 4.5.1: one in 3 s while the client's round trip is not known."""
    step = Server()
    step.asks("non")
    step.changes("non", b"1")
    assert step.one().payload == b"1"
    step.changes("non", b"2")
    step.changes("non", b"3")
    step.wait(2.9)
    step.silent()
    step.wait(0.2)
    assert step.one().payload == b"3"
    step.wait(10)
    step.silent()


def test_observations_of_one_client_share_its_nstart():
    step = Server(nstart=2)
    for path, token in (("con", b"A"), ("con", b"B"), ("con", b"C"), ("non", b"D")):
        step.asks(path, token=token)
    step.changes("con", b"1")
    step.changes("non", b"1")
    first, second = step.sent()
    assert {first.token, second.token} == {b"A", b"B"}
    step.acks(first)
    third = step.one()
    assert third.token == b"C"
    step.acks(second)
    assert step.one().token == b"D"
    step.wait(3)
    assert step.one().token == b"C", "only C is unacknowledged"


def test_clients_do_not_wait_for_each_other():
    step = Server()
    paths = [("192.0.2.1", port) for port in range(5)]
    for path in paths:
        step.asks("con", via=path)
    assert step.changes("con", b"1") == 5
    assert [path for _, path in step.endpoint.datagrams_to_send(step.now)] == paths


def test_retransmission_carries_the_newest_state():
    """Section 4.5.2: another Message ID and a higher sequence; timer and counter go on."""
    step = Server()
    step.asks("con")
    start = step.now
    step.changes("con", b"1")
    sent = [(0.0, step.one())]
    step.changes("con", b"2")
    step.silent()
    while step.observers:
        step.turn()
        sent += [(step.now - start, message) for message in step.sent()]
    messages = [message for _, message in sent]
    assert [message.payload for message in messages] == [b"1", b"2", b"2", b"2", b"2"]
    assert len({message.mid for message in messages}) == 2
    assert order(messages[1]) > order(messages[0])
    assert messages[1:] == [messages[1]] * 4
    timeout = sent[1][0]
    assert [moment for moment, _ in sent] == pytest.approx([0, timeout, 3 * timeout, 7 * timeout, 15 * timeout])
    assert step.count("coap_notifications_superseded") == 1
    assert step.count("coap_observations_ended", "timeout") == 1


def test_acknowledgement_of_the_superseding_one():
    step = Server()
    step.asks("con")
    step.changes("con", b"1")
    old = step.one()
    step.changes("con", b"2")
    step.wait(3)
    new = step.one()
    step.acks(old)  # too late; the newer one is under way
    step.silent()
    step.acks(new)
    step.wait(100)
    step.silent()
    assert step.observers == 1
    assert step.changes("con", b"3") == 1


def test_superseded_by_an_error():
    step = Server()
    step.asks("con")
    step.changes("con", b"1")
    step.one()
    step.changes("con", None)
    step.wait(3)
    last = step.one()
    assert (last.code, order(last)) == (Code.NOT_FOUND, None)
    assert step.observers == 0
    step.acks(last)
    step.wait(100)
    step.silent()
