"""`Endpoint`: DTLS for any number of peers on one socket, client and server at once, as one sans-IO engine."""

import os
import time
from collections.abc import Hashable

from vitalgate.counters import Counters
from vitalgate.dtls.alerts import Alert, HandshakeError
from vitalgate.dtls.association import NEVER, Association
from vitalgate.dtls.client import ClientStart
from vitalgate.dtls.core import Core
from vitalgate.dtls.credentials import Credentials, Identity
from vitalgate.dtls.events import End, Event, Failed
from vitalgate.dtls.front import HELLO_AT, Front
from vitalgate.dtls.handshaking import HandshakeType
from vitalgate.dtls.judging import Target
from vitalgate.dtls.ledger import Ledger
from vitalgate.dtls.parameters import Limits, Parameters
from vitalgate.dtls.post13 import Post13
from vitalgate.dtls.protection import Exhausted
from vitalgate.dtls.protection13 import Seal13
from vitalgate.dtls.reading13 import Reading13
from vitalgate.dtls.records import CID_AT, CID_BIT, FIXED_BITS, FIXED_MASK, HEADER_BYTES, LARGEST_PLAINTEXT, ContentType
from vitalgate.dtls.sessions import SessionTable
from vitalgate.engine import Datagram, Path, Randomness, Wall

_APPLICATION = int(ContentType.APPLICATION_DATA)
_HANDSHAKE = int(ContentType.HANDSHAKE)
_CID = int(ContentType.TLS12_CID)

WEAR_CHECK = 0x3FF
"""Every 1024 records it is looked at how much a key has been used."""


class Endpoint:
    """One DTLS endpoint; every method is one of the engine's five calls or the application's.

    ``listening``: it answers hellos as a server. It may connect as a client whether it listens or not.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        listening: bool = False,
        parameters: Parameters = Parameters(),  # noqa: B008  # frozen
        limits: Limits = Limits(),  # noqa: B008  # frozen
        counters: Counters | None = None,
        randomness: Randomness = os.urandom,
        wall: Wall = time.time,
    ) -> None:
        self.counters = Counters() if counters is None else counters
        self._core = Core(credentials, parameters, limits, self.counters, randomness, wall, listening=listening)
        self._front = Front(self._core, self._new_number)
        self._numbers = 0
        self._cid_length = parameters.cid or 0

    # The engine's five calls

    def receive_datagram(self, data: bytes, path: Path, now: float) -> None:
        """Feed one datagram. What belongs to nobody, or does not verify, is counted and dropped."""
        core = self._core
        if not data:
            core.counters.add("dtls_discarded", "header")
            return
        first = data[0]
        if first == _CID:
            association = core.by_cid.get(data[CID_AT : CID_AT + self._cid_length])
        elif first & (FIXED_MASK | CID_BIT) == FIXED_BITS | CID_BIT:
            association = core.by_cid.get(data[1 : 1 + self._cid_length])
        elif core.starting and path in core.starting:
            self._receive_while_starting(data, path, now)
            return
        elif first == _HANDSHAKE and core.listening and _begins_with_hello(data):
            self._front.receive(data, path, now)
            return
        else:
            association = core.by_path.get(path)
        if association is None:
            core.counters.add("dtls_discarded", "nobody")
        else:
            association.receive(data, path, now)

    def datagrams_to_send(self, now: float) -> list[Datagram]:
        """Take what is to be sent now."""
        outgoing = self._core.outgoing
        taken = outgoing[:]
        outgoing.clear()
        return taken

    def next_timeout(self) -> float | None:
        """The one deadline that matters next, or None."""
        return self._core.timers.next()

    def handle_timeout(self, now: float) -> None:
        """A deadline has passed; harmless when it has not."""
        self._core.timers.run(now)

    def next_event(self) -> Event | None:
        """Take the oldest event, or None."""
        events = self._core.events
        return events.popleft() if events else None

    # The application's

    def connect(
        self,
        path: Path,
        now: float,
        target: Target = Target(),  # noqa: B008  # frozen
        *,
        session_key: Hashable = None,
    ) -> int:
        """Begin a handshake as a client and return the association's number; `Connected` or `Failed` follows. Sessions
        are resumed by ``session_key``, which by default is path and target. An association with this path that is there
        already is closed."""
        core = self._core
        before = core.by_path.get(path)
        if before is not None:
            before.end(End.LOCAL, now, answer=Alert.CLOSE_NOTIFY)
        association = Association(core, self._new_number(), path, now, client=True)
        if len(core.associations) >= core.limits.associations:
            core.counters.add("dtls_limit_reached", "associations")
            core.emit(Failed(association.number, path, End.LIMIT))
            return association.number
        core.associations[association.number] = association
        core.by_path[path] = association
        core.counters.add("dtls_handshakes_started", "local")
        core.timers.set(association, now + core.parameters.handshake)
        try:
            ClientStart(association, target, (path, target) if session_key is None else session_key, now)
        except HandshakeError as error:
            association.end(End.REFUSED, now, detail=error.reason)
        return association.number

    def send(self, association: int, data: bytes, now: float) -> bool:
        """Send application data (up to 2^14 bytes) as one record; False where there is no complete association of this
        number (any more): nothing goes out unprotected."""
        if len(data) > LARGEST_PLAINTEXT:
            raise ValueError("a record holds 16384 bytes at most")
        found = self._core.associations.get(association)
        if found is None or not found.established:
            self.counters.add("dtls_not_sent")
            return False
        try:
            found.send(data)
            if found.seal.sequence & WEAR_CHECK == 0:
                self._mind_wear(found, now)
        except Exhausted:
            found.end(End.EXHAUSTED, now)
            return False
        return True

    def close(self, association: int, now: float) -> None:
        """End an association with close_notify; `Closed` or `Failed` follows. Harmless where there is none."""
        found = self._core.associations.get(association)
        if found is not None:
            found.end(End.LOCAL, now, answer=Alert.CLOSE_NOTIFY)

    def end_peer(self, name: str, now: float) -> int:
        """End every association with the peer of this name, whose credential was taken out of service; how many there
        were. `Closed` follows for each."""
        ended = [each for each in self._core.associations.values() if each.established and each.identity.name == name]
        for association in ended:
            association.end(End.LOCAL, now, answer=Alert.CLOSE_NOTIFY)
        return len(ended)

    def use(self, credentials: Credentials) -> None:
        """Handshakes go by these from now on, and what a client kept for resumption is forgotten. Associations that are
        there stay as they are."""
        core = self._core
        core.credentials = credentials
        core.tickets = SessionTable(core.limits.sessions)

    # DTLS 1.3 after the handshake (RFC 9147 sections 8 and 9); nothing happens in an association of DTLS 1.2

    def update_keys(self, association: int, now: float, *, ask: bool = False) -> None:
        """Change our key, and with ``ask`` have the peer change its own. It happens by itself before a key is used up
        or too many forgeries were seen."""
        found = self._post(association)
        if found is not None:
            found.update(now, ask=ask)

    def give_cids(self, association: int, count: int, now: float, *, immediate: bool = False) -> int:
        """Let the peer use new connection IDs, as spares or (``immediate``) at once; how many they are."""
        found = self._post(association)
        return 0 if found is None else found.give_cids(count, now, immediate=immediate)

    def ask_cids(self, association: int, count: int, now: float) -> bool:
        """Ask the peer for spare connection IDs; False where it uses none, or still owes us some."""
        found = self._post(association)
        return found is not None and found.ask_cids(count, now)

    def use_spare_cid(self, association: int) -> bool:
        """Use another connection ID from now on, so that who watches cannot tell that it is us; False without one."""
        found = self._post(association)
        return found is not None and found.use_spare_cid()

    def _post(self, association: int) -> Post13 | None:
        found = self._core.associations.get(association)
        reading = None if found is None or not found.established else found.reading
        return reading.after if isinstance(reading, Reading13) and isinstance(reading.after, Post13) else None

    def association_at(self, path: Path) -> int | None:
        """The number of the association with ``path``, complete or begun by us; None where there is none."""
        found = self._core.by_path.get(path)
        return None if found is None else found.number

    def identity(self, association: int) -> Identity | None:
        """Who the peer of a complete association is."""
        found = self._core.associations.get(association)
        return found.identity if found is not None and found.established else None

    def version(self, association: int) -> int:
        """The version of a complete association, 0 where there is none."""
        found = self._core.associations.get(association)
        return found.version if found is not None and found.established else 0

    def heard(self, association: int) -> float:
        """When the last record of a peer came that verified; long ago where there is no such association."""
        found = self._core.associations.get(association)
        return NEVER if found is None else found.heard

    def path(self, association: int) -> Path | None:
        """Where the peer is now."""
        found = self._core.associations.get(association)
        return None if found is None else found.path

    def attach(self, ledger: Ledger | None) -> None:
        """Have every record that is written entered into ``ledger``; None to stop."""
        self._core.ledger = ledger

    def __len__(self) -> int:
        """Associations, complete or not."""
        return len(self._core.associations)

    def _mind_wear(self, association: Association, now: float) -> None:
        """A key that has been used a lot is changed in time (RFC 9147 section 4.5.3)."""
        post = self._post(association.number)
        if post is not None and isinstance(association.seal, Seal13) and association.seal.worn:
            post.update(now, ask=False)

    def _new_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _receive_while_starting(self, data: bytes, path: Path, now: float) -> None:
        """A peer shakes hands from ``path``, where a complete association may be too (RFC 6347 section 4.2.8). What is
        unprotected concerns the handshake; protected records belong to the one of the two that can read them."""
        core = self._core
        starting = core.starting[path]
        if data[0] == _HANDSHAKE and _begins_with_hello(data):
            self._front.receive(data, path, now)
            return
        complete = core.by_path.get(path)
        if complete is None or _is_plain(data):
            starting.receive(data, path, now)
        elif starting.reading is None:
            if not complete.receive_if_readable(data, path, now):
                starting.keep_early(data)
        elif not starting.receive_if_readable(data, path, now):
            complete.receive(data, path, now)


def _begins_with_hello(data: bytes) -> bool:
    """A ClientHello in epoch 0 is the first message of the datagram."""
    return len(data) > HELLO_AT and data[HELLO_AT] == HandshakeType.CLIENT_HELLO and data[3:5] == b"\0\0"


def _is_plain(data: bytes) -> bool:
    return len(data) >= HEADER_BYTES and data[0] & FIXED_MASK != FIXED_BITS and data[3:5] == b"\0\0"
