"""Wall clocks that jump: data keeps flowing, nothing is taken for old, gaps never end before they start."""

import pytest
from worldkit import IVY, NONIN, lossy, settled, told

from vitalgate.gateway.engine import ClockStepped
from vitalgate.lab.world import CLOUD, GATEWAY, World

HOUR, DAY = 3600.0, 86400.0


@pytest.mark.parametrize("seconds", [HOUR, -HOUR, 40 * 365 * DAY, -50 * 365 * DAY, 2.5, -2.5])
def test_a_step_of_the_gateways_clock_loses_nothing_and_is_noticed(seconds):
    with World(41, link=lossy()) as world:
        world.run(10)
        world.step_clock(GATEWAY, seconds)
        world.run(15)
        account = settled(world)
        assert account.unheard == 0
        assert not world.gaps()
        steps = [event.seconds for _, event in world.events if isinstance(event, ClockStepped)]
        assert steps == [pytest.approx(seconds, abs=0.01)]
        newest, before = (
            world.store.read.between(IVY, -1e12, 1e12)[-1 if seconds > 0 else 0],
            world.network.wall(CLOUD)(),
        )
        if abs(seconds) > 60:
            assert abs(newest.gateway_time - before - seconds) < 60  # times follow the clock, and only times


@pytest.mark.parametrize("seconds", [5 * HOUR, -5 * HOUR, 400 * DAY, -400 * DAY])
def test_a_step_of_the_clouds_clock_loses_nothing(seconds):
    with World(42, link=lossy()) as world:
        world.run(8)
        world.step_clock(CLOUD, seconds)
        world.run(8)
        world.restart(CLOUD, down=0.5)
        world.run(8)
        account = settled(world)
        assert account.unheard == 0
        assert not world.gaps()


@pytest.mark.parametrize("seconds", [HOUR, -HOUR, 30 * DAY, -30 * DAY])
def test_a_step_while_the_gateway_was_away_leaves_a_gap_that_makes_sense(seconds):
    with World(43, link=lossy()) as world:
        world.run(10)
        world.kill(GATEWAY)
        world.step_clock(GATEWAY, seconds)
        world.run(5)
        world.start_gateway()
        world.run(10)
        account = settled(world, one_clock=False)
        assert account.unheard > 0
        assert told(world) == {(IVY, "gateway crashed"): 1, (NONIN, "gateway crashed"): 1}
        assert all(gap.start <= gap.end for gap in world.gaps())


def test_a_clock_that_jumps_to_and_fro_all_the_time_during_cuts_and_crashes():
    with World(44, link=lossy()) as world:
        for number in range(12):
            world.step_clock(GATEWAY if number % 2 else CLOUD, (-1) ** number * 977.0 * (number + 1))
            world.run(3)
            if number % 4 == 1:
                world.partition()
                world.run(6)
                world.partition(up=True)
            if number % 4 == 3:
                world.restart(CLOUD if number % 8 == 3 else GATEWAY, down=1.0)
                world.run(3)
        settled(world, one_clock=False)
        assert {cause for _, cause in told(world)} == {"gateway crashed"}
