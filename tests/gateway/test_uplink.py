"""The uplink against a real endpoint whose answers are scripted, over the virtual network."""

from collections.abc import Callable
from pathlib import Path as FilePath

import pytest
from spool_world import ALARM, BULK, IVY, VITAL, WAVE, World, notices, values

from vitalgate.coap.endpoint import Endpoint
from vitalgate.coap.events import ResponseReceived
from vitalgate.coap.message import Code, Message
from vitalgate.coap.options import build_options, content_format, queries
from vitalgate.coap.parameters import Parameters
from vitalgate.coap.site import Site
from vitalgate.counters import Counters
from vitalgate.engine import Path
from vitalgate.gateway.delivery import unpack
from vitalgate.gateway.entry import Entry
from vitalgate.gateway.notice import Gap
from vitalgate.gateway.uplink import (
    EntryRefused,
    LinkDown,
    LinkUp,
    RekeyNeeded,
    Uplink,
    UplinkParameters,
)
from vitalgate.net.virtual import VirtualNetwork

Answer = Callable[[list[Entry]], Message]
TAKEN = Message(Code.CHANGED)


class Link:
    """A gateway's uplink and a cloud that says what the test tells it to, joined by the virtual network."""

    def __init__(self, folder: FilePath, *, seed: int = 1, nstart: int = 5, **parameters: float) -> None:
        self.world = World(folder / "data")
        self.network = VirtualNetwork(seed)
        self.counters = Counters()
        self.requests: list[tuple[float, list[Entry], Message]] = []
        self.stored: list[Entry] = []
        self.answer: Answer = lambda _: TAKEN
        site = Site(randomness=self.network.randomness("site"))
        site.add("ingest", self._ingest, methods=[Code.POST])
        site.add("other", lambda *_: Message(Code.CHANGED, (), b"other"), methods=[Code.POST])
        self.cloud = Endpoint(site=site, randomness=self.network.randomness("cloud"))
        self.endpoint = Endpoint(parameters=Parameters(nstart=nstart), randomness=self.network.randomness("gateway"))
        self.uplink = Uplink(
            self.endpoint,
            self.world.spool,
            ("gateway", "cloud"),
            parameters=UplinkParameters(**{"window": 4, **parameters}),  # type: ignore[arg-type]
            query=["gw=test"],
            counters=self.counters,
            randomness=self.network.randomness("uplink"),
        )
        self.network.add_host("cloud", self.cloud)
        self.network.add_host("gateway", self.uplink)

    def _ingest(self, request: Message, path: Path, identity: str, now: float) -> Message:
        entries = unpack(request.payload)
        self.requests.append((now, entries, request))
        answer = self.answer(entries)
        if answer.code == Code.CHANGED:
            self.stored += entries
        return answer

    def say(self, *lanes: object, count: int = 1) -> None:
        """Frames of these classes, committed."""
        for lane in lanes:
            for _ in range(count):
                self.world.say(IVY, lane)  # type: ignore[arg-type]
        self.world.spool.commit(self.network.now)
        self.network.touch("gateway")

    def run(self, seconds: float) -> None:
        """Let time pass; the spool commits what was released once a second, as its engine would."""
        end = self.network.now + seconds
        while self.network.now < end:
            self.network.run(min(end, self.network.now + 1.0))
            self.world.spool.commit(self.network.now)
            self.network.touch("gateway")

    def events(self) -> list[object]:
        found = []
        while (event := self.uplink.next_event()) is not None:
            found.append(event)
        return found


@pytest.fixture
def link(tmp_path: FilePath) -> Link:
    return Link(tmp_path)


def reject(*bad: int, code: Code = Code.BAD_REQUEST) -> Answer:
    return lambda entries: Message(code) if set(bad) & set(values(entries)) else TAKEN


def test_entries_are_let_go_when_the_cloud_has_them_and_not_before(link: Link) -> None:
    link.say(VITAL, count=30)
    assert link.world.spool.status().entries == 31
    assert link.uplink.in_flight
    link.run(1)
    assert values(link.stored) == list(range(1, 31))
    assert link.world.spool.status().entries == 0
    assert link.events() == [LinkUp()]
    assert link.uplink.is_up
    for _, entries, request in link.requests:
        assert content_format(request) == 112
        assert queries(request.options) == ("gw=test",)
        assert len(request.payload) <= 1024
        assert entries


def test_nothing_waits_for_a_timer_while_the_link_is_well(link: Link) -> None:
    link.say(VITAL)
    link.network.run(0.01)
    assert values(link.stored) == [1]


def test_the_most_urgent_goes_first(link: Link) -> None:
    link.answer = lambda _: Message(Code.SERVICE_UNAVAILABLE)
    link.say(BULK, VITAL, WAVE, ALARM, count=10)
    link.network.run(1)
    link.answer = lambda _: TAKEN
    link.run(5)
    assert values(link.stored) == [*range(31, 41), *range(21, 31), *range(11, 21), *range(1, 11)]


def test_an_alarm_does_not_wait_behind_bulk(link: Link) -> None:
    """The whole window is stuck on a link that lost everything; an alarm has a place of its own."""
    link.say(VITAL)
    link.run(1)
    link.network.partition("gateway", "cloud")
    link.say(BULK, count=100)
    assert link.uplink.in_flight == 4
    link.network.partition("gateway", "cloud", up=True)
    before = link.network.now
    link.say(ALARM)
    link.network.run(before + 0.01)
    assert link.stored[-1].traffic_class is ALARM
    assert len(link.stored[-1:]) == 1
    link.run(200)
    assert sorted(values(link.stored)) == list(range(1, 103))


def test_with_one_place_an_alarm_takes_that_of_bulk(tmp_path: FilePath) -> None:
    link = Link(tmp_path, nstart=1, window=1, alarm_slots=0)
    link.say(VITAL)
    link.run(1)
    link.network.partition("gateway", "cloud")
    link.say(BULK, count=20)
    link.network.partition("gateway", "cloud", up=True)
    before = link.network.now
    link.say(ALARM)
    link.network.run(before + 0.01)
    assert 22 in values(link.stored)
    assert link.counters["gateway_uplink_preempted"] == 1
    link.run(10)
    assert sorted(values(link.stored)) == list(range(1, 23))
    assert link.events() == [LinkUp()], "taking a place is no failure of the link"


def test_a_bad_entry_is_found_by_halving_and_set_aside(link: Link) -> None:
    link.answer = reject(7, 23)
    link.say(VITAL, count=40)
    link.run(5)
    link.answer = lambda _: TAKEN
    link.run(2)
    assert sorted(values(link.stored)) == [number for number in range(1, 41) if number not in (7, 23)]
    assert len(values(link.stored)) == len(set(values(link.stored))), "halves are not sent twice"
    status = link.world.spool.status()
    assert (status.entries, status.refused) == (0, 2)
    gaps = notices(link.stored, Gap)
    assert sum(gap.count for gap in gaps) == 2
    assert {gap.cause for gap in gaps} == {"refused 4.00"}
    assert [event for event in link.events() if isinstance(event, EntryRefused)] == [EntryRefused("4.00")] * 2


@pytest.mark.parametrize("code", [Code.BAD_REQUEST, Code.FORBIDDEN, Code.UNPROCESSABLE_ENTITY])
def test_a_cloud_that_refuses_everything_does_not_empty_the_spool_quickly(link: Link, code: Code) -> None:
    link.answer = lambda _: Message(code)
    link.say(VITAL, count=200)
    link.run(600)
    refused = link.world.spool.status().refused
    assert 8 <= refused < 45
    assert any(isinstance(event, LinkDown) for event in link.events())
    link.answer = lambda _: TAKEN
    link.run(60)
    assert len(values(link.stored)) >= 200 - refused - 5
    assert LinkUp() in link.events()


def test_too_large_is_halved(link: Link) -> None:
    link.answer = lambda entries: Message(Code.REQUEST_ENTITY_TOO_LARGE) if len(entries) > 1 else TAKEN
    link.say(VITAL, count=20)
    link.run(5)
    assert sorted(values(link.stored)) == list(range(1, 21))


@pytest.mark.parametrize("code", [Code.SERVICE_UNAVAILABLE, Code.TOO_MANY_REQUESTS])
def test_a_busy_cloud_is_left_alone_for_as_long_as_it_says(link: Link, code: Code) -> None:
    link.answer = lambda _: Message(code, build_options(max_age=50))
    link.say(VITAL, count=100)
    link.run(49)
    assert len(link.requests) <= 5
    asked = len(link.requests)
    link.answer = lambda _: TAKEN
    link.run(3)
    assert len(link.requests) > asked
    assert len(values(link.stored)) == 100


def test_an_absurd_max_age_is_bounded(link: Link) -> None:
    link.answer = lambda _: Message(Code.SERVICE_UNAVAILABLE, build_options(max_age=2**32 - 1))
    link.say(VITAL)
    link.run(1)
    link.answer = lambda _: TAKEN
    link.run(301)
    assert values(link.stored) == [1]


def test_an_alarm_cuts_a_long_delay_short(link: Link) -> None:
    link.answer = lambda _: Message(Code.SERVICE_UNAVAILABLE, build_options(max_age=200))
    link.say(VITAL)
    link.run(1)
    link.answer = lambda _: TAKEN
    link.say(ALARM)
    link.run(3)
    assert values(link.stored)[0] == 2


@pytest.mark.parametrize("code", [Code.NOT_FOUND, Code.UNSUPPORTED_CONTENT_FORMAT, Code.INTERNAL_SERVER_ERROR])
def test_other_answers_refuse_nothing(link: Link, code: Code) -> None:
    """A cloud that is set up wrongly must not cost a single entry."""
    link.answer = lambda _: Message(code)
    link.say(VITAL, count=10)
    link.run(300)
    assert link.world.spool.status().refused == 0
    assert 8 <= len(link.requests) < 40
    link.answer = lambda _: TAKEN
    link.run(60)
    assert sorted(values(link.stored)) == list(range(1, 11))


def test_a_cut_link_is_told_once_and_delays_grow_to_their_limit(link: Link) -> None:
    link.say(VITAL)
    link.run(1)
    link.network.partition("gateway", "cloud")
    for _ in range(60):
        link.say(VITAL)
        link.run(20)
    assert link.events() == [LinkUp(), LinkDown("timeout")]
    assert link.world.spool.status().entries == 60
    posts = link.counters["gateway_uplink_posts"]
    assert posts < 40
    link.network.partition("gateway", "cloud", up=True)
    link.run(100)
    assert sorted(values(link.stored)) == list(range(1, 62))
    assert link.events() == [LinkUp()]
    assert link.counters["gateway_uplink_failed{timeout}"] >= 5


def test_failed_protection_asks_for_keys_again_and_again(link: Link) -> None:
    link.answer = lambda _: Message(Code.UNAUTHORIZED)
    link.say(VITAL)
    link.run(120)
    asked = [event.failures for event in link.events() if isinstance(event, RekeyNeeded)]
    assert asked[:2] == [3, 6]
    assert link.world.spool.status().refused == 0
    link.uplink.pause(link.network.now)
    assert link.uplink.in_flight == 0
    link.answer = lambda _: TAKEN
    link.run(60)
    assert link.stored == [], "paused"
    link.uplink.resume(link.network.now)
    link.network.touch("gateway")
    link.run(0.5)
    assert values(link.stored) == [1]


def test_posts_that_fail_together_are_one_failure_of_protection(link: Link) -> None:
    link.answer = lambda _: Message(Code.UNAUTHORIZED)
    link.say(VITAL, count=200)
    link.run(0.1)
    assert len(link.requests) >= 4
    link.answer = lambda _: TAKEN
    link.run(10)
    assert not [event for event in link.events() if isinstance(event, RekeyNeeded)]
    assert link.world.spool.status().entries == 0


def test_pausing_gives_back_what_is_in_flight(link: Link) -> None:
    link.network.partition("gateway", "cloud")
    link.say(VITAL, count=50)
    assert link.world.spool.status().in_flight
    link.uplink.pause(link.network.now)
    assert link.world.spool.status().in_flight == 0
    assert link.events() == []


def test_events_of_others_pass_through(link: Link) -> None:
    exchange = link.endpoint.request(Message(Code.POST, build_options("other")), ("gateway", "cloud"), link.network.now)
    link.say(VITAL)
    link.run(1)
    (event,) = [event for event in link.events() if isinstance(event, ResponseReceived)]
    assert (event.exchange, event.response.payload) == (exchange, b"other")


@pytest.mark.parametrize("seed", range(4))
def test_on_a_bad_link_everything_arrives(tmp_path: FilePath, seed: int) -> None:
    link = Link(tmp_path, seed=seed)
    link.network.default_link.loss = 0.25
    link.network.default_link.duplicate = 0.1
    link.network.default_link.delay = 0.05
    link.network.default_link.jitter = 0.2
    for round_ in range(60):
        link.say(ALARM, WAVE, VITAL, BULK)
        if round_ == 20:
            link.network.partition("gateway", "cloud")
        if round_ == 40:
            link.network.partition("gateway", "cloud", up=True)
        link.run(2)
    link.run(300)
    assert link.world.spool.status().entries == 0
    assert set(values(link.stored)) == set(range(1, 241))
    names = [(entry.epoch, entry.sequence) for entry in link.stored]
    assert max(entry.sequence for entry in link.stored) == len(set(names)), "every number, none missing"
    assert link.world.spool.status().refused == 0
