"""Keys rotated, sessions ended and identities revoked while traffic flows."""

from worldkit import lossy, settled

from vitalgate.cloud import enrolment
from vitalgate.gateway.link import KeysRefused, KeysRenewed
from vitalgate.lab.recorded import SPOOL_COMMIT, STORE_COMMIT
from vitalgate.lab.world import CLOUD, GATEWAY, GATEWAY_NAME, World


def renewed(world):
    return sum(isinstance(event, KeysRenewed) for _, event in world.events)


def active_keys(world):
    entries = enrolment.list_keys(world.store.enrolment(), world.network.wall(CLOUD)())
    return {entry.key for entry in entries if entry.kind == "identity" and entry.state == "active"}


def test_sessions_and_identities_rotated_at_the_gateway_again_and_again():
    with World(71, link=lossy()) as world:
        first = active_keys(world)
        for number in range(8):
            world.vault().rotate(identity=number % 2 == 1)
            world.run(12)
        account = settled(world)
        assert renewed(world) == 8
        assert account.unheard == 0
        assert not world.gaps()
        assert len(active_keys(world)) == 1
        assert active_keys(world) != first


def test_sessions_ended_at_the_cloud_are_made_anew_by_the_gateway():
    with World(72, link=lossy()) as world:
        for _ in range(4):
            world.run(10)
            enrolment.rotate(world.store.enrolment("lab"), GATEWAY_NAME)
            world.run(20)
        account = settled(world)
        assert renewed(world) == 4
        assert account.unheard == 0
        assert not world.gaps()


def test_keys_rotated_through_crashes_and_a_cut_link():
    with World(73, link=lossy(0.2)) as world:
        for number in range(6):
            world.vault().rotate(identity=number % 2 == 0)
            world.kill_at(STORE_COMMIT if number % 3 else SPOOL_COMMIT, 5 + number, down=0.5)
            world.run(4)
            world.restart(GATEWAY if number % 2 else CLOUD, down=0.2)
            world.run(2)
            world.partition()
            world.run(6)
            world.partition(up=True)
            world.run(6)
        settled(world)
        assert world.counters[GATEWAY]["gateway_rekeys{done}"] >= 2
        assert len(active_keys(world)) == 1


def test_a_revoked_gateway_delivers_nothing_and_keeps_everything_until_it_is_enrolled_anew():
    with World(74, link=lossy()) as world:
        world.run(10)
        enrolment.revoke(world.store.enrolment("lab"), GATEWAY_NAME, world.network.wall(CLOUD)(), "lost on a bus")
        world.run(10)  # the cloud looks every few seconds
        before = world.account()
        world.run(60)
        during = world.account()
        assert during.stored == before.stored
        assert during.committed > before.committed + 250
        assert any(isinstance(event, KeysRefused) for _, event in world.events)
        assert during.unanswered <= 1  # the devices notice nothing
        world.restart(GATEWAY, down=1.0)
        world.run(20)
        assert world.account().stored == before.stored
        world.stop_gateway()
        world.vault().revoke()
        world.enrol()
        world.start_gateway()
        world.run(10)
        settled(world)
        assert len(active_keys(world)) == 1
