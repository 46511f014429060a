"""Which gateways the cloud knows under DTLS, and what it takes of them."""

import pytest

from vitalgate.cloud.dtlspeers import DtlsPeers
from vitalgate.cloud.enrolment import revoke
from vitalgate.cloud.enrolment_events import ContextAdded, ContextRemoved
from vitalgate.cloud.identity import CloudIdentity
from vitalgate.dtls.credentials import Mode, spki
from vitalgate.dtls.records import DTLS_1_2, DTLS_1_3
from vitalgate.gateway.dtlskeys import cloud_parameters, gateway_credentials, psk_identity, raw_public_key, session_psk
from vitalgate.gateway.identity import IdentityKey
from vitalgate.gateway.vault import GatewayVault, MemorySecrets, VaultError
from vitalgate.lab.world import CLOUD, GATEWAY, GATEWAY_NAME, World
from vitalgate.net.stacks import STACKS
from vitalgate.oscore.context import Parameters

ALL = tuple(row.slug for row in STACKS.values() if row.dtls is not None)
CLOUD_KEY = IdentityKey.create(lambda count: b"\x07" * count)
OLD, NEW = (IdentityKey.create(lambda count, fill=fill: fill * count) for fill in (b"\x01", b"\x02"))


def session(kid, secret=b"0123456789abcdef", salt=b"saltsalt"):
    """As the cloud holds it."""
    return Parameters(master_secret=secret, sender_id=b"", recipient_id=kid, master_salt=salt)


def added(kid, key, gateway="ward-3", **more):
    return ContextAdded(gateway, kid, None, session(kid, **more), key.public)


def removed(kid, gateway="ward-3"):
    return ContextRemoved(gateway, kid, None)


def test_the_psk_is_the_same_at_both_ends_and_another_for_every_session():
    ours, theirs = session(b"kid1"), session(b"kid1").reversed()
    assert session_psk(ours, b"kid1", "ward-3").key == session_psk(theirs, b"kid1", "cloud").key
    others = [
        session_psk(session(b"kid2"), b"kid2", ""),
        session_psk(session(b"kid1", secret=b"0123456789abcdeg"), b"kid1", ""),
        session_psk(session(b"kid1", salt=b"saltsalu"), b"kid1", ""),
    ]
    assert len({psk.key for psk in (session_psk(ours, b"kid1", ""), *others)}) == 4
    # HKDF-SHA-256 with a label that no info of OSCORE can equal: that is a CBOR array.
    expected = bytes.fromhex("789bb8a6c316b0747cb053099bfd74ba479fdacb1226695759ff42435fc4dd06")
    assert session_psk(ours, b"kid1", "").key == expected
    assert session_psk(ours, b"kid1", "").identity == b"6b696431"
    assert b"0123456789abcdef" not in repr(session_psk(ours, b"kid1", "")).encode()


def test_credentials_follow_sessions():
    peers = DtlsPeers(CloudIdentity(CLOUD_KEY), ALL)
    psks, pins = peers.credentials.psks, peers.credentials.pins
    assert peers.apply(added(b"1111", OLD)) == ""
    assert pins.name(raw_public_key(OLD.public)) == "ward-3"
    assert psks.find(psk_identity(b"1111")).peer.name == "ward-3"
    # A rekey that rotates the identity: both are known until the former session retires.
    assert peers.apply(added(b"2222", NEW)) == ""
    assert peers.apply(removed(b"1111")) == ""
    assert pins.name(raw_public_key(OLD.public)) is None
    assert pins.name(raw_public_key(NEW.public)) == "ward-3"
    assert psks.find(psk_identity(b"1111")) is None
    # A rekey that does not: the key stays in service.
    peers.apply(added(b"3333", NEW))
    assert peers.apply(removed(b"2222")) == ""
    assert pins.name(raw_public_key(NEW.public)) == "ward-3"
    peers.apply(added(b"4444", OLD, "ward-4"))
    assert peers.apply(removed(b"3333")) == "ward-3"  # its associations have to end
    assert pins.name(raw_public_key(NEW.public)) is None
    assert len(psks) == 1
    assert peers.apply(removed(b"4444", "ward-4")) == "ward-4"


@pytest.mark.parametrize("stack", ALL)
def test_only_what_is_accepted_is_offered(stack):
    credentials = DtlsPeers(CloudIdentity(CLOUD_KEY), (stack,)).credentials
    dtls = STACKS[stack].dtls
    assert (credentials.psks is not None) == (dtls.mode is Mode.PSK)
    assert (credentials.pins is not None) == (credentials.own is not None) == (dtls.mode is Mode.RPK)
    assert cloud_parameters((stack,)).versions == (dtls.version,)
    assert cloud_parameters(ALL).versions == (DTLS_1_3, DTLS_1_2)
    if credentials.own is not None:
        assert spki(CLOUD_KEY.private) == credentials.own.spki == raw_public_key(CLOUD_KEY.public)


def test_a_gateway_without_enrolment_has_nothing_to_show():
    with pytest.raises(VaultError):
        gateway_credentials(GatewayVault(MemorySecrets(), MemorySecrets()), Mode.RPK)


def accepting(stacks, **more):
    """A world whose cloud takes all ``stacks``; the first is the gateway's."""
    world = World(401, stack=stacks[0], kinds=("nonin",), **more)
    world.run(5)
    world.stacks = stacks
    world.restart(CLOUD)
    return world


def test_a_cloud_takes_several_stacks_and_says_of_each_gateway_which():
    with accepting(("coap-dtls13-rpk", "coap-dtls12-psk", "coap-oscore")) as world:
        for stack in ("coap-dtls13-rpk", "coap-dtls12-psk", "coap-oscore"):
            world.stop_gateway()
            world.stack = stack
            world.start_gateway()
            world.run(20)
            (gateway,) = world.store.read.gateways()
            assert (gateway.name, gateway.security) == (GATEWAY_NAME, stack)
        world.finish()
        assert world.account().lost == world.account().duplicated == 0


def test_a_version_and_a_mode_that_nobody_listed_together_are_refused():
    with accepting(("coap-dtls13-rpk", "coap-dtls12-psk")) as world:
        world.run(10)
        world.stop_gateway()
        world.stack = "coap-dtls12-rpk"
        world.start_gateway()
        before = world.account().stored
        world.run(30)
        assert world.counters[GATEWAY].total("dtls_handshakes_completed") > 1  # the handshake alone cannot tell
        assert world.counters[CLOUD]["cloud_deliveries{unprotected}"] > 0
        assert world.account().stored == before
        assert world.account().committed > before


def test_an_end_of_all_sessions_names_the_gateway_once():
    with World(402, stack="coap-dtls13-psk", kinds=("nonin",)) as world:
        world.run(10)
        revoke(world.store.enrolment("lab"), GATEWAY_NAME, world.network.wall(CLOUD)())
        world.run(30)
        assert world.counters[CLOUD]["dtls_associations_ended{local}"] == 1
