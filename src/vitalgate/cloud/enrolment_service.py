"""The cloud's side of the enrolment and rekey exchanges: handlers of POST /enroll and POST /rekey (docs/enrolment.md).

A first message that proves nothing costs one look-up and one MAC, changes no state (but the failure count of the code
it names, which is bounded) and gets an answer smaller than itself. One that proves something gets an offer whose memory
travels in a ticket, so open exchanges take no room here. Only a proven confirm message changes anything, in one
transaction, once: the gateway's generation number makes every older confirm message worthless.
"""

import contextlib
import hashlib
import os
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, replace
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from vitalgate.cloud.bucket import AddressBuckets, TokenBucket
from vitalgate.cloud.enrolment import (
    MAX_IDENTITIES,
    CodeRecord,
    ContextRecord,
    EnrolmentStore,
    IdentityRecord,
    KeyState,
)
from vitalgate.cloud.enrolment_events import (
    ANSWERS,
    ContextAdded,
    ContextRemoved,
    Event,
    GatewayEnrolled,
    GatewayRekeyed,
    Refusal,
)
from vitalgate.cloud.identity import CloudIdentity
from vitalgate.cloud.store.errors import StoreError
from vitalgate.cloud.tickets import Ticket, TicketBox
from vitalgate.coap.formats import ContentFormat
from vitalgate.coap.message import Code, Message
from vitalgate.coap.options import Option
from vitalgate.coap.site import Site
from vitalgate.counters import Counters
from vitalgate.engine import Path, Randomness, Wall
from vitalgate.gateway import handshake
from vitalgate.gateway.handshake import HandshakeError, Hello, Schedule
from vitalgate.gateway.identity import fingerprint_text, thumbprint, verify
from vitalgate.oscore.context import SecurityContext
from vitalgate.oscore.errors import SequenceError
from vitalgate.oscore.replay import LARGEST_WINDOW
from vitalgate.oscore.sequence import SequenceStore

REPLAY_WINDOW: Final = LARGEST_WINDOW
"""Requests that may overtake one whose first copies were lost. It is sent again, under its number, for up to 45 s
(MAX_TRANSMIT_SPAN, RFC 7252 section 4.8.2); in that time a busy gateway makes more than the 32 of RFC 8613."""

_CBOR: Final = bytes([ContentFormat.CBOR])
_RETRY_AFTER: Final = 5  # seconds, as Max-Age of 4.29 and 5.03 (RFC 8516, RFC 7252 section 5.9.3.4)


@dataclass(frozen=True, slots=True)
class EnrolmentLimits:
    """Rates are per second with a burst; times in seconds."""

    messages_rate: float = 100.0
    """Messages looked at; beyond that 4.29."""
    messages_burst: float = 200.0
    address_rate: float = 10.0
    """Messages looked at of one address; beyond that 4.29. An address has shown by Echo that it receives; so one
    host cannot use up what all may cause and keep every gateway from making keys."""
    address_burst: float = 50.0
    addresses: int = 4096
    """Addresses told apart; the one silent longest is forgotten first."""
    proofs_rate: float = 20.0
    """Messages whose MAC holds and that cost public-key work; beyond that 4.29."""
    proofs_burst: float = 40.0
    ticket_life: float = 300.0
    """From offer to confirm; beyond that 4.01 and the gateway begins again."""
    offers_kept: int = 128
    """Offers remembered, so that a repeated hello gets the same one; the oldest goes first and costs a new offer."""
    retire_after: float = 120.0
    """How long replaced keys of the same gateway are still accepted, for what was under way."""
    context_life: float = 30 * 86400.0
    """After this a gateway that has not made fresh keys has to."""
    refresh_every: float = 5.0
    """How often the store is asked what an administrator's command has changed."""


class _Refused(Exception):
    """Leaves a handler's inner calls, and undoes their transaction; never leaves a handler."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal


class EnrolmentService:
    """Handlers and upkeep. `start` once, then `handle_timeout` at `next_timeout`; take events after every call.

    ``sequences``: where the sequence numbers of the cloud's contexts live, outside the data folder and every backup: a
    context in ``store`` without numbers there is deleted, and its gateway makes fresh keys.
    """

    def __init__(
        self,
        identity: CloudIdentity,
        store: EnrolmentStore,
        sequences: SequenceStore,
        *,
        limits: EnrolmentLimits | None = None,
        counters: Counters | None = None,
        randomness: Randomness = os.urandom,
        wall: Wall = time.time,
    ) -> None:
        self.limits: Final = limits or EnrolmentLimits()
        self.counters: Final = Counters() if counters is None else counters
        self._identity = identity
        self._store = store
        self._sequences = sequences
        self._randomness = randomness
        self._wall = wall
        self._no_code_key = randomness(32)  # what a MAC is checked against when there is no such code: never holds
        self._tickets = TicketBox(self.limits.ticket_life, randomness)
        self._addresses = AddressBuckets(self.limits.address_rate, self.limits.address_burst, self.limits.addresses)
        self._messages = TokenBucket(self.limits.messages_rate, self.limits.messages_burst)
        self._proofs = TokenBucket(self.limits.proofs_rate, self.limits.proofs_burst)
        self._offers: OrderedDict[tuple[bytes, int], tuple[float, bytes]] = OrderedDict()
        self._live: dict[bytes, tuple[ContextRecord, SecurityContext]] = {}
        self._events: deque[Event] = deque()
        self._next_refresh: float | None = None

    # --- handlers ---

    def mount(self, site: Site) -> None:
        """Serve POST /enroll and /rekey, unprotected. Offers are longer than what may go to an unverified address, so
        an endpoint has the gateway show its address by Echo first (RFC 9175 section 2.4). A message that comes twice
        gets the same answer again, so none is remembered: forged ones take no Message ID from a gateway."""
        site.add("enroll", self.enroll, methods=[Code.POST], idempotent=True, listed=False)
        site.add("rekey", self.rekey, methods=[Code.POST], idempotent=True, listed=False)

    def enroll(self, request: Message, path: Path, identity: str, now: float) -> Message:
        """POST /enroll: messages 1 and 3 of an enrolment."""
        return self._handle(handshake.ENROL, request, path, now)

    def rekey(self, request: Message, path: Path, identity: str, now: float) -> Message:
        """POST /rekey: messages 1 and 3 of a rekey."""
        return self._handle(handshake.REKEY, request, path, now)

    def _handle(self, kind: int, request: Message, path: Path, now: float) -> Message:
        try:
            label, payload = self._answer(kind, request, path, now)
        except _Refused as refused:
            return self._refuse(refused.refusal)
        except HandshakeError:
            return self._refuse(Refusal.MALFORMED)
        except (StoreError, SequenceError):
            return self._refuse(Refusal.UNAVAILABLE)
        self.counters.add("cloud_enrolment_messages", label)
        return Message(Code.CHANGED, ((Option.CONTENT_FORMAT, _CBOR),), payload)

    def _refuse(self, refusal: Refusal) -> Message:
        self.counters.add("cloud_enrolment_messages", refusal.value)
        code, text = ANSWERS[refusal]
        retry = code in (Code.TOO_MANY_REQUESTS, Code.SERVICE_UNAVAILABLE)
        return Message(code, ((Option.MAX_AGE, bytes([_RETRY_AFTER])),) if retry else (), text)

    def _answer(self, kind: int, request: Message, path: Path, now: float) -> tuple[str, bytes]:
        if request.code != Code.POST:
            raise _Refused(Refusal.METHOD)
        if request.option(Option.CONTENT_FORMAT) not in (None, _CBOR):
            raise _Refused(Refusal.FORMAT)
        host = str(path[0] if isinstance(path, tuple) else path)  # a host has as many ports as it likes
        if not (self._addresses.take(host, now) and self._messages.take(now)):
            raise _Refused(Refusal.BUSY)
        if handshake.kind_of(request.payload) == handshake.CONFIRM:
            return "confirmed", self._confirm(kind, request.payload, now)
        hello = handshake.decode_hello(kind, request.payload)
        return "offered", self._enrol_hello(hello, now) if kind == handshake.ENROL else self._rekey_hello(hello, now)

    # --- message 1 ---

    def _enrol_hello(self, hello: Hello, now: float) -> bytes:
        code = self._store.code(hello.code_id)
        # The same answer whether there is such a code or not; only the count of a known code's failures takes longer.
        expected = handshake.hello_mac(code.key if code else self._no_code_key, hello.body, hello.signature)
        if not handshake.mac_holds(expected, hello.mac) or code is None:
            if code is not None and code.state(self._wall()) is KeyState.ACTIVE:
                self._count_failure(hello.code_id)
            raise _Refused(Refusal.UNPROVEN)
        name = thumbprint(hello.identity)
        gateway, known = self._admit(code, name)
        ticket = self._ticket(hello, code.code_id, gateway, known.generation if known else 0, name, hello.identity, now)
        return self._offer(hello, hello.identity, code.key, ticket, b"", now)

    def _rekey_hello(self, hello: Hello, now: float) -> bytes:
        known = self._store.identity(hello.identity)
        expected = handshake.hello_mac(known.rekey_key if known else self._no_code_key, hello.body, hello.signature)
        if not handshake.mac_holds(expected, hello.mac) or known is None:
            raise _Refused(Refusal.UNPROVEN)
        if known.state is not KeyState.ACTIVE:
            raise _Refused(Refusal.REVOKED)
        succession = self._identity.succession_for(hello.cloud)
        if succession is None:
            raise _Refused(Refusal.OTHER_CLOUD)
        public = hello.next_identity or known.public
        if hello.next_identity and self._store.identity(thumbprint(public)) is not None:
            raise _Refused(Refusal.REVOKED)  # a key that was ever enrolled is no new key
        ticket = self._ticket(hello, b"", known.gateway, known.generation, known.thumbprint, public, now)
        return self._offer(hello, known.public, known.rekey_key, ticket, succession, now)

    def _ticket(
        self, hello: Hello, code_id: bytes, gateway: str, generation: int, name: bytes, public: bytes, now: float
    ) -> Ticket:
        kid = self._randomness(handshake.KID_BYTES)
        while self._store.context(kid) is not None:
            kid = self._randomness(handshake.KID_BYTES)
        return Ticket(hello.kind, now, generation, code_id, gateway, name, public, kid, b"", b"")

    def _offer(
        self, hello: Hello, public: bytes, shared: bytes, ticket: Ticket, succession: bytes, now: float
    ) -> bytes:
        """Message 2. ``ticket`` lacks what is only known here: the exchange's name and PRK."""
        key = (hashlib.sha256(hello.raw).digest(), ticket.generation)
        made, kept = self._offers.get(key, (0.0, b""))
        if kept and now - made < self.limits.ticket_life / 2:
            return kept
        if not self._proofs.take(now):
            raise _Refused(Refusal.BUSY)
        if not verify(public, hello.signature, handshake.parts(handshake.SIGN_HELLO, hello.body)):
            raise _Refused(Refusal.UNPROVEN)
        if hello.next_identity:
            signed = handshake.next_identity_signed(hello.identity, hello.cloud, hello.ephemeral, hello.nonce)
            if not verify(hello.next_identity, hello.next_signature, signed):
                raise _Refused(Refusal.UNPROVEN)
        ephemeral = X25519PrivateKey.from_private_bytes(self._randomness(handshake.EPHEMERAL_BYTES))
        secret = handshake.agree(ephemeral, hello.ephemeral)
        body = handshake.encode(
            handshake.VERSION,
            handshake.OFFER,
            self._identity.key.public,
            ephemeral.public_key().public_bytes_raw(),
            self._randomness(handshake.NONCE_BYTES),
            ticket.gateway,
            ticket.kid,
            succession,
        )
        first = handshake.first_transcript(hello.raw)
        signature = self._identity.key.sign(handshake.offer_signed(first, body))
        schedule = Schedule.derive(handshake.second_transcript(first, body, signature), secret, shared)
        box = self._tickets.seal(replace(ticket, exchange=schedule.exchange, prk=schedule.prk), now)
        offer = handshake.encode(body, signature, schedule.offer_mac(box), box)
        self._offers[key] = (now, offer)
        self._offers.move_to_end(key)
        while len(self._offers) > self.limits.offers_kept:
            self._offers.popitem(last=False)
        return offer

    def _count_failure(self, code_id: bytes) -> None:
        with self._store.transaction():
            code = self._store.code(code_id)
            if code is not None and code.state(self._wall()) is KeyState.ACTIVE:
                self._store.put_code(replace(code, failures=code.failures + 1))

    def _admit(self, code: CodeRecord, name: bytes) -> tuple[str, IdentityRecord | None]:
        """What a proven code gives the identity key of thumbprint ``name``: its gateway's name and its record, if any.

        A used code stays good for the key that used it, until it expires: a gateway that never saw the last answer
        begins again and changes nothing but its own session keys.
        """
        wall = self._wall()
        state = code.state(wall)
        if state is KeyState.USED and code.used_by != name:
            raise _Refused(Refusal.USED)
        if state is KeyState.LOCKED:
            raise _Refused(Refusal.LOCKED)
        if wall >= code.expires_at:
            raise _Refused(Refusal.EXPIRED)
        known = self._store.identity(name)
        if known is not None and known.state is not KeyState.ACTIVE:
            raise _Refused(Refusal.REVOKED)
        gateway = code.gateway or (known.gateway if known else f"gw-{name.hex()[:12]}")
        if known is not None and known.gateway != gateway:
            raise _Refused(Refusal.NAME_TAKEN)
        if known is None and not code.replaces and self._store.active_identity(gateway) is not None:
            raise _Refused(Refusal.NAME_TAKEN)
        return gateway, known

    # --- message 3 ---

    def _confirm(self, kind: int, data: bytes, now: float) -> bytes:
        message = handshake.decode_confirm(data)
        ticket = self._tickets.open(message.ticket, now)
        if ticket is None or ticket.kind != kind:
            raise _Refused(Refusal.STALE)
        schedule = Schedule(ticket.exchange, ticket.prk)
        if not handshake.mac_holds(schedule.confirm_mac(message.body, message.signature), message.mac):
            raise _Refused(Refusal.UNPROVEN)
        if not self._proofs.take(now):
            raise _Refused(Refusal.BUSY)
        public = ticket.public
        if kind == handshake.REKEY:
            speaker = self._store.identity(ticket.thumbprint)
            public = speaker.public if speaker else b""
        if not verify(public, message.signature, handshake.confirm_signed(ticket.exchange, message.ticket)):
            raise _Refused(Refusal.UNPROVEN)
        context: SecurityContext | None = None
        try:
            with self._store.transaction():
                change = self._change(ticket, schedule)
                if change is not None:
                    # The numbers exist before the keys do: a crash leaves numbers without keys, never the reverse.
                    keys = change.context.keys
                    context = SecurityContext(ticket.gateway, keys, self._sequences, fresh=True, window=REPLAY_WINDOW)
                    self._write(change)
        except (_Refused, StoreError):
            if context is not None:
                self._sequences.remove(context.record)
            raise
        if change is not None and context is not None:
            self._announce(change, context)
        body = handshake.encode(handshake.VERSION, handshake.DONE, ticket.gateway)
        return handshake.encode(body, schedule.done_mac(body))

    def _change(self, ticket: Ticket, schedule: Schedule) -> "_Change | None":
        """What the confirmed exchange changes; None when it is in service already. Within the transaction."""
        wall = self._wall()
        name = thumbprint(ticket.public)
        done = self._store.identity(name)
        if done is not None and done.exchange == ticket.exchange and done.state is KeyState.ACTIVE:
            return None
        code: CodeRecord | None = None
        former: IdentityRecord | None = None
        rekey_key = schedule.rekey_key()
        if ticket.kind == handshake.ENROL:
            code = self._store.code(ticket.code_id)
            if code is None:
                raise _Refused(Refusal.STALE)
            gateway, known = self._admit(code, name)
            if gateway != ticket.gateway:
                raise _Refused(Refusal.STALE)
            if known is None:
                former = self._store.active_identity(gateway)
            code = replace(code, used_by=name, used_at=wall)
        else:
            known = self._store.identity(ticket.thumbprint)
            if known is None or known.state is not KeyState.ACTIVE:
                raise _Refused(Refusal.REVOKED)
            rekey_key = known.rekey_key
            if name != known.thumbprint:
                if done is not None:
                    raise _Refused(Refusal.REVOKED)
                former = known
        if (known.generation if known else 0) != ticket.generation or self._store.context(ticket.kid) is not None:
            raise _Refused(Refusal.STALE)
        if done is None and len(self._store.identities()) >= MAX_IDENTITIES:
            raise _Refused(Refusal.FULL)
        record = IdentityRecord(
            thumbprint=name,
            public=ticket.public,
            gateway=ticket.gateway,
            state=KeyState.ACTIVE,
            generation=ticket.generation + 1,
            exchange=ticket.exchange,
            rekey_key=rekey_key,
            enrolled_at=done.enrolled_at if done else wall,
            changed_at=wall,
        )
        keys = schedule.session(ticket.kid).reversed()
        context = ContextRecord(ticket.kid, ticket.gateway, name, ticket.exchange, keys, wall)
        return _Change(record, context, former, code, self._store.contexts(ticket.gateway), wall)

    def _write(self, change: "_Change") -> None:
        if change.former is not None:
            self._store.put_identity(replace(change.former, state=KeyState.REPLACED, changed_at=change.wall))
        self._store.put_identity(change.record)
        for old in change.contexts_before:
            if change.ends(old):
                self._store.delete_context(old.kid)
            else:
                self._store.put_context(replace(old, retire_at=change.wall + self.limits.retire_after))
        self._store.put_context(change.context)
        if change.code is not None:
            self._store.put_code(change.code)

    def _announce(self, change: "_Change", context: SecurityContext) -> None:
        gateway = change.record.gateway
        fingerprint = fingerprint_text(change.record.public)
        for old in change.contexts_before:
            if change.ends(old):
                self._remove(old.kid)
            elif old.kid in self._live:
                retiring = replace(old, retire_at=change.wall + self.limits.retire_after)
                self._live[old.kid] = (retiring, self._live[old.kid][1])
        self._live[change.context.kid] = (change.context, context)
        made = change.context
        self._events.append(ContextAdded(gateway, made.kid, context, made.keys, change.record.public))
        if change.code is not None:
            replaced = fingerprint_text(change.former.public) if change.former else ""
            self._events.append(GatewayEnrolled(gateway, fingerprint, replaced, change.code.code_id))
        else:
            self._events.append(GatewayRekeyed(gateway, fingerprint if change.former else ""))

    # --- upkeep ---

    def start(self, now: float) -> None:
        """Put the stored contexts into service; those without sequence numbers are deleted."""
        self.handle_timeout(now)

    def next_timeout(self) -> float | None:
        """When the store is to be asked again; None before `start`."""
        return self._next_refresh

    def handle_timeout(self, now: float) -> None:
        """Bring contexts in line with the store, end those that are over."""
        if self._next_refresh is not None and now < self._next_refresh:
            return
        self._next_refresh = now + self.limits.refresh_every
        self._tickets.forget(now)
        while self._offers and now - next(iter(self._offers.values()))[0] >= self.limits.ticket_life / 2:
            self._offers.popitem(last=False)
        try:
            self._refresh()
        except (StoreError, SequenceError):
            self.counters.add("cloud_enrolment_refresh_failed")

    def next_event(self) -> Event | None:
        """The oldest event, or None."""
        return self._events.popleft() if self._events else None

    def _refresh(self) -> None:
        stored = self._store.context_kids()
        for kid in [kid for kid in self._live if kid not in stored]:
            self._remove(kid)
        for kid in stored - self._live.keys():
            record = self._store.context(kid)
            if record is not None:
                self._restore(record)
        wall = self._wall()
        for kid, (record, _) in list(self._live.items()):
            end = record.created_at + self.limits.context_life
            if wall >= (end if record.retire_at is None else min(end, record.retire_at)):
                self._store.delete_context(kid)
                self._remove(kid)

    def _restore(self, record: ContextRecord) -> None:
        identity = self._store.identity(record.thumbprint)
        try:
            if identity is None:
                raise SequenceError("a session of an identity that is not there")
            context = SecurityContext(record.gateway, record.keys, self._sequences, fresh=False, window=REPLAY_WINDOW)
        except SequenceError:
            self.counters.add("cloud_enrolment_contexts_unusable")
            self._store.delete_context(record.kid)
            return
        self._live[record.kid] = (record, context)
        self._events.append(ContextAdded(record.gateway, record.kid, context, record.keys, identity.public))

    def _remove(self, kid: bytes) -> None:
        live = self._live.pop(kid, None)
        if live is not None:
            self._events.append(ContextRemoved(live[0].gateway, kid, live[1]))
            with contextlib.suppress(SequenceError):  # numbers without a key harm nobody
                self._sequences.remove(live[1].record)


@dataclass(frozen=True, slots=True)
class _Change:
    """What one confirmed exchange writes."""

    record: IdentityRecord
    context: ContextRecord
    former: IdentityRecord | None
    code: CodeRecord | None
    contexts_before: list[ContextRecord]
    wall: float

    def ends(self, old: ContextRecord) -> bool:
        """Whether an older context ends at once: keys of a replaced gateway, and those that were retiring already."""
        return old.retire_at is not None or (self.former is not None and self.code is not None)
