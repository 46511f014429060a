"""Sealing of the store's columns, and keyed look-up of what must not stand in clear.

Every column that holds clinical text, names or addresses is sealed with AES-256-GCM; where rows must be found by such a
text, a keyed hash (HMAC-SHA-256, 16 bytes) stands beside it. Two data keys of the key store are behind it all: purpose
``store`` for sealing (it may be rotated; table ``seals`` says which key a run used) and purpose ``store-index`` for
look-up and the audit chain (never changed in the life of a store).

**A nonce is never used twice under a key**, not even after an old copy of the database is put back: each opening of the
store for writing draws a fresh random 32-byte salt, writes it to table ``seals`` in a transaction of its own *before*
anything is sealed, and derives its own *run key* from data key and salt. The nonce is the row's number and a counter of
this run. A restored backup knows nothing of the nonces used since, and need not: the next run has another salt,
therefore another key. A forked process, which would share the counter, is refused.

What is sealed is bound by its additional data to the place it belongs to, so that a sealed value moved to another row
does not open.
"""

import hmac
import itertools
import os
import struct
import threading
from typing import Final

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vitalgate.cloud.store.errors import StoreKeyError
from vitalgate.cloud.store.schema import meta, seals
from vitalgate.engine import Randomness
from vitalgate.gateway.secrets import DataKey, KeySource, SecretsError, derive

SEAL_PURPOSE: Final = "store"
INDEX_PURPOSE: Final = "store-index"
LOOKUP_BYTES: Final = 16
_SALT_BYTES: Final = 32
_NONCE: Final = struct.Struct(">IQ")
OVERHEAD: Final = _NONCE.size + 16
MAX_SEALS: Final = 1 << 32
"""Messages under one run key (SP 800-38D section 8.3 allows as many with random nonces; counters would allow more)."""
_MAX_READERS: Final = 256
_INFO: Final = b"vitalgate store 1 "


class Keys:
    """The keys of one store. Never shown by repr; `seal` needs a run (`begin_run`, then `use_run`)."""

    __slots__ = ("_audit", "_count", "_index", "_lock", "_lookup", "_pid", "_randomness", "_readers", "_run", "_run_id",
                 "_source")  # fmt: skip

    def __init__(self, source: KeySource, randomness: Randomness = os.urandom) -> None:
        self._source = source
        self._randomness = randomness
        self._lock = threading.Lock()
        self._readers: dict[int, AESGCM] = {}
        self._run: AESGCM | None = None
        self._run_id = 0
        self._count = itertools.count()
        self._pid = 0
        self._use_index(source.data_key(INDEX_PURPOSE))

    def __repr__(self) -> str:
        return "Keys()"

    def __reduce__(self) -> str:
        raise TypeError("the keys of a store are never pickled")

    def _use_index(self, index: DataKey) -> None:
        self._index = index.key_id
        self._lookup = derive(index.key, _INFO + b"lookup")
        self._audit = derive(index.key, _INFO + b"audit")

    def attach(self, connection: sa.Connection, *, new: bool) -> None:
        """Take over a store: note which index key it is made with (``new``), or check that this key source has it.

        Raises `StoreKeyError` where it does not.
        """
        if new:
            mark = self.lookup("check", "")
            connection.execute(
                sa.insert(meta),
                [{"name": "index_key", "value": self._index.encode()}, {"name": "index_check", "value": mark}],
            )
            return
        rows = dict(connection.execute(sa.select(meta.c.name, meta.c.value)).all())
        try:
            self._use_index(self._source.data_key(INDEX_PURPOSE, bytes(rows["index_key"]).decode()))
        except (SecretsError, KeyError) as error:
            raise StoreKeyError(
                "the store belongs to another key store: give the one it was made with, or restore it from its backup"
            ) from error
        if not hmac.compare_digest(self.lookup("check", ""), bytes(rows["index_check"])):
            raise StoreKeyError("the key store has another key under the name that the store's key had")

    def lookup(self, kind: str, text: str) -> bytes:
        """The keyed hash by which a row is found: 16 bytes, different for each ``kind``."""
        return hmac.digest(self._lookup, kind.encode() + b"\0" + text.encode(), "sha256")[:LOOKUP_BYTES]

    def token_hash(self, kind: str, token: bytes) -> bytes:
        """What is stored in place of a bearer token (session, sign-in link): 32 bytes."""
        return hmac.digest(self._lookup, kind.encode() + b"\1" + token, "sha256")

    def chain(self, previous: bytes, content: bytes) -> bytes:
        """The next link of the audit chain: HMAC over the link before it and the row's content, 32 bytes."""
        return hmac.digest(self._audit, previous + content, "sha256")

    @property
    def in_run(self) -> bool:
        """True while this process may seal."""
        return self._run is not None and os.getpid() == self._pid

    def begin_run(self, connection: sa.Connection) -> tuple[int, AESGCM]:
        """Write a fresh salt; the caller commits it *before* handing the result to `use_run`."""
        salt = self._randomness(_SALT_BYTES)
        key = self._source.data_key(SEAL_PURPOSE)
        made = connection.execute(sa.insert(seals).values(salt=salt, key_id=key.key_id)).inserted_primary_key
        assert made is not None
        return int(made[0]), AESGCM(derive(key.key, _INFO + b"run", salt))

    def use_run(self, run: tuple[int, AESGCM]) -> None:
        """Seal under this run, whose salt is durable, from now on."""
        with self._lock:
            self._count = itertools.count()
            self._pid = os.getpid()
            self._run_id, self._run = run
            self._readers[self._run_id] = self._run

    def end_run(self) -> None:
        """Seal no more under this run; the next writing transaction begins another (with the active data key)."""
        self._run = None

    def seal(self, plaintext: bytes, context: bytes) -> bytes:
        """Nonce, ciphertext and tag (28 bytes more than the plaintext), bound to ``context``."""
        number = next(self._count)
        run = self._run
        if run is None or number >= MAX_SEALS or os.getpid() != self._pid:
            self._run = None
            raise StoreKeyError("sealing outside a run of this process")
        nonce = _NONCE.pack(self._run_id, number)
        return nonce + run.encrypt(nonce, plaintext, context)

    def seal_text(self, text: str, context: str) -> bytes:
        """`seal` for text."""
        return self.seal(text.encode(), context.encode())

    def unseal(self, connection: sa.Connection, blob: bytes, context: bytes) -> bytes:
        """Open what `seal` made. Raises `StoreKeyError` when it was altered, moved or made with another key."""
        if len(blob) < OVERHEAD:
            raise StoreKeyError("sealed content is truncated")
        nonce = blob[: _NONCE.size]
        run_id = int.from_bytes(nonce[:4], "big")
        run = self._readers.get(run_id) or self._reader(connection, run_id)
        try:
            return run.decrypt(nonce, blob[_NONCE.size :], context)
        except InvalidTag as error:
            raise StoreKeyError("sealed content does not open: altered, moved or of another key") from error

    def unseal_text(self, connection: sa.Connection, blob: bytes, context: str) -> str:
        """`unseal` for text."""
        return self.unseal(connection, blob, context.encode()).decode()

    def _reader(self, connection: sa.Connection, run_id: int) -> AESGCM:
        row = connection.execute(sa.select(seals.c.key_id, seals.c.salt).where(seals.c.id == run_id)).one_or_none()
        if row is None:
            raise StoreKeyError("sealed content of an unknown run")
        try:
            key = self._source.data_key(SEAL_PURPOSE, row.key_id)
        except SecretsError as error:
            raise StoreKeyError(f"sealed content of a data key that the key store does not have: {error}") from error
        run = AESGCM(derive(key.key, _INFO + b"run", bytes(row.salt)))
        with self._lock:
            if len(self._readers) >= _MAX_READERS:  # old runs are derived again when they are read again
                self._readers = {self._run_id: self._run} if self._run is not None else {}
            self._readers[run_id] = run
        return run
