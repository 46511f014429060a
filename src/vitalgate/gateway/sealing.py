"""Sealing: HKDF-SHA256 (RFC 5869) for keys, AES-256-GCM (NIST SP 800-38D) for what is kept under them.

Two forms. A *box* is sealed under a key of its own (derived with a random salt), so it needs no nonce bookkeeping:
for small files written seldom. A *sealer* serves streams of records: each epoch has its own key and the record's
sequence is the nonce, so that no nonce can come twice as long as an epoch is written by one opening of one spool.
"""

import os
from dataclasses import dataclass, field
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vitalgate.engine import Randomness

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
SALT_BYTES: Final = 32
BOX_OVERHEAD: Final = SALT_BYTES + TAG_BYTES
MAX_SEQUENCE: Final = 2**63 - 1
"""The largest sequence of an epoch: what SQLite holds as an integer."""
MAX_OPEN_EPOCHS: Final = 64
"""Epoch keys a sealer keeps ready for opening; the least recently used one goes first and is derived again on use."""

_EPOCH_INFO: Final = b"vitalgate sealer epoch 1 "
_FIXED_INFO: Final = b"vitalgate fixed data key 1 "
_BOX_INFO: Final = b"vitalgate box 1"
_BOX_NONCE: Final = bytes(NONCE_BYTES)  # one box a key


class SecretsError(Exception):
    """A secret cannot be had or trusted: says what, where and what to do about it, and never the secret itself."""


def derive(key: bytes, info: bytes, salt: bytes = b"", length: int = KEY_BYTES) -> bytes:
    """HKDF-SHA256 of ``key``: ``length`` bytes bound to ``info``."""
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=salt or None, info=info).derive(key)


def seal_box(key: bytes, plaintext: bytes, aad: bytes, randomness: Randomness = os.urandom) -> bytes:
    """A box: 32 bytes of salt, then ciphertext and tag (`BOX_OVERHEAD` bytes more than ``plaintext``)."""
    salt = randomness(SALT_BYTES)
    return salt + AESGCM(derive(key, _BOX_INFO, salt)).encrypt(_BOX_NONCE, plaintext, aad)


def open_box(key: bytes, box: bytes, aad: bytes) -> bytes:
    """What `seal_box` sealed. Raises `SecretsError` for another key, other ``aad`` or any changed byte."""
    if len(box) < BOX_OVERHEAD:
        raise SecretsError("a sealed box is cut short")
    try:
        return AESGCM(derive(key, _BOX_INFO, box[:SALT_BYTES])).decrypt(_BOX_NONCE, box[SALT_BYTES:], aad)
    except InvalidTag as error:
        raise SecretsError("a sealed box does not open: changed, or sealed under another key") from error


@dataclass(frozen=True, slots=True)
class DataKey:
    """One key that data is sealed under: ``key_id`` (16 hexadecimal digits, no secret), ``purpose`` and the key."""

    key_id: str
    purpose: str
    key: bytes = field(repr=False)

    def __reduce__(self) -> str:
        raise TypeError("a data key is kept in the key store and in no other way")


class KeySource(Protocol):
    """Where data keys come from: the key store, or `FixedKeys`."""

    def data_key(self, purpose: str, key_id: str = "") -> DataKey:
        """The active key of ``purpose`` (made when there is none), or the one called ``key_id``.

        Raises `SecretsError` when no key of that purpose has that id.
        """


class FixedKeys:
    """Data keys derived from one secret of 32 bytes that the caller holds (tests, benchmarks, the virtual network)."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise ValueError(f"the secret has {KEY_BYTES} bytes")
        self._secret = secret

    def data_key(self, purpose: str, key_id: str = "") -> DataKey:
        """The one key of ``purpose``; its id is 'fixed'. Raises `SecretsError` for another id."""
        if key_id not in ("", "fixed"):
            raise SecretsError(f"there is no key {key_id} for {purpose}")
        return DataKey("fixed", purpose, derive(self._secret, _FIXED_INFO + purpose.encode()))


class EpochSealer:
    """Seals and opens the records of one epoch; the sequence is the nonce and only ever grows while sealing."""

    __slots__ = ("_aead", "_last", "epoch")

    def __init__(self, key: bytes, epoch: int) -> None:
        self._aead = AESGCM(key)
        self._last = 0
        self.epoch = epoch

    @property
    def has_sealed(self) -> bool:
        """True once a record has been sealed."""
        return self._last > 0

    def seal(self, sequence: int, plaintext: bytes, aad: bytes) -> bytes:
        """Ciphertext and tag, 16 bytes more than ``plaintext``.

        ``sequence`` (1 or more) must be larger than every one sealed before: raises `SecretsError` otherwise, since the
        same nonce twice would give the key away.
        """
        if not self._last < sequence <= MAX_SEQUENCE:
            raise SecretsError(f"sequence {sequence} of an epoch is sealed already: a nonce is never used twice")
        self._last = sequence
        return self._aead.encrypt(sequence.to_bytes(NONCE_BYTES, "big"), plaintext, aad)

    def open(self, sequence: int, sealed: bytes, aad: bytes) -> bytes:
        """What was sealed. Raises `SecretsError` when record, place (epoch, sequence) or ``aad`` is another."""
        if not 0 <= sequence <= MAX_SEQUENCE:
            raise SecretsError(f"no record has sequence {sequence}")
        try:
            return self._aead.decrypt(sequence.to_bytes(NONCE_BYTES, "big"), sealed, aad)
        except InvalidTag as error:
            raise SecretsError(
                f"record {sequence} does not open: changed, moved, or sealed under another key"
            ) from error


class Sealer:
    """Records by epoch under one data key (32 bytes, or a `DataKey` of the key store)."""

    __slots__ = ("_epochs", "_key", "key_id")

    def __init__(self, key: bytes | DataKey) -> None:
        secret = key.key if isinstance(key, DataKey) else key
        if len(secret) != KEY_BYTES:
            raise ValueError(f"a sealer's key has {KEY_BYTES} bytes")
        self.key_id = key.key_id if isinstance(key, DataKey) else ""
        self._key = secret
        self._epochs: dict[int, EpochSealer] = {}  # least recently used first

    def for_epoch(self, epoch: int) -> EpochSealer:
        """The one object for ``epoch`` (0 .. 2**64 - 1)."""
        found = self._epochs.pop(epoch, None)
        if found is None:
            found = EpochSealer(derive(self._key, _EPOCH_INFO + epoch.to_bytes(8, "big")), epoch)
        self._epochs[epoch] = found
        if len(self._epochs) > MAX_OPEN_EPOCHS:
            # One that has sealed stays: its guard against repeated nonces would go with it.
            old = next((number for number, sealer in self._epochs.items() if not sealer.has_sealed), epoch)
            if old != epoch:
                del self._epochs[old]
        return found

    def __reduce__(self) -> str:
        raise TypeError("a sealer holds a key: it is never pickled")
