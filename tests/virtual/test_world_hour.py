"""An hour of three devices over a link that loses, faster than anyone can wait for it; and one seed, one history."""

import statistics
import time

from worldkit import lossy, settled

from vitalgate.lab.world import World

HOUR, PIECE = 3600.0, 6.0
BUDGET = 30.0
"""Seconds of processor time for the hour on a processor that does nothing else; beside other work, twice as much."""


def yardstick():
    """Processor seconds of a little work that is always the same."""
    began, table = time.process_time(), {}
    for number in range(15_000):
        table[number & 255] = str(number)
    return time.process_time() - began


def test_an_hour_of_three_devices_at_five_percent_loss_within_its_budget(capsys):
    pieces, lengths = [], [yardstick()]
    with World(1, link=lossy(0.05)) as world:
        for _ in range(round(HOUR / PIECE)):
            began = time.process_time()
            world.run(PIECE)
            pieces.append(time.process_time() - began)
            lengths.append(yardstick())
        began = time.process_time()
        account = settled(world)
        ending = time.process_time() - began
        # Other work on the machine makes a processor's second worth less, up to half. So each piece is measured in
        # yardsticks of its own moment, and those in seconds of the machine's best one.
        ratios = [2 * piece / (one + other) for piece, one, other in zip(pieces, lengths, lengths[1:], strict=False)]
        spent = sum(pieces) + ending
        alone = statistics.median(ratios) * min(lengths) * len(pieces) + ending
        with capsys.disabled():
            print(f"\n[an hour: {spent:.1f} s of processor time, {alone:.1f} s without what else runs]", end=" ")
        assert account.unheard == 0
        assert not world.gaps()
        # 1 frame a second of the bedside monitors, 3 of the oximeter; nothing was quiet.
        assert account.committed > 5 * HOUR
        assert account.samples > 600 * HOUR
        for source, target in (("gateway", "cloud"), ("cloud", "gateway")):
            link = world.network.link(source, target)
            assert 0.03 < link.dropped / link.sent < 0.07
    assert alone < BUDGET
    assert spent < 2 * BUDGET


def history(seed, seconds=90.0):
    with World(seed, link=lossy(0.05, jitter=0.05, duplicate=0.02)) as world:
        world.run(seconds / 3)
        world.kill_at("spool committed", 20)
        world.kill_at("store commit", 20)
        world.run(seconds / 3)
        world.partition()
        world.run(seconds / 6)
        world.partition(up=True)
        world.run(seconds / 6)
        account = settled(world)
        return account, [(gap.device, gap.cause, gap.start, gap.end) for gap in world.gaps()]


def test_one_seed_gives_one_verdict_and_one_history_and_another_seed_another():
    first, again, other = history(5), history(5), history(6)
    assert first == again
    assert first[0].history != other[0].history
    assert first[0].datagrams != other[0].datagrams
