"""A real peer: aiocoap's OSCORE, as client and as server, over UDP on loopback."""

import asyncio
import os

import pytest

from vitalgate.coap import Code, Failure, Message, RequestFailed, ResponseReceived
from vitalgate.net.udp import UdpDriver, bind
from vitalgate.oscore.context import Parameters, SecurityContext, derive
from vitalgate.oscore.contexts import Contexts
from vitalgate.oscore.endpoint import Endpoint
from vitalgate.oscore.sequence import MemorySequenceStore

pytestmark = pytest.mark.peer

try:
    import aiocoap
    import aiocoap.oscore
    import aiocoap.resource
except ImportError as error:
    if os.environ.get("CI") == "true":
        raise
    pytest.skip(f"aiocoap's OSCORE cannot be used here: {error}", allow_module_level=True)

NAMES = {10: "AES-CCM-16-64-128", 30: "AES-CCM-16-128-128", 24: "ChaCha20/Poly1305", 3: "A256GCM"}
OURS = Parameters(b"a secret shared ", b"gw", b"\x01", b"saltsalt")
CASES = [
    OURS,
    Parameters(b"a secret shared ", b"gw", b"\x01", id_context=b"ward 3", aead=30),
    Parameters(b"a secret shared ", b"", b"\x01", aead=24),
    Parameters(b"a secret shared ", b"gw", b"", aead=3),
]
BODY = bytes(range(256)) * 2


class PeerContext(aiocoap.oscore.CanProtect, aiocoap.oscore.CanUnprotect, aiocoap.oscore.SecurityContextUtils):
    """aiocoap's side of ``parameters`` (given as ours), in memory."""

    def __init__(self, parameters: Parameters, *, echo: bytes | None = None) -> None:
        self.alg_aead = aiocoap.oscore.algorithms[NAMES[parameters.aead]]
        self.hashfun = aiocoap.oscore.hashfunctions["sha256"]
        self.sender_id, self.recipient_id = parameters.recipient_id, parameters.sender_id
        self.id_context = parameters.id_context
        self.derive_keys(parameters.master_salt, parameters.master_secret)
        self.sender_sequence_number = 0
        self.echo_recovery = echo
        self.recipient_replay_window = aiocoap.oscore.ReplayWindow(32, lambda: None)
        if echo is None:
            self.recipient_replay_window.initialize_empty()

    def post_seqnoincrease(self):
        pass


class PeerServer(aiocoap.resource.Resource):
    """Answers every OSCORE request with its payload reversed; what does not verify goes aiocoap's own way."""

    def __init__(self, context: PeerContext) -> None:
        super().__init__()
        self.context = context
        self.seen = []

    async def needs_blockwise_assembly(self, request):
        return False

    async def render(self, request):
        plain, binding = self.context.unprotect(request)
        self.seen.append((int(plain.code), plain.opt.uri_path, plain.payload))
        answer = aiocoap.Message(code=aiocoap.CONTENT, content_format=0, payload=plain.payload[::-1])
        protected, _ = self.context.protect(answer, binding)
        return protected


def ours(parameters: Parameters, name: str, *, fresh: bool) -> SecurityContext:
    store = MemorySequenceStore()
    if not fresh:
        SecurityContext(name, parameters, store, fresh=True)
    return SecurityContext(name, parameters, store, fresh=fresh)


@pytest.mark.parametrize("parameters", CASES)
def test_both_derive_the_same(parameters):
    peer, keys = PeerContext(parameters), derive(parameters)
    assert (peer.recipient_key, peer.sender_key, peer.common_iv) == (
        keys.sender_key,
        keys.recipient_key,
        keys.common_iv,
    )


async def ask(site: PeerServer, context: SecurityContext, count: int):
    """Our endpoint asks aiocoap's server ``count`` times: (events, our counters)."""
    with bind("127.0.0.1", 0) as free:
        address = free.getsockname()
    peer = await aiocoap.Context.create_server_context(site, bind=address, transports=["simplesocketserver"])
    contexts = Contexts()
    contexts.add(context, path=address)
    endpoint = Endpoint(contexts=contexts)
    events: asyncio.Queue = asyncio.Queue()

    def on_turn(_now):
        while (event := endpoint.next_event()) is not None:
            events.put_nowait(event)

    driver = UdpDriver(endpoint, bind("127.0.0.1", 0), on_turn=on_turn)
    got = []
    for _ in range(count):
        request = Message(Code.POST, ((11, b"echo"), (11, b"it")), BODY)
        endpoint.request(request, address, asyncio.get_running_loop().time())
        driver.turn()
        got.append(await asyncio.wait_for(events.get(), 5))
    driver.close()
    await peer.shutdown()
    return got, endpoint.counters


@pytest.mark.parametrize("echo", [None, b"restarted"], ids=["", "after its restart"])
@pytest.mark.parametrize("parameters", CASES)
def test_our_client_and_its_server(parameters, echo):
    site = PeerServer(PeerContext(parameters, echo=echo))
    events, counters = asyncio.run(ask(site, ours(parameters, "peer", fresh=True), 2))
    assert site.seen == [(Code.POST, ("echo", "it"), BODY)] * 2
    for event in events:
        assert isinstance(event, ResponseReceived), event
        assert (event.response.code, event.response.payload) == (Code.CONTENT, BODY[::-1])
        assert event.response.option(12) == b""
    assert counters["oscore_echoes_answered"] == (echo is not None)


@pytest.mark.parametrize("fresh", [True, False], ids=["", "after our restart"])
@pytest.mark.parametrize("parameters", CASES)
def test_its_client_and_our_server(parameters, fresh):
    async def run():
        contexts = Contexts()
        contexts.add(ours(parameters, "peer", fresh=fresh))
        endpoint = Endpoint(contexts=contexts)
        seen = []

        def on_turn(now):
            while (event := endpoint.next_event()) is not None:
                seen.append((event.request.code, event.request.options, event.request.payload, event.identity))
                answer = Message(Code.CONTENT, ((12, b""),), event.request.payload[::-1])
                endpoint.respond(event.exchange, answer, now)

        driver = UdpDriver(endpoint, bind("127.0.0.1", 0), on_turn=on_turn)
        peer = await aiocoap.Context.create_client_context()
        context = PeerContext(parameters)
        answers, echo = [], None
        for _ in range(2):
            for _ in range(2):
                request = aiocoap.Message(code=aiocoap.POST, uri_path=("echo", "it"), payload=BODY, echo=echo)
                protected, binding = context.protect(request)
                protected.set_request_uri(f"coap://127.0.0.1:{driver.address[1]}", set_uri_host=False)
                response = await asyncio.wait_for(peer.request(protected, handle_blockwise=False).response, 5)
                if response.code == aiocoap.UNAUTHORIZED and response.opt.echo is not None:
                    # RFC 9175: our endpoint first asks whether the address receives what it is sent.
                    protected, binding = context.protect(request)
                    protected.set_request_uri(f"coap://127.0.0.1:{driver.address[1]}", set_uri_host=False)
                    protected.opt.echo = response.opt.echo
                    response = await asyncio.wait_for(peer.request(protected, handle_blockwise=False).response, 5)
                plain, _ = context.unprotect(response, binding)
                if plain.code != aiocoap.UNAUTHORIZED:
                    break
                echo = plain.opt.echo
            answers.append((int(plain.code), plain.payload))
            echo = None
        driver.close()
        await peer.shutdown()
        return seen, answers, endpoint.counters

    seen, answers, counters = asyncio.run(run())
    assert [(code, payload, identity) for code, _, payload, identity in seen] == [(Code.POST, BODY, "peer")] * 2
    assert all([value for number, value in options if number == 11] == [b"echo", b"it"] for _, options, _, _ in seen)
    assert answers == [(Code.CONTENT, BODY[::-1])] * 2
    assert counters["oscore_challenges"] == (not fresh)


def test_a_wrong_key_opens_nothing_there():
    site = PeerServer(PeerContext(OURS))
    wrong = Parameters(b"not this secret ", b"gw", b"\x01", b"saltsalt")
    (event,), counters = asyncio.run(ask(site, ours(wrong, "peer", fresh=True), 1))
    assert site.seen == []
    assert isinstance(event, RequestFailed)
    assert event.reason is Failure.PROTECTION
    assert counters["oscore_errors_received"] == 1
