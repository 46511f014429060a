"""Links cut, slow, doubling and reordering; garbage and damaged datagrams among the traffic."""

import random

import pytest
from worldkit import lossy, settled

from vitalgate.lab.world import CLOUD, GATEWAY, World
from vitalgate.net.virtual import Link


def test_a_cut_link_holds_nothing_up_on_this_side_of_it():
    with World(21, link=lossy()) as world:
        world.run(20)
        before = world.account()
        world.partition()
        world.run(120)
        during = world.account()
        status = world.spool.status()
        assert during.stored - before.stored < 20  # what was on the way
        assert during.committed - before.committed > 500
        assert status.entries >= during.committed - during.stored
        assert during.unanswered <= 1  # the spool answers for itself: monitors are acknowledged all the while
        world.partition(up=True)
        account = settled(world)
        assert account.unheard == 0
        assert not world.gaps()
        downs = [event for _, event in world.events if type(event).__name__ in ("LinkDown", "LinkUp")]
        assert [type(event).__name__ for event in downs] == ["LinkUp", "LinkDown", "LinkUp"]


@pytest.mark.parametrize("direction", [(GATEWAY, CLOUD), (CLOUD, GATEWAY)], ids=["there", "back"])
def test_a_link_cut_in_one_direction_loses_and_doubles_nothing(direction):
    with World(22) as world:
        world.run(10)
        world.network.link(*direction).up = False
        world.run(150)  # beyond a whole exchange: what came is sent again with other message IDs
        world.network.link(*direction).up = True
        account = settled(world)
        assert account.unheard == 0
        if direction == (CLOUD, GATEWAY):
            assert world.counters[CLOUD]["cloud_entries_duplicate"] > 0  # so the test tests something


def test_many_short_cuts_at_seeded_moments():
    chance = random.Random(23)
    with World(23, link=lossy()) as world:
        for _ in range(20):
            world.run(chance.uniform(0.1, 4.0))
            world.partition()
            world.run(chance.uniform(0.1, 6.0))
            world.partition(up=True)
        assert settled(world).unheard == 0


@pytest.mark.parametrize(
    "model",
    [
        Link(loss=0.4),
        Link(delay=0.3, jitter=2.5),
        Link(duplicate=0.6, jitter=0.2),
        Link(delay=0.15, rate=9000.0, queue=2.0, loss=0.02),
        Link(delay=1.0, jitter=0.5, loss=0.2, duplicate=0.2),
    ],
    ids=["lossy", "reordering", "doubling", "narrow", "all"],
)
def test_a_bad_link_loses_and_doubles_nothing(model):
    with World(24, link=model) as world:
        world.run(45)
        account = settled(world, within=1800)
        assert account.unheard == 0
        assert not world.gaps()


def flipped(data, chance):
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


@pytest.mark.parametrize("target", [CLOUD, GATEWAY])
def test_garbage_and_damaged_copies_among_the_traffic_are_counted_and_change_nothing(target):
    source = GATEWAY if target == CLOUD else CLOUD
    chance = random.Random(25)
    with World(25, link=lossy()) as world:
        captured = world.capture()
        world.run(5)
        before = dict(world.counters[target])
        for _ in range(120):
            world.run(0.25)
            genuine = next(data for _, path, data in reversed(captured) if path == (source, target))
            for damaged in (
                chance.randbytes(chance.randrange(0, 60)),
                genuine[: chance.randrange(len(genuine))],
                flipped(genuine, chance),
                genuine + chance.randbytes(3),
                bytes([genuine[0], 0xFF]) + genuine[2:],
            ):
                world.inject(source, target, damaged)
                world.inject("stranger", target, damaged)
        account = settled(world)
        assert account.unheard == 0
        assert not world.gaps()
        rows = world.counters[target]
        noted = {
            name: rows.total(name) - sum(count for key, count in before.items() if key.partition("{")[0] == name)
            for name in ("coap_rejected", "coap_duplicates", "coap_challenges", "oscore_requests_refused",
                         "oscore_responses_ignored")
        }  # fmt: skip
        assert sum(noted.values()) >= 1150, noted  # of 1200; a copy may be as good as the original
        for reason in ("short", "version", "truncated", "token_length", "reserved_code"):
            assert rows[f"coap_rejected{{{reason}}}"] > before.get(f"coap_rejected{{{reason}}}", 0)
        refused = "oscore_requests_refused{decryption}" if target == CLOUD else "oscore_responses_ignored{decryption}"
        assert rows[refused] > 0
