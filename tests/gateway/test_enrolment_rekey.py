"""Rekey, rotation and revocation, limits and faults of the cloud's side."""

import itertools
import random
from contextlib import contextmanager
from dataclasses import replace

import pytest
from enrolment_world import World
from hypothesis import given, settings
from hypothesis import strategies as st

from vitalgate.cloud.enrolment import (
    MAX_CODES,
    EnrolmentError,
    KeyState,
    MemoryEnrolmentStore,
    list_keys,
    revoke,
    rotate,
)
from vitalgate.cloud.enrolment_events import ContextAdded, ContextRemoved, GatewayRekeyed
from vitalgate.cloud.identity import CloudIdentity, load_cloud_identity, rotate_cloud_identity
from vitalgate.cloud.store.errors import Reason, StoreUnavailable
from vitalgate.cloud.tickets import Ticket, TicketBox
from vitalgate.coap.message import Code
from vitalgate.gateway import handshake
from vitalgate.gateway.code import EnrolmentCode
from vitalgate.gateway.exchange import begin_enrolment, begin_rekey
from vitalgate.gateway.handshake import ENROL, REKEY, HandshakeError
from vitalgate.gateway.identity import IdentityKey, thumbprint
from vitalgate.gateway.vault import MemorySecrets
from vitalgate.oscore.errors import SequenceError
from vitalgate.oscore.sequence import MemorySequenceStore


def outcomes(world):
    prefix = "cloud_enrolment_messages{"
    return {key[len(prefix) : -1]: n for key, n in world.service.counters.items() if key.startswith(prefix)}


def test_rekey_makes_new_keys_and_the_old_ones_retire():
    world = World()
    gateway, old = world.enrolled()
    new = gateway.adopt(world.run(gateway.begin_rekey()))
    assert old.record != new.record
    assert old.sender.kid != new.sender.kid
    assert world.accepts(new)
    assert world.accepts(old)
    assert isinstance(world.events[-1], GatewayRekeyed)
    world.pass_time(world.limits.retire_after - 1)
    assert world.accepts(old)
    world.pass_time(world.limits.refresh_every)
    assert not world.accepts(old)
    assert world.accepts(new)
    assert world.store.context_kids() == {new.sender.kid}


def test_many_rekeys_keep_two_contexts_at_most():
    world = World()
    gateway, context = world.enrolled()
    for _ in range(10):
        context = gateway.adopt(world.run(gateway.begin_rekey()))
        assert len(world.store.contexts()) == len(world.contexts) == 2
    assert world.accepts(context)
    assert len(world.sequences._ends) == 2
    assert len(gateway.sequences._ends) == 1


def test_a_replayed_rekey_disturbs_nothing():
    world = World()
    gateway, _ = world.enrolled()
    gateway.adopt(world.run(gateway.begin_rekey()))
    context = gateway.adopt(world.run(gateway.begin_rekey()))
    old = [(kind, payload) for kind, payload, _ in world.trace]
    before = world.snapshot()
    for world_restarts in (False, True):
        if world_restarts:
            world.start_cloud()
        for kind, payload in old:
            world.post(kind, payload)
            world.pass_time(1)
        assert world.snapshot() == before
        assert world.accepts(context)


def test_a_replayed_confirm_of_an_earlier_exchange_is_worthless():
    world = World()
    gateway, _ = world.enrolled()
    first = gateway.begin_rekey()
    confirm = first.confirm(world.post(REKEY, first.hello).payload)
    world.post(REKEY, confirm)
    gateway.adopt(world.run(gateway.begin_rekey()))
    assert world.post(REKEY, confirm).code == Code.UNAUTHORIZED
    # and so is one that was made but overtaken
    slow, fast = gateway.begin_rekey(), gateway.begin_rekey()
    late = slow.confirm(world.post(REKEY, slow.hello).payload)
    world.run(fast)
    before = world.snapshot()
    assert world.post(REKEY, late).code == Code.UNAUTHORIZED
    assert world.snapshot() == before


def test_rekey_with_a_wrong_cloud_key():
    world = World()
    gateway, _ = world.enrolled()
    imposter = IdentityKey.create()
    genuine = world.identity
    world.identity = CloudIdentity(imposter)  # same store, another identity key
    world.start_cloud()
    answer = world.post(REKEY, gateway.begin_rekey().hello)
    assert (answer.code, answer.payload) == (Code.FORBIDDEN, b"enrolled with another cloud key")
    # even one that has stolen the rekey key and claims the pinned key's name is found out
    world.identity = CloudIdentity(imposter, genuine.key.public, imposter.sign(b"anything"))
    world.start_cloud()
    exchange = gateway.begin_rekey()
    offer = world.post(REKEY, exchange.hello)
    assert offer.code == Code.CHANGED
    with pytest.raises(HandshakeError):
        exchange.confirm(offer.payload)


def test_rekey_needs_both_identity_and_rekey_key():
    world = World()
    gateway, _ = world.enrolled()
    enrolment = gateway.vault.enrolment()
    before = world.snapshot()
    thief = begin_rekey(gateway.vault.identity(), replace(enrolment, rekey_key=bytes(32)))
    assert world.post(REKEY, thief.hello).code == Code.UNAUTHORIZED
    stranger = begin_rekey(IdentityKey.create(), enrolment)
    assert world.post(REKEY, stranger.hello).code == Code.UNAUTHORIZED
    body, *_ = handshake.read_array(handshake.HELLO_LAYOUT, gateway.begin_rekey().hello)
    signature = IdentityKey.create().sign(handshake.parts(handshake.SIGN_HELLO, body))
    mac = handshake.hello_mac(enrolment.rekey_key, body, signature)
    assert world.post(REKEY, handshake.encode(body, signature, mac)).code == Code.UNAUTHORIZED
    assert world.snapshot() == before
    assert not [k for k in world.service._offers if k[1] > 0]


def test_identity_rotation():
    world = World()
    gateway, _ = world.enrolled(gateway="ward-3")
    gateway.vault.rotate(identity=True)
    following = gateway.vault.next_identity()
    former = gateway.vault.identity()
    context = gateway.adopt(world.run(gateway.begin_rekey(next_identity=following)))
    assert gateway.vault.identity().public == following.public
    assert gateway.vault.next_identity() is None
    assert world.accepts(context)
    states = {record.public: record.state for record in world.store.identities()}
    assert states == {former.public: KeyState.REPLACED, following.public: KeyState.ACTIVE}
    assert world.store.active_identity("ward-3").thumbprint == following.thumbprint
    enrolment = gateway.vault.enrolment()
    assert world.post(REKEY, begin_rekey(former, enrolment).hello).code == Code.FORBIDDEN
    assert world.accepts(gateway.adopt(world.run(gateway.begin_rekey())))
    # a key that was retired does not come back, neither by rotation nor by a code
    assert world.post(REKEY, gateway.begin_rekey(next_identity=former).hello).code == Code.FORBIDDEN
    code = EnrolmentCode.from_text(world.code().text)
    assert world.post(ENROL, begin_enrolment(former, code).hello).code == Code.FORBIDDEN


def test_rotation_needs_the_next_keys_own_signature():
    world = World()
    gateway, _ = world.enrolled()
    enrolment, identity = gateway.vault.enrolment(), gateway.vault.identity()
    exchange = gateway.begin_rekey(next_identity=IdentityKey.create())
    body, *_ = handshake.read_array(handshake.HELLO_LAYOUT, exchange.hello)
    elements = handshake.read_array(handshake.REKEY_BODY, body)[2:]
    for index, value in ((4, IdentityKey.create().public), (5, bytes(64))):
        changed = [*elements]
        changed[index] = value
        body = handshake.encode(1, REKEY, *changed)
        signature = identity.sign(handshake.parts(handshake.SIGN_HELLO, body))
        hello = handshake.encode(body, signature, handshake.hello_mac(enrolment.rekey_key, body, signature))
        assert world.post(REKEY, hello).code == Code.UNAUTHORIZED


def test_the_cloud_key_rotates_one_step():
    world, secrets = World(), MemorySecrets()
    world.identity = load_cloud_identity(secrets)
    assert load_cloud_identity(secrets).key.public == world.identity.key.public
    world.start_cloud()
    attentive, absent = world.enrolled()[0], world.enrolled()[0]
    for _ in range(2):
        world.identity = rotate_cloud_identity(secrets)
        world.start_cloud()
        established = world.run(attentive.begin_rekey())
        attentive.adopt(established)
        assert attentive.vault.enrolment().cloud == established.cloud == world.identity.key.public
        assert load_cloud_identity(secrets).former == world.identity.former
    assert world.post(REKEY, absent.begin_rekey().hello).code == Code.FORBIDDEN
    absent.adopt(world.run(absent.begin_enrolment(world.code())))
    assert world.accepts(absent.adopt(world.run(absent.begin_rekey())))


# --- administration -----------------------------------------------------------------------------------------------


def test_revocation_is_final_and_quick():
    world = World()
    gateway, context = world.enrolled(gateway="ward-3")
    started = gateway.begin_rekey()
    confirm = started.confirm(world.post(REKEY, started.hello).payload)
    ended = revoke(world.store, "ward-3", world.wall, "stolen")
    assert [(entry.kind, entry.state) for entry in ended] == [("identity", "revoked"), ("session", "ended")]
    world.pass_time(world.limits.refresh_every)
    assert not world.accepts(context)
    assert isinstance(world.events[-1], ContextRemoved)
    assert world.post(REKEY, confirm).code == Code.FORBIDDEN
    assert world.post(REKEY, gateway.begin_rekey().hello).code == Code.FORBIDDEN
    assert world.post(ENROL, gateway.begin_enrolment(world.code()).hello).code == Code.FORBIDDEN
    assert not world.store.contexts()
    entry = next(entry for entry in list_keys(world.store, world.wall) if entry.kind == "identity")
    assert (entry.state, entry.reason) == ("revoked", "stolen")
    gateway.vault.revoke(gateway.sequences)
    assert gateway.vault.list_keys() == []
    assert not gateway.sequences._ends
    again = gateway.adopt(world.run(gateway.begin_enrolment(world.code(gateway="ward-3"))))  # with a new key
    assert world.accepts(again)


def test_codes_are_bounded_listed_and_revoked():
    world = World()
    codes = [world.code() for _ in range(MAX_CODES)]
    with pytest.raises(EnrolmentError):
        world.code()
    with pytest.raises(EnrolmentError):
        world.code(life=0)
    with pytest.raises(EnrolmentError):
        revoke(world.store, "no-such", world.wall)
    assert revoke(world.store, codes[0].code_id.lower(), world.wall)[0].state == "revoked"
    assert world.post(ENROL, world.gateway().begin_enrolment(codes[0]).hello).code == Code.UNAUTHORIZED
    world.code()
    entries = list_keys(world.store, world.wall)
    assert {entry.kind for entry in entries} == {"code"}
    assert len(entries) == MAX_CODES
    for code in codes:
        assert code.text not in repr(code)
        assert code.text[9:] not in repr(entries)


def test_cloud_side_rotation_ends_the_session_so_that_the_gateway_makes_a_new_one():
    world = World()
    gateway, context = world.enrolled(gateway="ward-3")
    assert [entry.kind for entry in rotate(world.store, "ward-3")] == ["session"]
    with pytest.raises(EnrolmentError):
        rotate(world.store, "ward-4")
    world.pass_time(world.limits.refresh_every)
    assert not world.accepts(context)
    assert world.accepts(gateway.adopt(world.run(gateway.begin_rekey())))


# --- limits, faults, upkeep ---------------------------------------------------------------------------------------


def test_a_flood_is_bounded_and_answered():
    world = World()
    junk = [world.post(ENROL, bytes([n % 256]) * 50, source=f"198.51.100.{n % 250}").code for n in range(1000)]
    assert set(junk) == {Code.BAD_REQUEST, Code.TOO_MANY_REQUESTS}
    assert junk.count(Code.BAD_REQUEST) == world.limits.messages_burst
    world.pass_time(1)
    gateway = world.gateway()
    code = world.code()
    answers = [world.post(ENROL, gateway.begin_enrolment(code).hello, source=f"203.0.113.{n}") for n in range(60)]
    assert [a.code for a in answers].count(Code.CHANGED) == world.limits.proofs_burst
    assert answers[-1].code == Code.TOO_MANY_REQUESTS
    assert answers[-1].option(14) == b"\x05"
    world.pass_time(10)
    for _ in range(10):
        world.pass_time(5)
        for n in range(20):
            hello = gateway.begin_enrolment(code).hello
            assert world.post(ENROL, hello, source=f"203.0.113.{n}").code == Code.CHANGED
    assert len(world.service._offers) == world.limits.offers_kept
    assert not world.store.identities()


def test_one_host_that_floods_keeps_no_gateway_from_making_keys():
    world = World()
    gateway, context = world.enrolled()
    for second in range(20):
        world.pass_time(1)
        junk = [world.post(REKEY, bytes(50), source="192.0.2.66").code for _ in range(300)]
        assert junk.count(Code.BAD_REQUEST) <= (
            world.limits.address_burst if second == 0 else world.limits.address_rate
        )
        context = gateway.adopt(world.run(gateway.begin_rekey()))
        assert world.accepts(context)
    for number in range(2 * world.limits.addresses):
        world.post(REKEY, b"", source=f"host-{number}")
    assert len(world.service._addresses) == world.limits.addresses


def test_wrong_method_and_format():
    world = World()
    hello = world.gateway().begin_enrolment(world.code()).hello
    assert world.post(ENROL, hello, code=Code.GET).code == Code.METHOD_NOT_ALLOWED
    assert world.post(ENROL, hello, options=((12, b"\x32"),)).code == Code.UNSUPPORTED_CONTENT_FORMAT
    assert world.post(ENROL, hello, options=()).code == Code.CHANGED
    assert outcomes(world) == {"method": 1, "format": 1, "offered": 1}


def test_cloud_restart_between_the_messages():
    world = World()
    gateway = world.gateway()
    exchange = gateway.begin_enrolment(world.code())
    offer = world.post(ENROL, exchange.hello).payload
    world.start_cloud()
    assert world.post(ENROL, exchange.confirm(offer)).code == Code.UNAUTHORIZED
    context = gateway.adopt(world.run(exchange))  # the same hello is good for another offer
    before = world.snapshot()
    world.start_cloud()
    assert world.snapshot() == before  # contexts are in service again
    assert world.accepts(context)
    (added,) = [e for e in world.events[-1:] if isinstance(e, ContextAdded)]
    assert added.context.window is None  # and must see a fresh request before they trust the window


def test_a_ticket_grows_old():
    world = World()
    gateway, _ = world.enrolled()
    exchange = gateway.begin_rekey()
    offer = world.post(REKEY, exchange.hello).payload
    world.pass_time(world.limits.ticket_life)
    assert world.post(REKEY, exchange.confirm(offer)).code == Code.UNAUTHORIZED
    fresh = world.post(REKEY, exchange.hello).payload
    assert fresh != offer
    assert world.post(REKEY, exchange.confirm(fresh)).code == Code.CHANGED


def test_a_quiet_time_forgets_offers_and_ticket_keys():
    world = World()
    gateway, _ = world.enrolled()
    world.post(REKEY, gateway.begin_rekey().hello)
    keys = list(world.service._tickets._keys)
    for _ in range(2):
        world.pass_time(world.limits.ticket_life)
    assert not world.service._offers
    assert not set(keys) & set(world.service._tickets._keys)


def test_restored_cloud_without_sequence_numbers_drops_its_contexts():
    world = World()
    gateway, context = world.enrolled()
    world.sequences._ends.clear()
    world.start_cloud()
    assert not world.store.contexts()
    assert world.service.counters["cloud_enrolment_contexts_unusable"] == 1
    assert len(world.contexts) == 0
    new = gateway.adopt(world.run(gateway.begin_rekey()))
    assert world.accepts(new)
    assert new.record != context.record


def test_contexts_end_with_their_age():
    world = World()
    gateway, context = world.enrolled()
    world.pass_time(world.limits.context_life)
    assert not world.accepts(context)
    assert world.accepts(gateway.adopt(world.run(gateway.begin_rekey())))


class FailingStore(MemoryEnrolmentStore):
    """Refuses the call number ``fail_at`` and those after it, the end of a transaction included."""

    def __init__(self):
        super().__init__()
        self.calls, self.fail_at = 0, None

    def _call(self):
        self.calls += 1
        if self.fail_at is not None and self.calls >= self.fail_at:
            raise StoreUnavailable(Reason.FULL)

    @contextmanager
    def transaction(self):
        self._call()
        with super().transaction():
            yield
            self._call()


for _name in ("put_code", "code", "put_identity", "identity", "identities", "active_identity", "put_context", "context",
              "contexts", "delete_context", "context_kids"):  # fmt: skip

    def _failing(self, *args, _name=_name):
        self._call()
        return getattr(MemoryEnrolmentStore, _name)(self, *args)

    setattr(FailingStore, _name, _failing)


@pytest.mark.parametrize("kind", [ENROL, REKEY])
def test_a_store_that_fails_at_any_call_leaves_all_or_nothing(kind):
    for fail_after in itertools.count(1):
        world = World(store=FailingStore())
        store = world.store
        if kind == ENROL:
            gateway = world.gateway()
            exchange = gateway.begin_enrolment(world.code(gateway="ward-3"))
        else:
            gateway, _ = world.enrolled()
            exchange = gateway.begin_rekey()
        before, numbers = world.snapshot(), dict(world.sequences._ends)
        store.fail_at = store.calls + fail_after
        offer = world.post(kind, exchange.hello)
        answer = world.post(kind, exchange.confirm(offer.payload)) if offer.code == Code.CHANGED else offer
        failed, store.fail_at = answer.code != Code.CHANGED, None
        if not failed:
            break
        assert answer.code == Code.SERVICE_UNAVAILABLE
        assert answer.option(14) == b"\x05"
        assert world.snapshot() == before
        assert world.sequences._ends == numbers
        assert world.accepts(gateway.adopt(world.run(exchange)))
    assert fail_after > 10


def test_a_store_that_fails_during_upkeep_is_asked_again():
    world = World(store=FailingStore())
    _, context = world.enrolled(gateway="ward-3")
    revoke(world.store, "ward-3", world.wall)
    world.store.fail_at = 0
    world.pass_time(world.limits.refresh_every)
    assert world.accepts(context)
    assert world.service.counters["cloud_enrolment_refresh_failed"] == 1
    world.store.fail_at = None
    world.pass_time(world.limits.refresh_every)
    assert not world.accepts(context)


def test_sequence_numbers_that_cannot_be_kept_keep_the_exchange_from_finishing():
    class Full(MemorySequenceStore):
        def create(self, record):
            raise SequenceError("disk full")

    world = World()
    gateway, context = world.enrolled()
    before = world.snapshot()
    good, world.service._sequences = world.service._sequences, Full()
    exchange = gateway.begin_rekey()
    confirm = exchange.confirm(world.post(REKEY, exchange.hello).payload)
    assert world.post(REKEY, confirm).code == Code.SERVICE_UNAVAILABLE
    assert world.snapshot() == before
    assert world.accepts(context)
    world.service._sequences = good
    assert world.post(REKEY, confirm).code == Code.CHANGED


# --- whoever holds one secret but not the other -------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ENROL, REKEY])
def test_confirm_needs_the_identity_keys_signature_too(kind):
    world = World()
    exchange = world.gateway().begin_enrolment(world.code()) if kind == ENROL else world.enrolled()[0].begin_rekey()
    offer = world.post(kind, exchange.hello).payload
    genuine, exchange._identity = exchange._identity, IdentityKey.create()
    before = world.snapshot()
    assert world.post(kind, exchange.confirm(offer)).code == Code.UNAUTHORIZED  # its MAC is right
    assert world.snapshot() == before
    exchange._identity = genuine
    assert world.post(kind, exchange.confirm(offer)).code == Code.CHANGED


def test_a_cloud_that_knows_the_rekey_key_but_not_the_identity_key_is_refused():
    class Borrowed:
        def __init__(self, public):
            self.public, self._own = public, IdentityKey.create()
            self.thumbprint = thumbprint(public)

        def sign(self, data):
            return self._own.sign(data)

    world = World()
    gateway, _ = world.enrolled()
    world.identity = CloudIdentity(Borrowed(world.identity.key.public))
    world.start_cloud()
    for exchange in (gateway.begin_rekey(), world.gateway().begin_enrolment(world.code())):
        offer = world.post(exchange.kind, exchange.hello)
        assert offer.code == Code.CHANGED
        with pytest.raises(HandshakeError, match="identity key"):
            exchange.confirm(offer.payload)


def test_a_gateway_does_not_let_itself_be_renamed():
    world = World()
    gateway, _ = world.enrolled(gateway="ward-3")
    (record,) = world.store.identities()
    world.store.put_identity(replace(record, gateway="ward-4"))
    exchange = gateway.begin_rekey()
    with pytest.raises(HandshakeError):
        exchange.confirm(world.post(REKEY, exchange.hello).payload)


def test_a_confirm_that_was_done_is_not_done_again_after_revocation():
    world = World()
    gateway, _ = world.enrolled(gateway="ward-3")
    exchange = gateway.begin_rekey()
    confirm = exchange.confirm(world.post(REKEY, exchange.hello).payload)
    assert world.post(REKEY, confirm).code == Code.CHANGED
    revoke(world.store, "ward-3", world.wall)
    assert world.post(REKEY, confirm).code == Code.FORBIDDEN
    assert not world.store.contexts()


def test_a_key_that_was_enrolled_meanwhile_is_no_next_key():
    world = World()
    gateway, _ = world.enrolled(gateway="ward-3")
    other = world.gateway()
    exchange = gateway.begin_rekey(next_identity=other.vault.identity())
    offer = world.post(REKEY, exchange.hello).payload
    context = other.adopt(world.run(other.begin_enrolment(world.code(gateway="ward-4"))))
    before = world.snapshot()
    assert world.post(REKEY, exchange.confirm(offer)).code == Code.FORBIDDEN
    assert world.snapshot() == before
    assert world.accepts(context)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.binary(max_size=300))
def test_any_bytes_as_a_ticket(data):
    box = TicketBox(300.0, random.Random(1).randbytes)
    assert box.open(data, 0.0) is None
    sealed = box.seal(Ticket(ENROL, 0.0, 0, b"", "g", b"", b"", b"", b"", b""), 0.0)
    assert box.open(sealed, 299.0).gateway == "g"
    assert box.open(sealed + data, 1.0) is None or not data
    assert box.open(data + sealed, 1.0) is None or not data
    assert box.open(sealed, 300.0) is None
    assert box.open(sealed, 1e6) is None
