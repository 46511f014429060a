"""The exchange between gateway and cloud, message by message, and everything that can be done to it on the way."""

import itertools
from dataclasses import replace

import pytest
from enrolment_world import World

from vitalgate.cloud.enrolment import (
    MAX_CODE_FAILURES,
    EnrolmentError,
    KeyState,
    create_code,
    list_keys,
)
from vitalgate.cloud.enrolment_events import GatewayEnrolled
from vitalgate.cloud.enrolment_service import EnrolmentLimits
from vitalgate.cloud.identity import CloudIdentity, load_cloud_identity, rotate_cloud_identity
from vitalgate.coap.message import Code
from vitalgate.gateway import handshake
from vitalgate.gateway.code import EnrolmentCode
from vitalgate.gateway.exchange import begin_enrolment
from vitalgate.gateway.handshake import ENROL, REKEY, HandshakeError
from vitalgate.gateway.identity import IdentityKey, fingerprint_text
from vitalgate.gateway.vault import MemorySecrets


def outcomes(world):
    prefix = "cloud_enrolment_messages{"
    return {key[len(prefix) : -1]: n for key, n in world.service.counters.items() if key.startswith(prefix)}


UNBOUNDED = EnrolmentLimits(messages_rate=1e6, messages_burst=1e6, address_rate=1e6, address_burst=1e6)


def flip(data, at, bit=1):
    changed = bytearray(data)
    changed[at] ^= bit
    return bytes(changed)


def test_enrolment_gives_both_sides_the_same_keys():
    world = World()
    gateway = world.gateway()
    code = world.code(gateway="ward-3")
    established = world.run(gateway.begin_enrolment(code))
    context = gateway.adopt(established)
    assert established.gateway == "ward-3"
    assert established.cloud == world.identity.key.public
    assert len(established.rekey_key) == 32
    (stored,) = world.store.contexts()
    assert stored.keys == established.keys.reversed()
    assert stored.kid == established.keys.sender_id == stored.keys.recipient_id
    assert world.accepts(context)
    (identity,) = world.store.identities()
    assert (identity.public, identity.state) == (gateway.vault.identity().public, KeyState.ACTIVE)
    assert world.store.codes()[0].state(world.wall) is KeyState.USED
    enrolled = [event for event in world.events if isinstance(event, GatewayEnrolled)]
    assert [(e.gateway, e.replaced) for e in enrolled] == [("ward-3", "")]


def test_the_private_key_never_leaves_and_nothing_secret_is_sent():
    world = World()
    gateway, _ = world.enrolled()
    world.run(gateway.begin_rekey())
    sent = b"".join(payload + response.payload for _, payload, response in world.trace)
    contexts = world.store.contexts()
    secrets = [
        gateway.vault.identity().to_bytes(),
        world.identity.key.to_bytes(),
        gateway.vault.enrolment().rekey_key,
        world.store.codes()[0].key,
        *[c.keys.master_secret for c in contexts],
        *[c.keys.master_salt for c in contexts],
    ]
    shown = repr((world.snapshot(), gateway.vault.session(), gateway.vault.enrolment(), gateway.vault.identity()))
    shown += repr((world.events, list_keys(world.store, world.wall), gateway.vault.list_keys(), world.identity))
    for secret in secrets:
        assert secret not in sent
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown


def test_no_answer_is_larger_than_three_times_its_request():
    world = World()
    secrets = MemorySecrets()
    world.identity = load_cloud_identity(secrets)
    world.start_cloud()
    gateway, _ = world.enrolled(gateway="g" * 32)
    world.identity = rotate_cloud_identity(secrets)  # the offer carries a succession
    world.start_cloud()
    world.run(gateway.begin_rekey())
    assert world.post(REKEY, b"").code == Code.BAD_REQUEST
    ratios = [len(response.payload) / max(len(payload), 1) for _, payload, response in world.trace]
    assert len(ratios) == 5
    assert max(ratios) < 2.9
    assert max(len(response.payload) for *_, response in world.trace) < 640


def test_the_same_message_again_gives_the_same_answer_and_changes_nothing():
    world = World()
    gateway = world.gateway()
    exchange = gateway.begin_enrolment(world.code())
    offers = {world.post(ENROL, exchange.hello).payload for _ in range(3)}
    assert len(offers) == 1
    confirm = exchange.confirm(offers.pop())
    done = world.post(ENROL, confirm)
    before = world.snapshot()
    for _ in range(3):
        assert world.post(ENROL, confirm).payload == done.payload
    assert world.snapshot() == before
    assert len([e for e in world.events if isinstance(e, GatewayEnrolled)]) == 1
    assert exchange.finish(done.payload).keys.reversed() == world.store.contexts()[0].keys


def test_every_truncated_message_is_refused_and_changes_nothing():
    world = World(limits=UNBOUNDED)
    gateway = world.gateway()
    exchange = gateway.begin_enrolment(world.code())
    offer = world.post(ENROL, exchange.hello).payload
    confirm = exchange.confirm(offer)
    before = world.snapshot()
    for kind, message in itertools.product((ENROL, REKEY), (exchange.hello, confirm)):
        for length in range(len(message)):
            assert world.post(kind, message[:length]).code == Code.BAD_REQUEST
    assert world.snapshot() == before
    for length in range(len(offer)):
        with pytest.raises(HandshakeError):
            exchange.confirm(offer[:length])


@pytest.mark.parametrize("kind", [ENROL, REKEY])
def test_every_flipped_byte_is_refused_and_changes_nothing(kind):
    world = World(limits=UNBOUNDED)
    if kind == ENROL:
        gateway = world.gateway()
        exchange = gateway.begin_enrolment(world.code())
    else:
        gateway, _ = world.enrolled()
        exchange = gateway.begin_rekey()
    before = world.snapshot()
    for at in range(len(exchange.hello)):
        response = world.post(kind, flip(exchange.hello, at, 0x40))
        assert response.code in (Code.BAD_REQUEST, Code.UNAUTHORIZED, Code.FORBIDDEN)
        if kind == ENROL:  # only the failures of the named code may have been counted
            (code,) = world.store.codes()
            world.store.put_code(replace(code, failures=0))
    assert world.snapshot() == before
    offer = world.post(kind, exchange.hello).payload
    for at in range(len(offer)):
        with pytest.raises(HandshakeError):
            exchange.confirm(flip(offer, at))
    confirm = exchange.confirm(offer)
    for at in range(len(confirm)):
        assert world.post(kind, flip(confirm, at)).code in (Code.BAD_REQUEST, Code.UNAUTHORIZED)
    assert world.snapshot() == before
    done = world.post(kind, confirm).payload
    for at in range(len(done)):
        with pytest.raises(HandshakeError):
            exchange.finish(flip(done, at))
    exchange.finish(done)


def test_messages_out_of_order():
    world = World()
    gateway = world.gateway()
    first, second = gateway.begin_enrolment(world.code()), gateway.begin_enrolment(world.code())
    offer, other = world.post(ENROL, first.hello).payload, world.post(ENROL, second.hello).payload
    with pytest.raises(HandshakeError):
        first.finish(offer)
    with pytest.raises(HandshakeError):
        first.confirm(other)  # the answer to another hello
    confirm = first.confirm(offer)
    assert world.post(REKEY, confirm).code == Code.UNAUTHORIZED  # to the wrong resource
    assert world.post(ENROL, offer).code == Code.BAD_REQUEST  # reflected
    done = world.post(ENROL, confirm).payload
    with pytest.raises(HandshakeError):
        second.finish(done)
    assert first.finish(done).gateway == world.store.contexts()[0].gateway


def test_wrong_code_and_unknown_code_get_the_same_small_answer_and_leave_nothing():
    world = World()
    code = EnrolmentCode.from_text(world.code().text)
    before = world.snapshot()
    identity = IdentityKey.create()
    unknown = world.post(ENROL, begin_enrolment(identity, EnrolmentCode(b"other", code.secret)).hello)
    assert world.snapshot() == before
    wrong = world.post(ENROL, begin_enrolment(identity, replace(code, secret=bytes(17))).hello)
    for answer in (unknown, wrong):
        assert (answer.code, answer.payload, answer.options) == (Code.UNAUTHORIZED, b"", ())
    assert not world.service._offers
    (record,) = world.store.codes()
    assert record.failures == 1
    assert outcomes(world)["unproven"] == 2


def test_guessing_locks_the_code_for_good():
    world = World(limits=UNBOUNDED)
    code = world.code()
    right = EnrolmentCode.from_text(code.text)
    identity = IdentityKey.create()
    for guess in range(MAX_CODE_FAILURES):
        assert world.store.codes()[0].state(world.wall) is KeyState.ACTIVE
        world.post(ENROL, begin_enrolment(identity, replace(right, secret=guess.to_bytes(17, "big"))).hello)
    assert world.store.codes()[0].state(world.wall) is KeyState.LOCKED
    before = world.snapshot()
    for guess in range(50):
        world.post(ENROL, begin_enrolment(identity, replace(right, secret=guess.to_bytes(17, "big"))).hello)
    assert world.snapshot() == before  # and counts no further
    answer = world.post(ENROL, begin_enrolment(identity, right).hello)
    assert (answer.code, outcomes(world)["code-locked"]) == (Code.FORBIDDEN, 1)


def test_expired_code():
    world = World()
    gateway = world.gateway()
    code = world.code(life=60)
    started = gateway.begin_enrolment(code)
    offer = world.post(ENROL, started.hello)
    world.pass_time(60)
    late = world.post(ENROL, gateway.begin_enrolment(code).hello)
    assert (late.code, late.payload) == (Code.FORBIDDEN, b"the code has expired")
    assert world.post(ENROL, started.confirm(offer.payload)).code == Code.FORBIDDEN
    assert not world.store.identities()
    world.pass_time(86401)
    create_code(world.store, world.wall)
    assert len(world.store.codes()) == 1  # the old one is forgotten with its key
    assert world.post(ENROL, gateway.begin_enrolment(code).hello).code == Code.UNAUTHORIZED


def test_used_code_serves_its_user_again_and_nobody_else():
    world = World()
    gateway, thief = world.gateway(), world.gateway()
    code = world.code(gateway="ward-3")
    first = gateway.adopt(world.run(gateway.begin_enrolment(code)))
    before = world.snapshot()
    answer = world.post(ENROL, thief.begin_enrolment(code).hello)
    assert (answer.code, answer.payload) == (Code.CONFLICT, b"the code was used by another gateway")
    assert world.snapshot() == before
    again = gateway.adopt(world.run(gateway.begin_enrolment(code)))
    assert world.accepts(again)
    assert world.accepts(first)  # until it retires
    assert len(world.store.identities()) == 1
    world.pass_time(16 * 60)
    assert world.post(ENROL, gateway.begin_enrolment(code).hello).code == Code.FORBIDDEN


def test_two_gateways_with_one_code_at_once_one_wins():
    world = World()
    code = world.code()
    gateways = [world.gateway(), world.gateway()]
    exchanges = [gateway.begin_enrolment(code) for gateway in gateways]
    offers = [world.post(ENROL, exchange.hello).payload for exchange in exchanges]
    confirms = [exchange.confirm(offer) for exchange, offer in zip(exchanges, offers, strict=True)]
    answers = [world.post(ENROL, confirm) for confirm in reversed(confirms)]
    assert [answer.code for answer in answers] == [Code.CHANGED, Code.CONFLICT]
    assert len(world.store.identities()) == len(world.store.contexts()) == 1


def test_two_gateways_with_two_codes_interleaved():
    world = World()
    gateways = [world.gateway(), world.gateway()]
    exchanges = [gateway.begin_enrolment(world.code()) for gateway in gateways]
    offers = [world.post(ENROL, exchange.hello).payload for exchange in exchanges]
    done = [world.post(ENROL, e.confirm(o)).payload for e, o in zip(exchanges, offers, strict=True)]
    contexts = [g.adopt(e.finish(d)) for g, e, d in zip(gateways, exchanges, done, strict=True)]
    assert all(world.accepts(context) for context in contexts)
    assert len({context.sender.kid for context in contexts}) == 2
    assert len({record.gateway for record in world.store.identities()}) == 2


def test_names():
    world = World()
    gateway, _ = world.enrolled(gateway="ward-3")
    with pytest.raises(EnrolmentError):
        world.code(gateway="ward-3")
    with pytest.raises(EnrolmentError):
        world.code(gateway="No Such Name")
    code, same = world.code(gateway="bed-1"), world.code(gateway="bed-1")
    world.run(world.gateway().begin_enrolment(code))
    answer = world.post(ENROL, world.gateway().begin_enrolment(same).hello)
    assert (answer.code, answer.payload) == (Code.CONFLICT, b"a gateway of this name is enrolled")
    # an enrolled gateway is not renamed by a code that was made for another
    assert world.post(ENROL, gateway.begin_enrolment(world.code(gateway="bed-2")).hello).code == Code.CONFLICT


def test_a_replacing_code_ends_the_former_key_at_once():
    world = World()
    old, old_context = world.enrolled(gateway="ward-3")
    new = world.gateway()
    context = new.adopt(world.run(new.begin_enrolment(world.code(gateway="ward-3", replaces=True))))
    assert world.accepts(context)
    assert not world.accepts(old_context)
    assert old_context.sender.kid not in world.store.context_kids()
    states = {record.public: record.state for record in world.store.identities()}
    assert states == {old.vault.identity().public: KeyState.REPLACED, new.vault.identity().public: KeyState.ACTIVE}
    assert world.post(REKEY, old.begin_rekey().hello).code == Code.FORBIDDEN
    enrolled = [event for event in world.events if isinstance(event, GatewayEnrolled)]
    assert enrolled[-1].replaced == fingerprint_text(old.vault.identity().public)


def test_man_in_the_middle_without_the_code():
    world, mallory = World(), World()
    mallory.identity = CloudIdentity(IdentityKey.create())
    mallory.start_cloud()
    gateway = world.gateway()
    code = world.code()
    exchange = gateway.begin_enrolment(code)
    # Mallory plays the cloud with a code of her own under the same identifier: her key does not match.
    own = EnrolmentCode(EnrolmentCode.from_text(code.text).code_id, bytes(17))
    record = world.store.codes()[0]
    mallory.store.put_code(replace(record, key=own.key()))
    assert mallory.post(ENROL, exchange.hello).code == Code.UNAUTHORIZED
    # She puts her identity, ephemeral key or name into the real offer: the offer no longer verifies.
    offer = world.post(ENROL, exchange.hello).payload
    body, signature, mac, ticket = handshake.read_array(handshake.OFFER_LAYOUT, offer)
    _, _, identity, ephemeral, nonce, name, kid, succession = handshake.read_array(handshake.OFFER_BODY, body)
    hers = mallory.identity.key
    first = handshake.first_transcript(exchange.hello)
    for forged in (
        (hers.public, ephemeral, nonce, name.decode(), kid, succession),
        (identity, bytes([9]) + bytes(31), nonce, name.decode(), kid, succession),
        (identity, ephemeral, nonce, "gw-mallory", kid, succession),
        (hers.public, bytes([9]) + bytes(31), nonce, name.decode(), b"mine", succession),
    ):
        body = handshake.encode(1, handshake.OFFER, *forged)
        signature = hers.sign(handshake.offer_signed(first, body))
        with pytest.raises(HandshakeError):
            exchange.confirm(handshake.encode(body, signature, mac, ticket))
    assert not mallory.store.identities()
    # Carrying the messages faithfully gives her a gateway and a cloud that agree, and no key.
    assert exchange.finish(world.post(ENROL, exchange.confirm(offer)).payload).cloud == identity


def test_a_hello_cannot_be_given_another_identity():
    world = World()
    gateway, mallory = world.gateway(), IdentityKey.create()
    exchange = gateway.begin_enrolment(world.code())
    body, signature, mac = handshake.read_array(handshake.HELLO_LAYOUT, exchange.hello)
    swapped = body.replace(gateway.vault.identity().public, mallory.public)
    assert swapped != body
    signature = mallory.sign(handshake.parts(handshake.SIGN_HELLO, swapped))
    assert world.post(ENROL, handshake.encode(swapped, signature, mac)).code == Code.UNAUTHORIZED


def test_a_hello_needs_the_identity_key_not_only_the_code():
    world = World()
    victim = world.gateway().vault.identity()
    code = EnrolmentCode.from_text(world.code().text)
    exchange = begin_enrolment(IdentityKey.create(), code)
    body, *_ = handshake.read_array(handshake.HELLO_LAYOUT, exchange.hello)
    _, _, code_id, _, ephemeral, nonce = handshake.read_array(handshake.ENROL_BODY, body)
    body = handshake.encode(1, ENROL, code_id, victim.public, ephemeral, nonce)
    signature = IdentityKey.create().sign(handshake.parts(handshake.SIGN_HELLO, body))
    answer = world.post(ENROL, handshake.encode(body, signature, handshake.hello_mac(code.key(), body, signature)))
    assert answer.code == Code.UNAUTHORIZED
    assert not world.service._offers
