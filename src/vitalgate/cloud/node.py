"""The cloud as one engine: endpoint, protection, ingest and enrolment stacked, with the five calls and nothing else.

The asyncio runtime turns it on a socket, the virtual network in virtual time.
"""

import os
import time
from collections.abc import Callable

from vitalgate.cloud.enrolment import EnrolmentStore
from vitalgate.cloud.enrolment_events import Event as EnrolmentEvent
from vitalgate.cloud.enrolment_events import apply
from vitalgate.cloud.enrolment_service import EnrolmentService
from vitalgate.cloud.identity import CloudIdentity
from vitalgate.cloud.ingest import RESOURCE, Ingest
from vitalgate.cloud.live import LiveBoard
from vitalgate.cloud.store.store import Store
from vitalgate.coap.endpoint import Endpoint, MessageEndpoint
from vitalgate.coap.site import Site
from vitalgate.counters import Counters
from vitalgate.engine import Datagram, Path, Randomness, Wall
from vitalgate.net.stacks import STACKS
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
        open_to_all = any(not STACKS[slug].protects for slug in stacks)
        protected = any(STACKS[slug].security == "oscore" for slug in stacks)
        self._service = EnrolmentService(
            identity, enrolment, sequences, counters=self.counters, randomness=randomness, wall=wall
        )
        site = Site(randomness=randomness)
        inner = Endpoint(site=None if protected else site, counters=self.counters, randomness=randomness, wall=wall)
        endpoint: MessageEndpoint = inner
        if protected:
            plain = {("enroll",), ("rekey",)} | ({(RESOURCE,)} if open_to_all else set())
            endpoint = OscoreEndpoint(
                site=site,
                contexts=self.contexts,
                unprotected=plain,
                counters=self.counters,
                randomness=randomness,
                wall=wall,
            )
        self.ingest = Ingest(
            endpoint,
            store,
            board=board,
            security="coap-oscore" if protected else "coap-nosec",
            allow_nosec=open_to_all,
            counters=self.counters,
        )
        self._service.mount(site)
        self.ingest.attach(site)

    def start(self, now: float) -> None:
        """Put the stored security contexts into service; once, before datagrams are fed."""
        self._service.start(now)
        self._tell()

    def receive_datagram(self, data: bytes, path: Path, now: float) -> None:
        """Feed one datagram."""
        self.ingest.receive_datagram(data, path, now)
        self._tell()

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
        self._tell()
        self.ingest.handle_timeout(now)

    def next_event(self) -> object | None:
        """An event that no resource here took, or None."""
        return self.ingest.next_event()

    def _tell(self) -> None:
        while (event := self._service.next_event()) is not None:
            if not apply(event, self.contexts):
                self.counters.add("cloud_contexts_left_out")
            if self._on_enrolment is not None:
                self._on_enrolment(event)
