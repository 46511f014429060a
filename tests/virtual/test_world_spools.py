"""Spools deleted, put back from a backup, and full: what goes is named, what comes is never taken for old."""

import pytest
from worldkit import HL7, IVY, NONIN, lossy, settled, told

from vitalgate.gateway.storage import OpeningCause, SpoolBounds, SpoolOpened
from vitalgate.lab.world import CLOUD, GATEWAY, SPOOL, World

FILES = f"{SPOOL}*"


def opening(world):
    return [event for _, event in world.events if isinstance(event, SpoolOpened)][-1]


def stored_numbers(world):
    return {
        (entry.epoch, entry.sequence)
        for device in world.devices
        for entry in world.store.read.between(device.urn, -1e12, 1e12, 1_000_000)
    }


def test_a_deleted_spool_of_which_all_was_delivered():
    with World(51, link=lossy()) as world:
        world.run(20)
        while world.spool.status().entries:
            world.run(0.05)
        world.kill(GATEWAY)
        world.delete(GATEWAY, FILES)
        world.run(7)
        world.start_gateway()
        world.run(20)
        settled(world, once=False)
        assert opening(world).cause is OpeningCause.MISSING
        assert told(world) == {(IVY, "spool missing"): 1, (NONIN, "spool missing"): 1}
        first, second = world.epochs()
        assert (second.previous_epoch, first.missing, second.missing) == (first.epoch, 0, 0)


def test_a_deleted_spool_with_undelivered_data_names_what_went_with_it():
    with World(52) as world:
        world.run(45)
        world.partition()
        world.run(50)
        world.kill(GATEWAY)
        world.delete(GATEWAY, FILES)
        world.partition(up=True)
        world.start_gateway()
        world.run(20)
        world.finish()
        account = world.account()
        assert account.lost > 100  # they were in that file and nowhere else
        assert (account.duplicated, account.untold) == (0, 0)
        assert account.missing > 0
        assert told(world) == {(IVY, "spool missing"): 1, (NONIN, "spool missing"): 1}
        # Each lost entry is named: by its number, or beyond the last number known by the time of its device's gap.
        (hole,) = world.epochs()[0].holes
        spans = {gap.device: (gap.start, gap.end) for gap in world.gaps("device")}
        there = stored_numbers(world)
        for (epoch, sequence), promise in world.book.promises.items():
            if promise.observations and (epoch, sequence) not in there:
                named = epoch == world.epochs()[0].epoch and hole[0] <= sequence <= hole[1]
                start, end = spans.get(promise.device, (0.0, 0.0))
                assert named or start <= promise.at <= end or (promise.device == HL7 and sequence > hole[1])
        # What came after is all there.
        fresh = {number for number, one in world.book.promises.items() if one.observations} - there
        assert {epoch for epoch, _ in fresh} == {world.epochs()[0].epoch}


@pytest.mark.parametrize("cut", [False, True], ids=["empty", "with entries in it"])
def test_yesterdays_spool_put_back(cut):
    with World(53, link=lossy()) as world:
        world.run(20)
        if cut:
            world.partition()
            world.run(20)
        old = world.backup(GATEWAY)
        world.partition(up=True)
        world.run(60)
        while world.spool.status().entries:
            world.run(0.05)
        before = world.account()
        world.kill(GATEWAY)
        world.restore(GATEWAY, old, FILES)
        world.run(9)
        duplicates = world.counters[CLOUD]["cloud_entries_duplicate"]
        world.start_gateway()
        world.run(30)
        account = settled(world, once=False)
        assert opening(world).cause is OpeningCause.RESTORED
        assert told(world) == {(IVY, "spool restored"): 1, (NONIN, "spool restored"): 1}
        assert account.stored > before.stored + 100  # nothing new was taken for old
        if cut:
            assert world.counters[CLOUD]["cloud_entries_duplicate"] - duplicates > 80  # and the old for old
        assert [epoch.missing for epoch in world.epochs()] == [0, 0]


def test_yesterdays_spool_put_back_over_data_that_was_not_delivered_names_what_went_with_it():
    with World(54) as world:
        world.run(10)
        old = world.backup(GATEWAY)
        world.partition()
        world.run(45)
        world.kill(GATEWAY)
        world.restore(GATEWAY, old, FILES)
        world.partition(up=True)
        world.start_gateway()
        world.run(20)
        world.finish()
        account = world.account()
        assert (account.duplicated, account.untold) == (0, 0)
        assert account.lost > 100
        assert account.missing > 0  # the mark beside the spool knows how far its numbers went
        assert told(world) == {(IVY, "spool restored"): 1, (NONIN, "spool restored"): 1}
        first, second = world.epochs()
        assert (first.missing, second.missing) == (account.missing, 0)
        assert second.previous_epoch == first.epoch


def test_the_whole_of_yesterdays_data_folder_put_back_again_and_again():
    with World(55, link=lossy()) as world:
        old = world.backup(GATEWAY)
        for _ in range(3):
            world.run(33)
            while world.spool.status().entries:
                world.run(0.05)
            world.kill(GATEWAY)
            world.restore(GATEWAY, old)
            world.start_gateway()
        world.run(10)
        settled(world, once=False)
        assert {cause for _, cause in told(world)} == {"spool restored"}
        assert len({epoch.epoch for epoch in world.epochs()}) == 4


def test_a_full_spool_drops_numbered_and_says_so_and_the_monitor_loses_nothing():
    bounds = SpoolBounds(max_bytes=120_000, max_entries=200, reserve_bytes=8192, reserve_entries=16)
    with World(56, bounds=bounds, link=lossy()) as world:
        world.run(20)
        assert world.account().dropped == 0
        world.partition()
        world.run(60)
        status = world.spool.status()
        assert status.entries <= bounds.max_entries
        assert status.bytes <= bounds.max_bytes
        acknowledgements = world.counters[GATEWAY]
        assert acknowledgements["device_hl7_acknowledgements{AE}"] > 0
        world.run(10)
        world.partition(up=True)
        world.finish(within=1200)
        account = world.account()
        assert (account.duplicated, account.missing, account.unanswered, account.untold) == (0, 0, 0, 0)
        # What went is told by its numbers, entry for entry, and is nothing of the monitor's.
        there = stored_numbers(world)
        gone = {number for number, one in world.book.promises.items() if one.observations} - there
        assert len(gone) == account.lost > 100
        # Told as dropped with them: the few that had come when the link was cut, unknown to the gateway.
        assert account.lost <= account.dropped <= account.lost + 20
        assert not any(epoch.holes for epoch in world.epochs())
        gaps = world.gaps("dropped")
        for epoch, sequence in gone:
            promise = world.book.promises[epoch, sequence]
            assert promise.device in (IVY, NONIN)
            assert any(
                gap.device == promise.device
                and gap.epoch == epoch
                and gap.first <= sequence <= gap.last
                and gap.start <= promise.at <= gap.end
                and gap.cause == "spool full"
                for gap in gaps
            )
        assert sum(gap.count for gap in gaps) == account.dropped
        monitor = next(device for device in world.devices if device.urn == HL7)
        assert monitor.simulator.given_up == 0
        assert world.book.frames()[HL7] == monitor.said
        assert world.store.read.frame_hashes()[HL7].keys() == monitor.said.keys()


def test_a_full_spool_that_is_killed_in_between_drops_no_more_than_it_tells():
    bounds = SpoolBounds(max_bytes=120_000, max_entries=200, reserve_bytes=16384, reserve_entries=48)
    with World(57, bounds=bounds) as world:
        world.run(10)
        world.partition()
        for _ in range(4):
            world.run(15)
            world.restart(GATEWAY, down=2.0)
            world.run(3)
        world.partition(up=True)
        world.finish(within=1200)
        account = world.account()
        assert (account.duplicated, account.missing, account.unanswered, account.untold) == (0, 0, 0, 0)
        there = stored_numbers(world)
        gone = {number for number, one in world.book.promises.items() if one.observations} - there
        assert not [number for number in gone if world.book.promises[number].device == HL7]
        assert 0 < len(gone) == account.lost <= account.dropped  # notices of a start may be among the dropped
        assert (
            world.store.read.frame_hashes()[HL7].keys()
            == next(device for device in world.devices if device.urn == HL7).said.keys()
        )
