"""Opening a spool: what is found, what became of the last one, and the keys that read it."""

import hmac
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vitalgate.engine import Randomness, Wall
from vitalgate.gateway import spooldb
from vitalgate.gateway.gaps import Run
from vitalgate.gateway.sealing import (
    KEY_BYTES,
    EpochSealer,
    KeySource,
    Sealer,
    SecretsError,
    derive,
    open_box,
    seal_box,
)
from vitalgate.gateway.spooldb import Mark, SpoolDamaged, SpoolError
from vitalgate.gateway.spooltables import DeviceRow, EpochRow, Share, Tables
from vitalgate.gateway.storage import OpeningCause

PURPOSE: Final = "spool"
"""The purpose of the spool's data keys in the key store."""
TAG_BYTES: Final = 16
# names of rows in ``meta``
_SEALED: Final = "secret"
_SEALED_UNDER: Final = "secret-key-id"
_SEAL_AAD: Final = b"vitalgate spool secret 1"


class Cabinet:
    """The keys of one spool.

    A random *secret* made with the file gives the keys for tags (look-up) and device names; it is sealed in the file
    under the active data key, so that rotating data keys leaves tags alone. Entries are sealed under the data key that
    was active when their epoch was opened.
    """

    __slots__ = ("_keys", "_name_key", "_randomness", "_sealers", "_secret", "_tag_key", "active_key_id")

    def __init__(self, keys: KeySource, secret: bytes, randomness: Randomness) -> None:
        active = keys.data_key(PURPOSE)
        self._keys = keys
        self._secret = secret
        self._randomness = randomness
        self._tag_key = derive(secret, b"vitalgate spool tag 1")
        self._name_key = derive(secret, b"vitalgate spool name 1")
        self._sealers = {active.key_id: Sealer(active)}
        self.active_key_id = active.key_id

    def sealed_secret(self) -> list[tuple[str, bytes]]:
        """The rows of ``meta`` that `read_secret` reads, under the active data key."""
        box = seal_box(self._keys.data_key(PURPOSE).key, self._secret, _SEAL_AAD, self._randomness)
        return [(_SEALED, box), (_SEALED_UNDER, self.active_key_id.encode())]

    def tag(self, kind: bytes, text: bytes) -> bytes:
        """A keyed hash of ``text``, 16 bytes: equal texts have equal tags, and a tag says nothing else."""
        return hmac.digest(self._tag_key, kind + b"\0" + text, "sha256")[:TAG_BYTES]

    def seal_name(self, ref: int, name: str) -> bytes:
        """A device's name for the file."""
        return seal_box(self._name_key, name.encode(), ref.to_bytes(8, "big"), self._randomness)

    def open_name(self, ref: int, box: bytes) -> str:
        """A device's name from the file. Raises `SecretsError`."""
        return open_box(self._name_key, box, ref.to_bytes(8, "big")).decode()

    def sealer(self, row: EpochRow) -> EpochSealer:
        """What opens (and for the open epoch seals) the entries of an epoch. Raises `SecretsError` without its key."""
        found = self._sealers.get(row.key_id)
        if found is None:
            found = self._sealers[row.key_id] = Sealer(self._keys.data_key(PURPOSE, row.key_id))
        return found.for_epoch(row.epoch)


@dataclass(slots=True)
class Device:
    """A device in memory: its row, and its name in clear."""

    row: DeviceRow
    urn: str
    repeats: int = 0


@dataclass(slots=True)
class OpenSpool:
    """What an opening found. ``alive`` is when the gateway was last known to be alive, where only the mark knows."""

    tables: Tables
    cabinet: Cabinet
    epochs: dict[int, EpochRow]
    devices: list[Device]
    gaps: list[Run]
    shares: list[Share]
    refused: int
    last_id: int
    cause: OpeningCause
    previous_epoch: int = 0
    previous_sequence: int = 0
    alive: float | None = None
    marked_epoch: int = 0
    aside: str = ""


def open_spool(path: Path | None, mark: Path | None, keys: KeySource, wall: Wall, randomness: Randomness) -> OpenSpool:
    """Open the spool at ``path`` (None: in memory), making it where there is none and moving a damaged one aside.

    Raises `SpoolError` when the disk refuses and `SecretsError` when there is no data key at all.
    """
    keys.data_key(PURPOSE)
    known = None if mark is None else spooldb.read_mark(mark)
    aside = ""
    try:
        try:
            found = _load(path, keys, randomness)
        except SpoolDamaged:
            assert path is not None, "a database in memory is new"
            aside = str(spooldb.move_aside(path, wall()))
            found = _load(path, keys, randomness)
    except SpoolDamaged as error:
        raise SpoolError(f"spool {path}: a new one is damaged at once ({error}): check the disk") from error
    except sqlite3.Error as error:
        raise SpoolError(
            f"spool {path}: {spooldb.failure(error)}: {error}; see that its folder can be written"
        ) from error
    except OSError as error:
        raise SpoolError(f"spool {path}: {error.strerror}; see that its folder exists and can be written") from error
    found.aside = aside
    _judge(found, known)
    return found


def _judge(found: OpenSpool, known: Mark | None) -> None:
    """Say what became of the last spool, from the file and the mark."""
    last = next(reversed(found.epochs.values()), None)
    if last is not None:
        found.previous_epoch, found.previous_sequence = last.epoch, last.last
        found.cause = OpeningCause.STOPPED if last.clean else OpeningCause.CRASHED
    if known is None:
        if found.aside:
            found.cause = OpeningCause.DAMAGED
        return
    found.marked_epoch = known.epoch
    marked = found.epochs.get(known.epoch)
    if found.aside:
        found.cause = OpeningCause.DAMAGED
    elif last is None:
        found.cause = OpeningCause.MISSING
    elif marked is None or marked.last < known.sequence:
        found.cause = OpeningCause.RESTORED  # the mark knows of commits that this file has never seen
    else:
        return
    found.previous_epoch, found.previous_sequence, found.alive = known.epoch, known.sequence, known.alive


def _load(path: Path | None, keys: KeySource, randomness: Randomness) -> OpenSpool:
    connection = spooldb.connect(path)
    try:
        return _read(Tables(connection), keys, randomness)
    except sqlite3.Error as error:
        connection.close()
        if spooldb.failure(error) == "damaged":
            raise SpoolDamaged(str(error)) from error
        raise
    except (SpoolDamaged, SecretsError, ValueError, TypeError) as error:
        # ValueError, TypeError: rows that SQLite finds whole and that this version did not write
        connection.close()
        raise SpoolDamaged(str(error)) from error


def _read(tables: Tables, keys: KeySource, randomness: Randomness) -> OpenSpool:
    box, key_id = tables.meta(_SEALED), tables.meta(_SEALED_UNDER)
    epochs = {row.epoch: row for row in tables.epochs()}
    if box is not None and key_id is not None:
        secret = open_box(keys.data_key(PURPOSE, key_id.decode()).key, box, _SEAL_AAD)
    elif not epochs:
        secret = randomness(KEY_BYTES)
    else:
        raise SpoolDamaged("its secret is missing")
    cabinet = Cabinet(keys, secret, randomness)
    devices = [Device(row, cabinet.open_name(row.ref, row.sealed_urn), repeats) for row, repeats in tables.devices()]
    shares = tables.shares()
    refused, last_refused = tables.refused()
    last_id = max((last_refused, *(share.last_id for share in shares)))
    return OpenSpool(tables, cabinet, epochs, devices, tables.gaps(), shares, refused, last_id, OpeningCause.FIRST)
