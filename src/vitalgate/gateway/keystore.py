"""The key store: one sealed file of named secrets and of the data keys that the master key wraps.

On disk it is one CBOR map (RFC 8949): ``schema``; ``salt`` of the wrapping key; ``keys``, each [key id, purpose, made
at, active, wrapped key]; ``body``, a box with the named secrets under the active data key of purpose ``keystore``. The
box's additional data is everything before it, so that no key can be taken away or set active by changing the file.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import cbor2

from vitalgate.engine import Randomness, Wall
from vitalgate.gateway.files import locked, write_atomic
from vitalgate.gateway.master import MasterKey
from vitalgate.gateway.sealing import KEY_BYTES, SALT_BYTES, DataKey, SecretsError, open_box, seal_box

SCHEMA: Final = 1
OWN_PURPOSE: Final = "keystore"
KEY_ID_BYTES: Final = 8
MAX_NAMES: Final = 4096
MAX_NAME: Final = 200
MAX_SECRET: Final = 65536
MAX_KEYS: Final = 256
MAX_FILE: Final = 32 * 1024 * 1024

_WRAP_INFO: Final = b"vitalgate keystore wrap 1"

Meta = Mapping[str, str | int | float | bool | bytes | None]


@dataclass(frozen=True, slots=True)
class Secret:
    """One named secret and what is known of it (``meta`` is sealed as well)."""

    value: bytes = field(repr=False)
    meta: Meta


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What may be shown of a data key: its id, its purpose, when it was made (wall time), whether new data uses it."""

    key_id: str
    purpose: str
    made_at: float
    active: bool


class Keystore:
    """Named secrets and data keys; every change is on disk, synced, when the call returns.

    Several processes may hold the same file open: a change is made under a lock to what is on disk at that moment, and
    `get`, `names` and the key calls first take over what another process has written.
    """

    def __init__(self, path: Path, master: MasterKey, wall: Wall, randomness: Randomness) -> None:
        self.path = path
        self._master = master
        self._wall = wall
        self._randomness = randomness
        self._salt = b""
        self._keys: list[tuple[KeyInfo, DataKey]] = []
        self._secrets: dict[str, Secret] = {}
        self._stamp: tuple[int, int, int] | None = None

    @classmethod
    def open(
        cls,
        path: Path,
        master: MasterKey,
        *,
        create: bool = True,
        wall: Wall = time.time,
        randomness: Randomness = os.urandom,
    ) -> "Keystore":
        """The key store at ``path``, made when there is none (unless ``create`` is False).

        Raises `SecretsError` when it does not open under ``master``, is damaged, or cannot be read or written.
        """
        store = cls(path, master, wall, randomness)
        with store._changing(create):
            pass
        return store

    def put(self, name: str, secret: bytes, meta: Meta | None = None) -> None:
        """Keep ``secret`` (at most `MAX_SECRET` bytes) under ``name``, replacing what was there."""
        if not 0 < len(name) <= MAX_NAME or len(secret) > MAX_SECRET:
            raise SecretsError(f"a secret's name has 1 to {MAX_NAME} characters, a secret at most {MAX_SECRET} bytes")
        with self._changing():
            if name not in self._secrets and len(self._secrets) >= MAX_NAMES:
                raise SecretsError(f"key store {self.path} is full: {MAX_NAMES} secrets")
            self._secrets[name] = Secret(bytes(secret), dict(meta or {}))

    def get(self, name: str) -> Secret | None:
        """The secret called ``name``, or None."""
        self._refresh()
        return self._secrets.get(name)

    def delete(self, name: str) -> bool:
        """Forget ``name``; False when there was none. The old file's blocks are replaced, not scrubbed."""
        with self._changing():
            return self._secrets.pop(name, None) is not None

    def names(self, prefix: str = "") -> list[str]:
        """The names that begin with ``prefix``, sorted."""
        self._refresh()
        return sorted(name for name in self._secrets if name.startswith(prefix))

    def data_key(self, purpose: str, key_id: str = "") -> DataKey:
        """The active data key of ``purpose`` (made at the first call), or the one called ``key_id``.

        Raises `SecretsError` when no key of that purpose has that id.
        """
        self._refresh()
        for info, key in self._keys:
            if info.purpose == purpose and (info.key_id == key_id if key_id else info.active):
                return key
        if key_id:
            raise SecretsError(f"key store {self.path} has no key {key_id} for {purpose}: it was deleted, or the data "
                               "belongs to another installation")  # fmt: skip
        return self.rotate(purpose, only_if_absent=True)

    def key_infos(self) -> list[KeyInfo]:
        """All data keys, oldest first, without the keys themselves."""
        self._refresh()
        return [info for info, _ in self._keys]

    def rotate(self, purpose: str, *, only_if_absent: bool = False) -> DataKey:
        """Make a new active data key for ``purpose``; the former ones stay for opening what they sealed."""
        with self._changing():
            if only_if_absent:
                for info, key in self._keys:
                    if info.purpose == purpose and info.active:
                        return key
            if len(self._keys) >= MAX_KEYS:
                raise SecretsError(f"key store {self.path} holds {MAX_KEYS} data keys: delete retired ones")
            return self._new_key(purpose)

    def delete_key(self, key_id: str) -> None:
        """Forget a retired data key: what it sealed is unreadable from now on. An active one is refused."""
        with self._changing():
            for at, (info, _) in enumerate(self._keys):
                if info.key_id == key_id:
                    if info.active:
                        raise SecretsError(f"key {key_id} is in use for {info.purpose}: rotate it first")
                    del self._keys[at]
                    return
            raise SecretsError(f"key store {self.path} has no key {key_id}")

    def rewrap(self, master: MasterKey) -> None:
        """Put everything under another master key."""
        with self._changing():
            self._master = master
            self._salt = self._randomness(SALT_BYTES)
            self._new_key(OWN_PURPOSE)

    def _new_key(self, purpose: str) -> DataKey:
        key = DataKey(self._randomness(KEY_ID_BYTES).hex(), purpose, self._randomness(KEY_BYTES))
        retired = purpose == OWN_PURPOSE  # the body is sealed anew at every change: no old key is needed for it
        kept: list[tuple[KeyInfo, DataKey]] = []
        for info, old in self._keys:
            if info.purpose != purpose:
                kept.append((info, old))
            elif not retired:
                kept.append((KeyInfo(info.key_id, purpose, info.made_at, active=False), old))
        self._keys = [*kept, (KeyInfo(key.key_id, purpose, float(self._wall()), active=True), key)]
        return key

    @contextlib.contextmanager
    def _changing(self, create: bool = True) -> Iterator[None]:
        """Take over what is on disk, let the caller change it, write it; on any error memory follows the disk."""
        try:
            with locked(self.path):
                self._refresh()
                if self._stamp is None:
                    if not create:
                        raise SecretsError(f"there is no key store {self.path}")
                    self._salt = self._randomness(SALT_BYTES)
                    self._new_key(OWN_PURPOSE)
                before = (self._master, self._salt, list(self._keys), dict(self._secrets))
                try:
                    yield
                    if self._stamp is None or before != (self._master, self._salt, self._keys, self._secrets):
                        write_atomic(self.path, self._encode())
                        self._stamp = self._read_stamp()
                except (OSError, SecretsError):
                    self._master, self._salt, self._keys, self._secrets = before
                    raise
        except OSError as error:
            raise SecretsError(f"key store {self.path}: {error.strerror}") from error

    def _read_stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return (found.st_ino, found.st_mtime_ns, found.st_size)

    def _refresh(self) -> None:
        """Take over the file when it is another than the one last read or written."""
        try:
            stamp = self._read_stamp()
            if stamp == self._stamp:
                return
            if stamp is None:
                raise SecretsError(f"key store {self.path} is gone: restore it; without it nothing sealed can be read")
            if stamp[2] > MAX_FILE:
                raise SecretsError(f"key store {self.path} is larger than {MAX_FILE} bytes: it is damaged")
            self._decode(self.path.read_bytes())
            self._stamp = stamp
        except OSError as error:
            raise SecretsError(f"key store {self.path}: {error.strerror}") from error

    def _aad(self, keys: list[list[Any]]) -> bytes:
        return cbor2.dumps([SCHEMA, self._salt, keys], canonical=True)

    def _encode(self) -> bytes:
        wrapping = self._master.derive(_WRAP_INFO, self._salt)
        keys: list[list[Any]] = [
            [i.key_id, i.purpose, i.made_at, i.active, seal_box(wrapping, k.key, _key_aad(i), self._randomness)]
            for i, k in self._keys
        ]
        own = next(key for info, key in self._keys if info.purpose == OWN_PURPOSE and info.active)
        body = cbor2.dumps({name: [secret.value, dict(secret.meta)] for name, secret in self._secrets.items()})
        box = seal_box(own.key, body, self._aad(keys), self._randomness)
        return cbor2.dumps({"schema": SCHEMA, "salt": self._salt, "keys": keys, "body": box})

    def _decode(self, data: bytes) -> None:
        damaged = f"key store {self.path} is damaged: restore it from a backup"
        file = _map(data, damaged)
        if file.get("schema") != SCHEMA:
            raise SecretsError(f"key store {self.path} has schema {file.get('schema')!r}, this version knows {SCHEMA}")
        salt, rows, box = file.get("salt"), file.get("keys"), file.get("body")
        if not (isinstance(salt, bytes) and isinstance(rows, list) and isinstance(box, bytes)):
            raise SecretsError(damaged)
        wrapping = self._master.derive(_WRAP_INFO, salt)
        keys: list[tuple[KeyInfo, DataKey]] = []
        for row in rows:
            if not (isinstance(row, list) and [type(part) for part in row] == [str, str, float, bool, bytes]):
                raise SecretsError(damaged)
            info = KeyInfo(row[0], row[1], row[2], row[3])
            try:
                keys.append((info, DataKey(info.key_id, info.purpose, open_box(wrapping, row[4], _key_aad(info)))))
            except SecretsError as error:
                raise SecretsError(
                    f"key store {self.path} does not open under the master key from {self._master.source}: "
                    "give the one it was made with; if that is the one, the file is damaged"
                ) from error
        own = [key for info, key in keys if info.purpose == OWN_PURPOSE and info.active]
        if len(own) != 1:
            raise SecretsError(damaged)
        before, self._salt = self._salt, salt
        try:
            body = _map(open_box(own[0].key, box, self._aad(rows)), damaged)
            secrets = {str(name): Secret(value, meta) for name, (value, meta) in body.items()}
        except (SecretsError, ValueError, TypeError) as error:
            self._salt = before
            raise SecretsError(damaged) from error
        self._keys, self._secrets = keys, secrets

    def __repr__(self) -> str:
        return f"Keystore({str(self.path)!r})"


def _key_aad(info: KeyInfo) -> bytes:
    return cbor2.dumps([SCHEMA, info.key_id, info.purpose, info.made_at, info.active])


def _map(data: bytes, damaged: str) -> dict[Any, Any]:
    try:
        value = cbor2.loads(data)
    except (cbor2.CBORDecodeError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        raise SecretsError(damaged) from error
    if not isinstance(value, dict):
        raise SecretsError(damaged)
    return value
