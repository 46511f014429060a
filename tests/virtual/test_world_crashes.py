"""Gateway and cloud killed within their commits and anywhere else: what was promised stays, what was missed is told."""

import random

import pytest
from worldkit import IVY, NONIN, lossy, settled, told

from vitalgate.lab.recorded import POINTS, SPOOL_COMMIT, SPOOL_COMMITTED, STORE_COMMITTED
from vitalgate.lab.world import CLOUD, GATEWAY, World

CRASHED = "gateway crashed"


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_commit_again_and_again(point):
    chance = random.Random(f"crashes at {point}")
    rounds = 6
    with World(31, link=lossy()) as world:
        starts = world.counters[GATEWAY].total("gateway_spool_openings")
        for _ in range(rounds):
            world.kill_at(point, chance.randrange(1, 25), down=chance.uniform(0.1, 4.0))
            world.run(15)
        account = settled(world)
        if point.startswith("spool"):
            assert world.counters[GATEWAY].total("gateway_spool_openings") - starts == rounds
            assert told(world) == {(IVY, CRASHED): rounds, (NONIN, CRASHED): rounds}
            assert account.unheard > 0  # frames that were said to a dead gateway
        else:
            assert account.unheard == 0
            assert not world.gaps()
            assert world.counters[GATEWAY].total("gateway_rekeys") == 0  # the keys were good all the while
        if point == STORE_COMMITTED:
            assert world.counters[CLOUD]["cloud_entries_duplicate"] >= rounds  # stored, not acknowledged, sent again


@pytest.mark.parametrize("point", [SPOOL_COMMIT, SPOOL_COMMITTED])
def test_killed_while_the_spool_is_being_opened(point):
    with World(32, link=lossy()) as world:
        world.run(5)
        for _ in range(3):
            world.kill_at(point, 1, down=0.5)
            world.restart(GATEWAY)  # its opening commits the new epoch, and dies there
            world.run(10)
        settled(world)
        assert {cause for _, cause in told(world)} == {CRASHED}


def test_killed_at_twenty_random_moments_each():
    chance = random.Random(33)
    with World(33, link=lossy(0.05, jitter=0.02)) as world:
        moments = sorted((chance.uniform(1, 120), host) for host in (GATEWAY, CLOUD) for _ in range(20))
        began = world.now
        for moment, host in moments:
            world.run(max(0.0, began + moment - world.now))
            world.restart(host, down=chance.choice((0.0, 0.05, 1.5)))
        world.run(5)
        account = settled(world)
        assert account.unheard > 0
        assert {cause for _, cause in told(world)} == {CRASHED}
        assert {device for device, _ in told(world)} == {IVY, NONIN}
        assert len(world.epochs()) > 15


def test_a_gateway_that_was_stopped_names_the_stop_and_not_a_crash():
    with World(34, link=lossy()) as world:
        world.run(20)
        world.stop_gateway()
        world.run(30)
        world.start_gateway()
        world.run(5)
        account = settled(world)
        assert told(world) == {(IVY, "gateway stopped"): 1, (NONIN, "gateway stopped"): 1}
        for gap in world.gaps():
            assert 29.0 < gap.end - gap.start < 32.0
        assert account.unheard >= 4 * 29


def test_a_cloud_that_is_away_for_long_is_caught_up_with():
    with World(35, link=lossy()) as world:
        world.run(10)
        world.restart(CLOUD, down=300.0)
        world.run(310)
        account = settled(world)
        assert account.unheard == 0
        assert not world.gaps()
