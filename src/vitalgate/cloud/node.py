"""The cloud as one engine: endpoint, protection, ingest and enrolment stacked, with the five calls and nothing else.

The asyncio runtime turns it on a socket, the virtual network in virtual time.
"""

import os
import time
from collections.abc import Callable

from vitalgate.cloud.dtlspeers import DtlsPeers
from vitalgate.cloud.enrolment import EnrolmentStore
from vitalgate.cloud.enrolment_events import Event as EnrolmentEvent
from vitalgate.cloud.enrolment_events import apply
from vitalgate.cloud.enrolment_service import EnrolmentService
from vitalgate.cloud.identity import CloudIdentity
from vitalgate.cloud.ingest import RESOURCE, Ingest
from vitalgate.cloud.live import LiveBoard
from vitalgate.cloud.store.store import Store
from vitalgate.coap.endpoint import Endpoint, MessageEndpoint
from vitalgate.coap.events import RequestReceived
from vitalgate.coap.site import Site
from vitalgate.counters import Counters
from vitalgate.dtls.coaps import Endpoint as CoapsEndpoint
from vitalgate.engine import Datagram, Path, Randomness, Wall
from vitalgate.gateway.dtlskeys import cloud_parameters
from vitalgate.net.sharedport import SharedPort
from vitalgate.net.stacks import DEFAULT_OF, STACKS
from vitalgate.oscore.contexts import Contexts
from vitalgate.oscore.endpoint import Endpoint as OscoreEndpoint
from vitalgate.oscore.sequence import SequenceStore


class CloudNode:
    """Everything of the cloud that datagrams reach.

    ``stacks`` are slugs of `STACKS`; enrolment is always reachable unprotected (it protects itself), ingest only when a
    stack without protection is among them. ``on_enrolment`` hears what the enrolment service tells.
    """

    def __init__(
        self,
        *,
        store: Store,
        enrolment: EnrolmentStore,
        identity: CloudIdentity,
        sequences: SequenceStore,
        stacks: tuple[str, ...],
        board: LiveBoard | None = None,
        counters: Counters | None = None,
        randomness: Randomness = os.urandom,
        wall: Wall = time.time,
        on_enrolment: Callable[[EnrolmentEvent], None] | None = None,
    ) -> None:
        self.counters = Counters() if counters is None else counters
        self.contexts = Contexts()
        self._on_enrolment = on_enrolment
        self._stacks = stacks
        open_to_all = any(not STACKS[slug].protects for slug in stacks)
        self._service = EnrolmentService(
            identity, enrolment, sequences, counters=self.counters, randomness=randomness, wall=wall
        )
        site = Site(randomness=randomness)
        endpoint: MessageEndpoint
        if DEFAULT_OF["oscore"] in stacks:
            plain = {("enroll",), ("rekey",)} | ({(RESOURCE,)} if open_to_all else set())
            endpoint = OscoreEndpoint(
                site=site,
                contexts=self.contexts,
                unprotected=plain,
                counters=self.counters,
                randomness=randomness,
                wall=wall,
            )
        else:
            endpoint = Endpoint(site=site, counters=self.counters, randomness=randomness, wall=wall)
        self._peers: DtlsPeers | None = None
        self._port: SharedPort | None = None
        under_dtls = tuple(slug for slug in stacks if STACKS[slug].dtls is not None)
        if under_dtls:
            self._peers = DtlsPeers(identity, under_dtls)
            secured = CoapsEndpoint(
                self._peers.credentials,
                listening=True,
                site=site,
                dtls=cloud_parameters(under_dtls),
                counters=self.counters,
                randomness=randomness,
                wall=wall,
            )
            endpoint = self._port = SharedPort(secured, endpoint, counters=self.counters)
        self.ingest = Ingest(
            endpoint,
            store,
            board=board,
            security=self._security,
            allow_nosec=open_to_all,
            counters=self.counters,
        )
        self._service.mount(site)
        self.ingest.attach(site)

    def start(self, now: float) -> None:
        """Put the stored security contexts into service; once, before datagrams are fed."""
        self._service.start(now)
        self._tell(now)

    def receive_datagram(self, data: bytes, path: Path, now: float) -> None:
        """Feed one datagram."""
        self.ingest.receive_datagram(data, path, now)
        self._tell(now)

    def datagrams_to_send(self, now: float) -> list[Datagram]:
        """Commit what came, answer it, and take what is to be sent."""
        return self.ingest.datagrams_to_send(now)

    def next_timeout(self) -> float | None:
        """The nearest deadline of endpoint and enrolment."""
        deadlines = (self.ingest.next_timeout(), self._service.next_timeout())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        """A deadline has passed."""
        self._service.handle_timeout(now)
        self._tell(now)
        self.ingest.handle_timeout(now)

    def next_event(self) -> object | None:
        """An event that no resource here took, or None."""
        return self.ingest.next_event()

    def _security(self, request: RequestReceived) -> str:
        """The stack of an authenticated request, or '' where it is none that is accepted: with several rows of DTLS a
        handshake may come to a version and a mode that nobody listed together."""
        port = self._port
        stack = DEFAULT_OF["oscore"] if port is None or port.is_plain(request) else port.stack(request)
        return stack if stack in self._stacks else ""

    def _tell(self, now: float) -> None:
        while (event := self._service.next_event()) is not None:
            if not apply(event, self.contexts):
                self.counters.add("cloud_contexts_left_out")
            if self._peers is not None and self._port is not None:
                ended = self._peers.apply(event)
                if ended:
                    self._port.end_peer(ended, now)
            if self._on_enrolment is not None:
                self._on_enrolment(event)
