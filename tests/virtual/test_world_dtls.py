"""The main job under DTLS: the same promises as under OSCORE, through losses, crashes, rotations and revocations."""

import pytest
from worldkit import lossy, settled

from vitalgate.cloud import enrolment
from vitalgate.gateway.link import KeysRefused, KeysRenewed
from vitalgate.gateway.uplink import LinkDown, LinkUp
from vitalgate.lab.recorded import SPOOL_COMMIT, STORE_COMMIT
from vitalgate.lab.world import CLOUD, GATEWAY, GATEWAY_NAME, World
from vitalgate.net.stacks import STACKS

ALL = [row.slug for row in STACKS.values() if row.dtls is not None]
EVERY = pytest.mark.parametrize("stack", ALL)
BOTH = pytest.mark.parametrize("stack", ["coap-dtls13-rpk", "coap-dtls12-psk"])


def times(world, kind):
    return [at for at, event in world.events if isinstance(event, kind)]


def handshakes(world, host=GATEWAY):
    return world.counters[host].total("dtls_handshakes_completed")


@EVERY
def test_everything_arrives_over_a_link_that_loses_and_nothing_in_clear(stack):
    with World(301, stack=stack, link=lossy(0.1, delay=0.02, jitter=0.05)) as world:
        captured = world.capture()
        world.run(30)
        account = settled(world)
        assert account.unheard == 0
        (gateway,) = world.store.read.gateways()
        assert (gateway.name, gateway.security) == (GATEWAY_NAME, stack)
        assert len(captured) > 200
        # CoAP in clear begins with 64 to 127; of what follows the enrolment nothing does.
        assert not [data for _, _, data in captured if data[0] >> 6 == 1]
        assert not any(b"ingest" in data or b"urn:dev" in data for _, _, data in captured)


@BOTH
def test_one_handshake_serves_as_long_as_nothing_happens(stack):
    with World(302, stack=stack) as world:
        world.run(120)
        settled(world)
        assert handshakes(world) == handshakes(world, CLOUD) == 1
        assert len(times(world, LinkUp)) == 1
        assert world.counters[CLOUD]["dtls_discarded{nobody}"] == 0


@EVERY
def test_a_cloud_that_was_killed_is_found_again_within_seconds(stack):
    with World(303, stack=stack) as world:
        for number in range(3):
            world.run(7)
            world.restart(CLOUD, down=0.5 + number)
            world.run(15)
            assert times(world, LinkUp)[-1] > times(world, LinkDown)[-1]
        downs, ups = times(world, LinkDown), times(world, LinkUp)[1:]
        assert len(downs) == len(ups) == 3
        account = settled(world)
        assert account.unheard == 0
        assert world.counters[GATEWAY]["gateway_rekeys{begun}"] == 0  # silence is no reason to doubt the keys
        assert world.counters[GATEWAY]["dtls_peers_silent"] == 3
        assert handshakes(world) == 4


@BOTH
def test_a_gateway_that_was_killed_shakes_hands_anew(stack):
    with World(304, stack=stack, link=lossy()) as world:
        for _ in range(5):
            world.run(6)
            world.restart(GATEWAY, down=1.0)
        world.run(10)
        settled(world)
        assert handshakes(world, CLOUD) >= 6


@BOTH
def test_crashes_within_commits_and_a_link_that_is_cut(stack):
    with World(305, stack=stack, link=lossy(0.1)) as world:
        world.run(5)
        for number in range(6):
            world.kill_at(STORE_COMMIT if number % 2 else SPOOL_COMMIT, 4 + number, down=0.5)
            world.run(10)
            world.partition()
            world.run(3.0 + 10 * number)
            world.partition(up=True)
            world.run(10)
        settled(world)


@BOTH
def test_a_link_cut_for_long_is_no_reason_to_doubt_the_keys(stack):
    with World(306, stack=stack) as world:
        world.run(10)
        world.partition()
        world.run(240)
        world.partition(up=True)
        back = world.now
        world.run(60)
        assert back < times(world, LinkUp)[-1] < back + 45  # the longest delay of the uplink, and half of it at random
        account = settled(world)
        assert account.unheard == 0
        assert world.counters[GATEWAY]["gateway_rekeys{begun}"] == 0


@EVERY
def test_keys_rotated_at_both_ends(stack):
    with World(307, stack=stack, link=lossy()) as world:
        world.run(5)
        for number in range(3):
            before = handshakes(world, CLOUD)
            if number % 3:
                world.vault().rotate(identity=number % 3 == 1)
            else:
                enrolment.rotate(world.store.enrolment("lab"), GATEWAY_NAME)
            world.run(25)
            assert len(times(world, KeysRenewed)) == number + 1
            assert handshakes(world, CLOUD) > before  # fresh keys are used at once
        account = settled(world)
        assert account.unheard == 0
        assert not world.gaps()


@EVERY
def test_revocation_ends_the_association_and_refuses_the_handshake(stack):
    with World(308, stack=stack) as world:
        world.run(10)
        enrolment.revoke(world.store.enrolment("lab"), GATEWAY_NAME, world.network.wall(CLOUD)(), "lost on a bus")
        world.run(6)  # the cloud looks every few seconds
        assert world.counters[CLOUD]["dtls_associations_ended{local}"] == 1
        before, completed = world.account(), handshakes(world, CLOUD)
        world.run(60)
        during = world.account()
        assert during.stored == before.stored
        assert during.committed > before.committed + 120
        assert handshakes(world, CLOUD) == completed
        assert (
            world.counters[CLOUD].total("dtls_handshakes_failed") + world.counters[CLOUD]["dtls_discarded{hello}"] > 2
        )
        assert times(world, KeysRefused)
        world.restart(GATEWAY, down=1.0)
        world.restart(CLOUD, down=1.0)
        world.run(30)
        assert world.account().stored == before.stored
        world.stop_gateway()
        world.vault().revoke()
        world.enrol()
        world.start_gateway()
        world.run(10)
        settled(world)


@BOTH
def test_what_was_captured_is_worth_nothing_a_second_time(stack):
    with World(309, stack=stack) as world:
        captured = world.capture()
        world.run(20)
        stored = world.account().stored
        posts = world.counters[CLOUD].total("cloud_deliveries")
        with_devices_silent = [row for row in captured if row[1] == (GATEWAY, CLOUD)]
        world.partition()
        world.replay(with_devices_silent)
        assert world.counters[CLOUD].total("cloud_deliveries") == posts
        assert world.account().stored == stored
        world.partition(up=True)
        world.run(60)
        settled(world)


@BOTH
def test_deliveries_in_clear_and_alerts_of_strangers_change_nothing(stack):
    with World(310, stack=stack) as world:
        world.run(10)
        # CON POST /ingest with Content-Format 112 and an empty pack
        post = bytes.fromhex("41020001aab6") + b"ingest" + bytes.fromhex("1170ff80")
        world.inject(GATEWAY, CLOUD, post)
        fatal = bytes.fromhex("15fefd000000000000000000020228")
        world.inject(GATEWAY, CLOUD, fatal)
        world.inject(CLOUD, GATEWAY, fatal)
        world.run(10)
        assert world.counters[CLOUD]["cloud_deliveries{unprotected}"] == 1
        assert world.counters[CLOUD]["cloud_unprotected_deliveries"] == 0
        assert handshakes(world) == 1
        settled(world)


def test_another_version_is_refused_and_nothing_is_sent():
    with World(311, stack="coap-dtls13-rpk") as world:
        world.run(5)
        world.stop_gateway()
        before = world.account().stored
        world.stack = "coap-dtls12-rpk"
        world.start_gateway()
        captured = world.capture()
        world.run(60)
        assert world.account().stored == before
        assert captured
        assert {data[0] for _, _, data in captured} <= {21, 22, *range(64, 128)}  # handshakes, alerts, a try to rekey
        assert not any(b"ingest" in data for _, _, data in captured)
        world.stop_gateway()
        world.stack = "coap-dtls13-rpk"
        world.start_gateway()
        world.run(10)
        settled(world)


@BOTH
def test_one_seed_gives_one_history(stack):
    histories = set()
    for _ in range(2):
        with World(312, stack=stack, link=lossy()) as world:
            world.run(20)
            histories.add(settled(world).history)
    assert len(histories) == 1
