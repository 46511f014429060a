"""A cloud and gateways that speak the enrolment protocol without a network, driven by hand."""

import itertools
import random

from vitalgate.cloud.enrolment import MemoryEnrolmentStore, create_code
from vitalgate.cloud.enrolment_events import ContextAdded, ContextRemoved, apply
from vitalgate.cloud.enrolment_service import EnrolmentLimits, EnrolmentService
from vitalgate.cloud.identity import CloudIdentity
from vitalgate.coap.message import Code, Message
from vitalgate.gateway import handshake
from vitalgate.gateway.code import EnrolmentCode
from vitalgate.gateway.exchange import GatewayExchange, begin_enrolment, begin_rekey
from vitalgate.gateway.identity import IdentityKey
from vitalgate.gateway.vault import GatewayVault, MemorySecrets
from vitalgate.oscore.contexts import Contexts
from vitalgate.oscore.sequence import MemorySequenceStore

RESOURCES = {handshake.ENROL: "enroll", handshake.REKEY: "rekey"}


class Gateway:
    """A gateway's vault and sequence numbers."""

    def __init__(self, world, seed):
        self.world = world
        self.data, self.state = MemorySecrets(), MemorySecrets()
        self.sequences = MemorySequenceStore()
        self.vault = self.restart(seed)

    def restart(self, seed):
        randomness = random.Random(seed).randbytes
        return GatewayVault(self.data, self.state, randomness=randomness, wall=lambda: self.world.wall)

    def begin_enrolment(self, code):
        return begin_enrolment(self.vault.identity(), EnrolmentCode.from_text(code.text), self.vault.randomness)

    def begin_rekey(self, **more):
        return begin_rekey(self.vault.identity(), self.vault.enrolment(), self.vault.randomness, **more)

    def adopt(self, established):
        return self.vault.adopt(established, self.sequences)


class World:
    """One cloud, its clock, and all messages that were exchanged."""

    def __init__(self, *, limits=None, store=None):
        self.now, self.wall = 1000.0, 1_800_000_000.0
        self.store = store or MemoryEnrolmentStore()
        self.sequences = MemorySequenceStore()
        self.identity = CloudIdentity(IdentityKey.create(random.Random(1).randbytes))
        self.limits = limits or EnrolmentLimits()
        self.contexts = Contexts()
        self.events = []
        self.trace = []
        self._seeds = itertools.count(100)
        self.start_cloud()

    def start_cloud(self):
        """Start, or restart: everything that lived in the process is gone."""
        self.contexts = Contexts()
        self.service = EnrolmentService(
            self.identity,
            self.store,
            self.sequences,
            limits=self.limits,
            randomness=random.Random(next(self._seeds)).randbytes,
            wall=lambda: self.wall,
        )
        self.service.start(self.now)
        self.take_events()

    def pass_time(self, seconds):
        self.now += seconds
        self.wall += seconds
        self.service.handle_timeout(self.now)
        self.take_events()

    def take_events(self):
        while (event := self.service.next_event()) is not None:
            self.events.append(event)
            assert apply(event, self.contexts)

    def gateway(self):
        return Gateway(self, next(self._seeds))

    def code(self, **more):
        return create_code(self.store, self.wall, randomness=random.Random(next(self._seeds)).randbytes, **more)

    def post(self, kind, payload, *, code=Code.POST, options=((12, b"\x3c"),), source="198.51.100.7"):
        """One request to /enroll or /rekey; returns the response."""
        handler = self.service.enroll if kind == handshake.ENROL else self.service.rekey
        response = handler(Message(code, options, payload), (source, 5683), "", self.now)
        self.take_events()
        self.trace.append((kind, payload, response))
        return response

    def run(self, exchange: GatewayExchange):
        """All four messages; returns what the gateway established."""
        offer = self.post(exchange.kind, exchange.hello)
        assert offer.code == Code.CHANGED, (offer.code, offer.payload)
        done = self.post(exchange.kind, exchange.confirm(offer.payload))
        assert done.code == Code.CHANGED, (done.code, done.payload)
        return exchange.finish(done.payload)

    def enrolled(self, **more):
        """A gateway that has been enrolled; returns it with its context."""
        gateway = self.gateway()
        context = gateway.adopt(self.run(gateway.begin_enrolment(self.code(**more))))
        return gateway, context

    def snapshot(self):
        """Everything the cloud keeps and has in service."""
        return (
            sorted(self.store.codes(), key=lambda r: r.code_id),
            sorted(self.store.identities(), key=lambda r: r.thumbprint),
            sorted(self.store.contexts(), key=lambda r: r.kid),
            sorted(context.record for context in self.contexts._all),
        )

    def accepts(self, context):
        """Whether the cloud's side of a gateway's context is in service, with the very same keys."""
        for event in reversed(self.events):
            if isinstance(event, ContextRemoved) and event.kid == context.sender.kid:
                return False
            if isinstance(event, ContextAdded) and event.kid == context.sender.kid:
                there = event.context
                nonce = context.sender.nonce(0)
                sealed = context.sender.key.encrypt(nonce, b"x", b"")
                return there.recipient.key.decrypt(there.recipient.nonce(0), sealed, b"") == b"x"
        return False
