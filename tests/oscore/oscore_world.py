"""Two OSCORE endpoints and everything that passes between them, turned by hand."""

import random

from vitalgate.coap import Code, Event, Message, Parameters, Site
from vitalgate.coap.codec import decode, encode
from vitalgate.engine import Path
from vitalgate.oscore.context import Parameters as ContextParameters
from vitalgate.oscore.context import SecurityContext
from vitalgate.oscore.contexts import Contexts
from vitalgate.oscore.endpoint import Endpoint
from vitalgate.oscore.sequence import MemorySequenceStore

GATEWAY, CLOUD = "gateway", "cloud"
KEYS = ContextParameters(b"sixteen secret b", b"g", b"", b"saltsalt")
POST = Message(Code.POST, ((11, b"ingest"), (12, b"p")), b"one heartbeat")
CHANGED = Message(Code.CHANGED, (), b"stored it")


class World:
    """``client`` at the path 'gateway' and ``server`` at 'cloud'. `sent` keeps every datagram: (from, bytes)."""

    def __init__(self, *, site: Site | None = None, keys: ContextParameters = KEYS, seed: int = 1, **server) -> None:
        self.now = 1000.0
        self.keys = keys
        self.site = site
        self.server_arguments = {"verify_addresses": False, **server}
        self.random = random.Random(seed)
        self.client_store, self.server_store = MemorySequenceStore(), MemorySequenceStore()
        self.sent: list[tuple[str, bytes]] = []
        self.start_client(fresh=True)
        self.start_server(fresh=True)

    def start_client(self, *, fresh: bool) -> None:
        self.client_context = SecurityContext(CLOUD, self.keys, self.client_store, fresh=fresh, block=4)
        contexts = Contexts()
        contexts.add(self.client_context, path=CLOUD)
        self.client = Endpoint(contexts=contexts, randomness=self.random.randbytes)

    def start_server(self, *, fresh: bool) -> None:
        self.server_context = SecurityContext(GATEWAY, self.keys.reversed(), self.server_store, fresh=fresh, block=4)
        contexts = Contexts()
        contexts.add(self.server_context, path=GATEWAY)
        self.server = Endpoint(
            contexts=contexts, site=self.site, randomness=self.random.randbytes, **self.server_arguments
        )

    def from_client(self) -> list[bytes]:
        out = [data for data, _ in self.client.datagrams_to_send(self.now)]
        self.sent += [(GATEWAY, data) for data in out]
        return out

    def from_server(self) -> list[bytes]:
        out = [data for data, _ in self.server.datagrams_to_send(self.now)]
        self.sent += [(CLOUD, data) for data in out]
        return out

    def to_server(self, data: bytes, path: Path = GATEWAY) -> None:
        self.server.receive_datagram(data, path, self.now)

    def to_client(self, data: bytes) -> None:
        self.client.receive_datagram(data, CLOUD, self.now)

    def exchange(self) -> None:
        """Carry datagrams until nobody says anything more."""
        while True:
            up, down = self.from_client(), self.from_server()
            for data in up:
                self.to_server(data)
            for data in down:
                self.to_client(data)
            if not up and not down:
                return

    def wait(self, seconds: float) -> None:
        """Let time pass; what the two say on the way is delivered."""
        end = self.now + seconds
        self.exchange()
        while True:
            dues = [due for each in (self.client, self.server) if (due := each.next_timeout()) is not None]
            if not dues or min(dues) > end:
                break
            self.now = max(self.now, min(dues))
            for each in (self.client, self.server):
                each.handle_timeout(self.now)
            self.exchange()
        self.now = end

    def request(self, message: Message = POST, **more) -> int:
        return self.client.request(message, CLOUD, self.now, **more)


def events(endpoint: Endpoint) -> list[Event]:
    found = []
    while (event := endpoint.next_event()) is not None:
        found.append(event)
    return found


def site_of(answer, path: str = "ingest", **more) -> Site:
    site = Site()
    site.add(path, answer, **more)
    return site


def again(datagram: bytes, **changes) -> bytes:
    """A datagram with fields of its message changed."""
    message = decode(datagram)
    for name, value in changes.items():
        setattr(message, name, value)
    return encode(message)


FAST = Parameters(ack_timeout=0.5, max_latency=5.0)
