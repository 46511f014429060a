"""The whole exchange over CoAP on the virtual network: losses, crashes of either side, restored backups, imposters."""

import random

import pytest

from vitalgate.cloud.enrolment import KeyState, MemoryEnrolmentStore, create_code, revoke, rotate
from vitalgate.cloud.enrolment_events import apply
from vitalgate.cloud.enrolment_service import EnrolmentService
from vitalgate.cloud.identity import CloudIdentity
from vitalgate.coap.endpoint import Endpoint
from vitalgate.coap.message import Code, Message
from vitalgate.coap.site import Site
from vitalgate.gateway.code import EnrolmentCode
from vitalgate.gateway.enrolment import (
    ClientFailure,
    ClientParameters,
    EnrolmentFailed,
    EnrolmentRun,
    KeysEstablished,
    enrolment,
    rekey,
)
from vitalgate.gateway.identity import IdentityKey
from vitalgate.gateway.keystore import Keystore
from vitalgate.gateway.master import MasterKey
from vitalgate.gateway.vault import CLOUD_NAME, GatewayVault, MemorySecrets, Standing, VaultError
from vitalgate.net.virtual import VirtualNetwork
from vitalgate.oscore.context import SecurityContext
from vitalgate.oscore.contexts import Contexts
from vitalgate.oscore.sequence import FileSequenceStore, MemorySequenceStore


class Cloud:
    """CoAP endpoint and enrolment service; `restart` loses what a crash loses."""

    def __init__(self, network):
        self.network = network
        self.store, self.sequences = MemoryEnrolmentStore(), MemorySequenceStore()
        self.identity = CloudIdentity(IdentityKey.create(network.randomness("cloud identity")))
        self.restarts = 0
        self.restart()

    def restart(self):
        self.restarts += 1
        randomness = self.network.randomness(f"cloud {self.restarts}")
        self.contexts = Contexts()
        self.service = EnrolmentService(
            self.identity, self.store, self.sequences, randomness=randomness, wall=self.network.wall("cloud")
        )
        self.service.start(self.network.now)
        site = Site(randomness=randomness)
        self.service.mount(site)
        if self.restarts > 1:
            self.network.remove_host("cloud")
        self.network.add_host("cloud", Endpoint(site=site, randomness=randomness), self.turn)

    def turn(self, now):
        self.service.handle_timeout(now)
        while (event := self.service.next_event()) is not None:
            assert apply(event, self.contexts)

    def code(self, **more):
        code = create_code(self.store, self.network.wall("cloud")(), **more)
        return EnrolmentCode.from_text(code.text)


class Gateway:
    """A vault and, at times, a run."""

    def __init__(self, network, name="gateway"):
        self.network, self.name = network, name
        self.data, self.state, self.sequences = MemorySecrets(), MemorySecrets(), MemorySequenceStore()
        self.runs, self.alive, self.outcome, self.context = 0, False, None, None
        self.crash_after = None
        self.open_vault()

    def open_vault(self):
        """As at every start of the process."""
        self.runs += 1
        randomness = self.network.randomness(f"{self.name} {self.runs}")
        self.vault = GatewayVault(self.data, self.state, randomness=randomness, wall=self.network.wall(self.name))

    def run(self, begins, *, seconds=900.0, parameters=None):
        """One run to its end, or to the crash; returns its event or None."""
        randomness = self.network.randomness(f"{self.name} run {self.runs}")
        self.engine = EnrolmentRun(
            Endpoint(randomness=randomness),
            (self.name, "cloud"),
            begins,
            parameters=parameters,
            randomness=randomness,
        )
        self.outcome, self.alive = None, True
        self.engine.start(self.network.now)
        self.network.add_host(self.name, self.engine, self.turn)
        end = self.network.now + seconds
        while self.alive and self.outcome is None and self.network.now < end:
            self.network.run(self.network.now + 0.5)
        if self.alive:
            self.network.remove_host(self.name)
        return self.outcome

    def turn(self, now):
        event = self.engine.next_event()
        if event is not None:
            self.outcome = event
            if isinstance(event, KeysEstablished):
                self.context = self.vault.adopt(event.established, self.sequences)

    def crash(self):
        self.alive = False
        self.network.remove_host(self.name)


@pytest.fixture
def network():
    return VirtualNetwork(5)


def accepted(cloud, gateway):
    """Whether the gateway's session is in service at the cloud, with the very same keys."""
    session = gateway.vault.session()
    record = cloud.store.context(session.keys.sender_id)
    served = [c for c in cloud.contexts._all if c.recipient.kid == session.keys.sender_id]
    return record is not None and record.keys == session.keys.reversed() and len(served) == 1


def test_enrol_then_rekey_over_coap(network):
    cloud, gateway = Cloud(network), Gateway(network)
    assert gateway.vault.load_session(gateway.sequences) is Standing.NOT_ENROLLED
    outcome = gateway.run(enrolment(gateway.vault, cloud.code(gateway="ward-3")))
    assert isinstance(outcome, KeysEstablished)
    assert accepted(cloud, gateway)
    first = gateway.context
    assert (first.name, cloud.store.active_identity("ward-3").public) == (
        CLOUD_NAME,
        gateway.vault.identity().public,
    )
    assert isinstance(gateway.run(rekey(gateway.vault)), KeysEstablished)
    assert accepted(cloud, gateway)
    assert gateway.context.record != first.record
    assert first.record not in gateway.sequences._ends


@pytest.mark.parametrize("seed", range(6))
def test_lossy_link(seed):
    network = VirtualNetwork(seed)
    network.default_link.loss = 0.3
    network.default_link.duplicate = 0.2
    network.default_link.jitter = 2.0
    cloud = Cloud(network)
    gateways = [Gateway(network, f"gateway{n}") for n in range(3)]
    for gateway in gateways:
        assert isinstance(gateway.run(enrolment(gateway.vault, cloud.code())), KeysEstablished)
        assert isinstance(gateway.run(rekey(gateway.vault)), KeysEstablished)
        assert accepted(cloud, gateway)
    assert len(cloud.store.identities()) == 3


def datagrams(network):
    return sum(link.sent for link in network._links.values())


@pytest.mark.parametrize("what", ["gateway", "cloud"])
@pytest.mark.parametrize("verb", ["enrol", "rekey", "rotate"])
def test_a_crash_after_any_datagram(what, verb):
    for crash_at in range(1, 40):
        network = VirtualNetwork(crash_at)
        cloud, gateway = Cloud(network), Gateway(network)
        code = cloud.code(gateway="ward-3")

        def begins(gateway=gateway, code=code):
            return enrolment(gateway.vault, code) if verb == "enrol" else rekey(gateway.vault)

        if verb != "enrol":
            gateway.run(enrolment(gateway.vault, code))
        if verb == "rotate":
            gateway.vault.rotate(identity=True)
        start, crashed = datagrams(network), False
        deliver = network._deliver

        def crashing(*delivered, network=network, cloud=cloud, gateway=gateway, deliver=deliver, at=start + crash_at):
            nonlocal crashed
            if not crashed and datagrams(network) >= at:
                crashed = True
                gateway.crash() if what == "gateway" else cloud.restart()
            deliver(*delivered)

        network._deliver = crashing
        outcome = gateway.run(begins())
        if not crashed:
            assert isinstance(outcome, KeysEstablished)
            break
        if what == "gateway":
            gateway.open_vault()
            standing = gateway.vault.load_session(gateway.sequences)
            if not isinstance(standing, SecurityContext):
                again = rekey(gateway.vault) if standing.rekey else begins()
                assert isinstance(gateway.run(again), KeysEstablished)
        else:
            assert isinstance(outcome, KeysEstablished)
        assert accepted(cloud, gateway)
        active = cloud.store.active_identity("ward-3")
        assert active.public == gateway.vault.identity().public
        assert gateway.vault.next_identity() is None
        assert sum(r.state is KeyState.ACTIVE for r in cloud.store.identities()) == 1
        assert len(cloud.store.contexts()) <= 2
    assert crash_at > 4


@pytest.mark.parametrize("lost", range(2))
def test_every_single_answer_lost(lost, network):
    """The cloud's answers are cut off after the first ``lost`` of them for longer than CoAP retries."""
    cloud, gateway = Cloud(network), Gateway(network)
    gateway.run(enrolment(gateway.vault, cloud.code()))
    back = network.link("cloud", "gateway")
    start = back.sent
    turn, cuts = cloud.turn, [1]

    def cut(now):
        turn(now)
        if cuts and back.sent - start >= lost:
            cuts.pop()
            back.up = False
            network.at(network.now + 120, lambda: setattr(back, "up", True))

    network._hosts["cloud"].on_turn = cut
    gateway.vault.rotate(identity=True)
    assert isinstance(gateway.run(rekey(gateway.vault)), KeysEstablished)
    assert accepted(cloud, gateway)
    assert gateway.vault.next_identity() is None
    assert cuts == []


def test_no_cloud(network):
    network.add_host("cloud", Endpoint(site=Site(), randomness=random.Random(1).randbytes))
    gateway = Gateway(network)
    code = EnrolmentCode.create(random.Random(2).randbytes)
    outcome = gateway.run(enrolment(gateway.vault, code))
    assert (outcome.failure, outcome.detail) == (ClientFailure.REFUSED, "4.04")
    network.partition("gateway", "cloud")
    outcome = gateway.run(enrolment(gateway.vault, code), parameters=ClientParameters(requests=2), seconds=3600)
    assert (outcome.failure, outcome.detail) == (ClientFailure.UNREACHABLE, "timeout")
    assert gateway.vault.enrolment() is None


def test_an_imposter_gets_nowhere_and_a_refusal_is_told(network):
    site = Site()
    answers = iter([b"", b"\x83", bytes(400)] * 10)
    site.add("enroll", lambda *_: Message(Code.CHANGED, (), next(answers)), small=True)
    site.add("rekey", lambda *_: Message(Code.FORBIDDEN, (), b"you \x1b[31m are \xffrevoked" + bytes(90)), small=True)
    network.add_host("cloud", Endpoint(site=site, randomness=random.Random(1).randbytes))
    gateway = Gateway(network)
    outcome = gateway.run(enrolment(gateway.vault, EnrolmentCode.create(random.Random(2).randbytes)))
    assert isinstance(outcome, EnrolmentFailed)
    assert outcome.failure is ClientFailure.NOT_PROVEN
    assert gateway.vault.enrolment() is None
    with pytest.raises(VaultError):
        rekey(gateway.vault)
    network.remove_host("cloud")
    cloud = Cloud(network)
    gateway.run(enrolment(gateway.vault, cloud.code()))
    network.remove_host("cloud")
    network.add_host("cloud", Endpoint(site=site, randomness=random.Random(1).randbytes))
    before = gateway.vault.session()
    outcome = gateway.run(rekey(gateway.vault))
    assert (outcome.failure, outcome.detail) == (ClientFailure.REFUSED, "4.03 you [31m are revoked")
    assert gateway.vault.session() == before  # a forged refusal changes nothing


def test_a_wrong_code_over_coap(network):
    cloud, gateway = Cloud(network), Gateway(network)
    code = cloud.code()
    outcome = gateway.run(enrolment(gateway.vault, EnrolmentCode(code.code_id, bytes(17))))
    assert (outcome.failure, outcome.detail) == (ClientFailure.REFUSED, "4.01")
    assert cloud.store.codes()[0].failures == 1
    assert isinstance(gateway.run(enrolment(gateway.vault, code)), KeysEstablished)


def test_cloud_side_rotate_and_revoke(network):
    cloud, gateway = Cloud(network), Gateway(network)
    gateway.run(enrolment(gateway.vault, cloud.code(gateway="ward-3")))
    rotate(cloud.store, "ward-3")
    assert isinstance(gateway.run(rekey(gateway.vault)), KeysEstablished)
    assert accepted(cloud, gateway)
    revoke(cloud.store, "ward-3", network.wall("cloud")())
    outcome = gateway.run(rekey(gateway.vault))
    assert outcome.detail == "4.03 this identity key is out of service"


# --- what the gateway keeps, and when it may use it again ---------------------------------------------------------


def test_after_a_restart_the_session_goes_on_past_every_used_number(network):
    cloud, gateway = Cloud(network), Gateway(network)
    gateway.run(enrolment(gateway.vault, cloud.code()))
    used = [gateway.context.sequence.next() for _ in range(3)]
    gateway.open_vault()
    context = gateway.vault.load_session(gateway.sequences)
    assert context.record == gateway.context.record
    assert context.sequence.next() > max(used)
    assert not gateway.vault.rekey_due()


def test_state_folder_lost_or_of_another_machine(network):
    cloud, gateway = Cloud(network), Gateway(network)
    gateway.run(enrolment(gateway.vault, cloud.code()))
    gateway.sequences = MemorySequenceStore()
    assert gateway.vault.load_session(gateway.sequences) is Standing.NUMBERS_LOST
    gateway.state = MemorySecrets()
    gateway.open_vault()
    assert gateway.vault.load_session(gateway.sequences) is Standing.NO_SESSION
    assert isinstance(gateway.run(rekey(gateway.vault)), KeysEstablished)
    assert accepted(cloud, gateway)


def test_yesterdays_data_folder(network):
    cloud, gateway = Cloud(network), Gateway(network)
    backups = [dict(gateway.data._secrets)]
    gateway.run(enrolment(gateway.vault, cloud.code()))
    backups.append(dict(gateway.data._secrets))
    gateway.run(rekey(gateway.vault))
    gateway.data._secrets = dict(backups[1])  # identity and enrolment are the same: the session still holds
    gateway.open_vault()
    assert isinstance(gateway.vault.load_session(gateway.sequences), SecurityContext)
    gateway.vault.rotate(identity=True)
    gateway.run(rekey(gateway.vault))
    gateway.data._secrets = dict(backups[1])  # from before the identity was rotated
    gateway.open_vault()
    assert gateway.vault.load_session(gateway.sequences) is Standing.OTHER_IDENTITY
    assert gateway.run(rekey(gateway.vault)).failure is ClientFailure.REFUSED
    gateway.data._secrets = dict(backups[0])
    gateway.open_vault()
    assert gateway.vault.load_session(gateway.sequences) is Standing.NOT_ENROLLED


def test_age_clock_steps_and_asked_rotation(network):
    cloud, gateway = Cloud(network), Gateway(network)
    gateway.run(enrolment(gateway.vault, cloud.code()))
    network.step_clock("gateway", -3 * 86400.0)
    assert gateway.vault.load_session(gateway.sequences) is Standing.TOO_OLD
    network.step_clock("gateway", (3 + 8) * 86400.0)
    assert gateway.vault.load_session(gateway.sequences) is Standing.TOO_OLD
    assert gateway.vault.rekey_due()
    gateway.run(rekey(gateway.vault))
    assert isinstance(gateway.vault.load_session(gateway.sequences), SecurityContext)
    assert [entry.kind for entry in gateway.vault.rotate()] == ["identity", "cloud", "session"]
    assert gateway.vault.load_session(gateway.sequences) is Standing.ROTATION
    assert gateway.vault.rekey_due()
    gateway.run(rekey(gateway.vault))
    assert not gateway.vault.rekey_due()
    assert accepted(cloud, gateway)


def test_with_real_key_stores_on_disk(network, tmp_path):
    def master():
        path = tmp_path / "master.key"
        make = MasterKey.from_file if path.exists() else MasterKey.create_file
        return make(path, tmp_path / "data")

    for folder in ("data", "state", "numbers"):
        (tmp_path / folder).mkdir(mode=0o700)
    cloud, gateway = Cloud(network), Gateway(network)
    gateway.data = Keystore.open(tmp_path / "data" / "keys", master())
    gateway.state = Keystore.open(tmp_path / "state" / "keys", master())
    gateway.sequences = FileSequenceStore(tmp_path / "numbers")
    gateway.open_vault()
    assert isinstance(gateway.run(enrolment(gateway.vault, cloud.code())), KeysEstablished)
    identity, session = gateway.vault.identity(), gateway.vault.session()
    gateway.sequences.close()
    gateway.data = Keystore.open(tmp_path / "data" / "keys", master(), create=False)
    gateway.state = Keystore.open(tmp_path / "state" / "keys", master(), create=False)
    gateway.sequences = FileSequenceStore(tmp_path / "numbers")
    gateway.open_vault()
    assert gateway.vault.identity().public == identity.public
    assert isinstance(gateway.vault.load_session(gateway.sequences), SecurityContext)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "master.key"]
    assert len(files) > 2
    written = b"".join(path.read_bytes() for path in files)
    for secret in (identity.to_bytes(), session.keys.master_secret, gateway.vault.enrolment().rekey_key):
        assert secret not in written
