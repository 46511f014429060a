#!/usr/bin/env python3
"""Fuzzing of the engine: no script of datagrams, calls and waits makes it raise, grow beyond its limits or answer an
acknowledgement or Reset.

    python fuzz/coap_engine.py -max_total_time=60 -max_len=400 NEW_INPUTS fuzz/corpus/coap_engine

An input is a script. Each step is a byte that says what happens (its lowest four bits) and to whom (the next two),
and what that needs. The first folder takes what the fuzzer finds, further ones are only read.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator

import atheris

with atheris.instrument_imports(include=["vitalgate.coap"]):
    from vitalgate.coap import (
        Code,
        Endpoint,
        GroupPath,
        Handler,
        Limits,
        Message,
        Option,
        Parameters,
        RequestReceived,
        Site,
        Type,
        build_options,
        encode,
    )

PATHS = [("192.0.2.1", 5683), ("192.0.2.2", 5683), ("198.51.100.1", 1), ("198.51.100.2", 2)]
UNVERIFIED = PATHS[2:]
LIMITS = Limits(
    messages=12, messages_per_peer=5, messages_per_unverified_peer=2, peers=3, unverified_peers=2, servers=2,
    exchanges=4, queued_per_peer=2, deferred=8, deferred_per_peer=2, transmissions=3, known_options=4,
    known_option_bytes=32, message_bytes=300, body_bytes=200, assemblies=2, assembly_bytes=300, representations=2,
    representation_bytes=700, observations=3, observations_per_peer=2,
    transfers=2, observing=2, back_offs=1, group_responses=2, group_requests=2, group_answers=2,
)  # fmt: skip
PARAMETERS = Parameters(block_size=32, max_token_length=20)
GROUP = ("224.0.1.187", 5683)
CHALLENGE = 4 + 1 + 20 + 2 + 12
"""Longest challenge: header, token, an Echo option. It is sent whatever the request's size."""
SAFE = (Code.GET, Code.FETCH)
WAITS = (0.01, 0.6, 2.5, 30.0, 150.0, 300.0)
STEPS_AT_MOST = 200


def same_randomness() -> Callable[[int], bytes]:
    """Random bytes that are the same for every input."""
    counts = iter(range(1 << 62))
    return lambda size: hashlib.shake_128(next(counts).to_bytes(8, "big")).digest(size)


class Script:
    """Reads an input from the front; at its end everything is 0 and empty."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        """The next byte."""
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def bytes(self) -> bytes:
        """A length and as many bytes."""
        size = self.byte()
        self._at += size
        return self._data[self._at - size : self._at]


class Play:
    """One endpoint, both roles, and what the script needs to know of it."""

    def __init__(self) -> None:
        random = same_randomness()
        self.site = Site(randomness=random)
        self.now = 1000.0
        self.waiting: list[int] = []
        self.requests = [0]
        self.last: dict[object, bytes] = {path: bytes(4) for path in (*PATHS, GROUP)}
        self.allowed = dict.fromkeys(UNVERIFIED, 0)
        """Bytes that may still be sent there: three for each received (RFC 9175 section 2.4), or a challenge."""
        self.body = b"0123456789abcdef" * 8

        def answer(size: int) -> Handler:
            return lambda request, path, identity, now: Message(Code.CONTENT, ((4, b"tag"),), b"x" * size)

        def store(request: Message, path: object, identity: str, now: float) -> Message:
            self.body = request.payload
            return Message(Code.CHANGED)

        self.site.add("g", answer(20))
        self.site.add("a", answer(60), methods=[Code.GET, Code.FETCH], idempotent=True, observable=True, groups=True)
        self.site.add("s", answer(100), small=True)
        self.site.add("f", answer(1), methods=[Code.PUT], fresh_within=5)
        self.site.add("l", lambda request, path, identity, now: None, observable=True)
        self.site.add("b", lambda *_: Message(Code.CONTENT, (), self.body), methods=[Code.GET], observable=True)
        self.site.add("b", store, methods=[Code.PUT, Code.POST], groups=True)
        self.endpoint = Endpoint(
            site=self.site,
            parameters=PARAMETERS,
            limits=LIMITS,
            randomness=random,
            trusted=lambda path: path not in UNVERIFIED,
        )

    def step(self, script: Script) -> None:
        """One step of the script."""
        first = script.byte()
        what, path = first & 15, PATHS[first >> 4 & 3]
        endpoint = self.endpoint
        if what <= 4:
            self.hears(script.bytes(), path)
        elif what <= 7:
            self.hears(self.request(script), path)
        elif what <= 9:
            self.hears(self.reflected(script, path), path)
        elif what == 10:
            message = Message(script.byte() % 7 + 1, build_options("r"), script.bytes()[:64])
            path = PATHS[first >> 4 & 1]  # whom we ask knows a token of ours and may be answered at length
            observing = first >= 192 and message.code in SAFE and len(message.payload) <= PARAMETERS.block_size
            send = endpoint.observe if observing else endpoint.request
            self.requests.append(send(message, path, self.now, confirmable=first & 64 == 0))
        elif what == 11 and self.waiting:
            options = ((Option.OBSERVE, b""),) if first >= 128 else ()
            endpoint.respond(self.waiting.pop(0), Message(Code.CONTENT, options, script.bytes()), self.now)
        elif what == 12:
            end = endpoint.cancel if first < 128 else endpoint.deregister
            end(self.requests[script.byte() % len(self.requests)], self.now)
        elif what == 13:
            endpoint.notify("bal"[script.byte() % 3], self.now, confirmable=None if first < 128 else first < 192)
        elif what == 14 and first < 128:
            data = script.bytes() if first & 64 else self.request(script)
            if path in self.allowed:
                self.allowed[path] += max(3 * len(data), CHALLENGE)
            endpoint.receive_multicast(data, GroupPath(path, GROUP), self.now)
        elif what == 14:
            self.requests.append(endpoint.request_group(Message(1, build_options("r")), GROUP, self.now))
        else:
            self.wait(WAITS[script.byte() % len(WAITS)])
        self.take()

    def request(self, script: Script) -> bytes:
        """A well-formed request to one of the resources, with any options."""
        more: list[tuple[int, bytes]] = []
        shape = script.byte()
        if shape & 8:
            more.append((script.byte() << 8 | script.byte(), script.bytes()[:20]))
        if shape & 16:
            more.append(((6, 23, 27, 258)[shape >> 5 & 3], script.bytes()[:3]))
        code = script.byte() % 8 + 1
        path = "gasflb"[(shape & 7) % 6]
        token = script.bytes()[:8]
        payload = b"p" * min(script.byte(), 70)
        return encode(Message(code, build_options(path, more=more), payload, Type(shape >> 7), script.byte(), token))

    def reflected(self, script: Script, path: object) -> bytes:
        """An answer to what the endpoint last said to ``path``: with its Message ID and token."""
        last = self.last[path if script.byte() < 192 else GROUP]
        shape = script.byte()
        code = (0, 0x45, 0x5F, 0x81, 0x84, 0x9D, script.byte(), 0x44)[shape & 7]
        length = last[0] & 15 if code else 0
        head = bytes((0x40 | shape & 0x30 | length, code)) + last[2:4] + last[4 : 4 + length]
        return head + (script.bytes() if shape & 8 else b"")

    def hears(self, data: bytes, path: object) -> None:
        """One datagram."""
        silent = len(data) < 4 or data[0] & 0x60 == 0x60  # acknowledgements and Resets
        if path in self.allowed:
            self.allowed[path] += max(3 * len(data), CHALLENGE)
        self.endpoint.receive_datagram(data, path, self.now)
        sent = self.take()
        if silent:
            # Section 4.2: never answered. What a finished exchange lets out of the queue is not an answer.
            assert all(raw[0] & 0x30 < 0x20 for raw in sent), (data, sent)

    def wait(self, seconds: float) -> None:
        """Let time pass, stopping at every deadline."""
        end = self.now + seconds
        while (due := self.endpoint.next_timeout()) is not None and due <= end:
            self.now = max(self.now, due)
            self.endpoint.handle_timeout(self.now)
            after = self.endpoint.next_timeout()
            assert after is None or after > self.now, "a deadline that was handled is not due again"
            self.take()
        self.now = end

    def take(self) -> list[bytes]:
        """What the endpoint sends and tells; its bounds."""
        sent = self.endpoint.datagrams_to_send(self.now)
        for data, path in sent:
            assert 4 <= len(data) <= LIMITS.message_bytes
            self.last[path] = data
            if path in self.allowed:
                self.allowed[path] -= len(data)
                assert self.allowed[path] >= 0, "amplification"
        while (event := self.endpoint.next_event()) is not None:
            if isinstance(event, RequestReceived):
                self.waiting.append(event.exchange)
        broken = list(self.broken())
        assert not broken, broken
        return [data for data, _ in sent]

    def broken(self) -> Iterator[str]:
        """The bounds that do not hold."""
        core = self.endpoint._core
        peers = core.peers.values()
        for name, value, most in (
            ("messages", len(core.deduplication), LIMITS.messages),
            ("peers", len(core.peers), LIMITS.peers + LIMITS.servers),
            ("unverified_peers", sum(peer.pooled for peer in peers), LIMITS.unverified_peers),
            ("messages_per_peer", max((len(peer.seen) for peer in peers), default=0), LIMITS.messages_per_peer),
            ("exchanges", len(self.endpoint._client), LIMITS.exchanges),
            ("deferred", len(self.endpoint._server), LIMITS.deferred),
            ("transmissions", len(core.reliability), LIMITS.transmissions + LIMITS.exchanges + LIMITS.observations),
            ("nstart", max((peer.outstanding for peer in peers), default=0), 1),
            ("answers under way", sum(peer.deferred for peer in peers), len(self.endpoint._server)),
        ):
            if value > most:
                yield f"{name}: {value} > {most}"
        if len(core.deduplication) != sum(len(peer.seen) for peer in peers):
            yield "deduplication"


def one_input(data: bytes) -> None:
    """One script; afterwards, with nothing more happening, everything ends and all memory is given back."""
    script = Script(data)
    play = Play()
    for _ in range(STEPS_AT_MOST):
        if not script:
            break
        play.step(script)
    for number in play.requests:
        play.endpoint.cancel(number, play.now)
    for _ in range(4):
        play.wait(300)
    core = play.endpoint._core
    assert len(core.reliability) == len(play.endpoint._client) == len(play.endpoint._server) == 0
    assert len(play.endpoint._group_client) == len(play.endpoint._group_server) == 0
    assert len(core.deduplication) == 0


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
