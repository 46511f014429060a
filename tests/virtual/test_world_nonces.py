"""No key ever meets the same nonce twice, whatever is killed, deleted or put back; replays change nothing."""

import random
from collections import Counter

import pytest
from worldkit import lossy, settled

from vitalgate.cloud.store import keys as store_keys
from vitalgate.coap.codec import decode
from vitalgate.coap.options import Option
from vitalgate.gateway import sealing
from vitalgate.lab.recorded import POINTS
from vitalgate.lab.world import CLOUD, GATEWAY, SPOOL, World
from vitalgate.oscore import algorithms
from vitalgate.oscore.option import decode as decode_option


@pytest.fixture
def sealed(monkeypatch):
    """Every (algorithm, key, nonce) that anything was encrypted under, with how often; encryption itself is real."""
    seen: Counter[tuple[str, bytes, bytes]] = Counter()

    def watched(cipher):
        class Watched:
            def __init__(self, key, *args):
                self._name, self._key, self._real = cipher.__name__, bytes(key), cipher(key, *args)

            def encrypt(self, nonce, data, aad):
                seen[self._name, self._key, bytes(nonce)] += 1
                return self._real.encrypt(nonce, data, aad)

            def decrypt(self, nonce, data, aad):
                return self._real.decrypt(nonce, data, aad)

        return Watched

    monkeypatch.setattr(algorithms, "AESCCM", watched(algorithms.AESCCM))
    monkeypatch.setattr(sealing, "AESGCM", watched(sealing.AESGCM))
    monkeypatch.setattr(store_keys, "AESGCM", watched(store_keys.AESGCM))
    return seen


def partial_ivs(captured):
    """By (sender, kid, partial IV): the different ciphertexts that were sent under it."""
    found = {}
    for _, (source, _), data in captured:
        message = decode(data)
        option = message.option(Option.OSCORE)
        if option:
            header = decode_option(option)
            if header.piv:
                found.setdefault((source, header.kid, header.piv), set()).add(message.payload)
    return found


def test_no_nonce_is_used_twice_under_a_key_whatever_happens(sealed):
    chance = random.Random(61)
    with World(61, link=lossy(0.05, duplicate=0.02)) as world:
        captured = world.capture()
        old = world.backup(GATEWAY), world.backup(CLOUD)
        for point in POINTS * 2:
            world.kill_at(point, chance.randrange(1, 12), down=0.3)
            world.run(6)
        world.kill(GATEWAY)
        world.delete(GATEWAY, f"{SPOOL}*")
        world.start_gateway()
        world.run(6)
        for _ in range(3):  # as each start of a process draws on the same backup
            world.kill(GATEWAY)
            world.restore(GATEWAY, old[0])
            world.start_gateway()
            world.run(5)
        for _ in range(3):
            world.kill(CLOUD)
            world.restore(CLOUD, old[1])  # and the cloud with all it knew of today: it stores the rest once more
            world.start_cloud()
            world.run(5)
        world.vault().rotate()
        world.run(15)
        world.finish()
        world.restart(CLOUD)
        assert [use for use, count in sealed.items() if count > 1] == []
        under = Counter(name for name, _, _ in sealed)
        assert under["AESCCM"] > 500  # OSCORE, both ways
        assert under["AESGCM"] > 1500  # spool, store, key stores
        assert len({key for name, key, _ in sealed if name == "AESCCM"}) >= 4
        assert len({key for name, key, _ in sealed if name == "AESGCM"}) > 20
        sent = partial_ivs(captured)
        assert len(sent) > 300
        assert [use for use, texts in sent.items() if len(texts) > 1] == []


def content(world):
    """Everything of the store that a delivery could change."""
    read = world.store.read
    rows = [
        (entry.device, entry.epoch, entry.sequence, entry.frame_hash, entry.received_at, entry.observations)
        for device in world.devices
        for entry in read.between(device.urn, -1e12, 1e12, 1_000_000)
    ]
    return rows, read.totals(), read.accounts(), read.gaps(limit=1000), read.gateways(), read.devices()


@pytest.mark.parametrize("point", ["store commit", "store committed"])
def test_after_a_cloud_crash_replaying_all_that_was_captured_changes_nothing(point):
    with World(62, link=lossy()) as world:
        captured = world.capture()
        world.run(8)
        world.kill_at(point, 9, down=1.0)
        world.run(12)
        world.restart(CLOUD)
        world.run(6)
        settled(world)
        before, seen = content(world), list(captured)
        # To a cloud that just started again and has heard nothing yet: its replay window is gone.
        world.restart(CLOUD)
        verified = world.counters[CLOUD]["oscore_requests_verified"]
        world.replay(seen)
        assert content(world) == before
        assert world.counters[CLOUD]["oscore_requests_verified"] == verified
        assert world.counters[CLOUD]["oscore_challenges"] > 0
        # To one that the gateway has spoken with since.
        world.restart(GATEWAY)
        world.run(5)
        settled(world)
        before = content(world)
        refused = world.counters[CLOUD]["oscore_requests_refused{replay}"]
        world.replay(seen)
        assert content(world) == before
        assert world.counters[CLOUD]["oscore_requests_refused{replay}"] > refused
        settled(world)


def test_replays_among_the_traffic_change_nothing():
    with World(63, link=lossy()) as world:
        captured = world.capture()
        world.run(10)
        seen = list(captured)
        for number in range(5):
            world.replay(seen[number::5], every=0.02)
            if number == 2:
                world.restart(CLOUD, down=0.2)
        world.run(5)
        account = settled(world)
        assert account.unheard == 0
        assert not world.gaps()
