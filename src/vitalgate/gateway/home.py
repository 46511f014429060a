"""Where a program keeps its things: the data folder (backed up), the state folder (in no backup), their key stores.

The data folder holds what must survive; the state folder holds send counters and session keys, which must never come
back from yesterday, and says which process runs (`Running`).
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from vitalgate.gateway.files import write_atomic
from vitalgate.gateway.secrets import Keystore, MasterKey, SecretsError
from vitalgate.gateway.settings import MasterKeySource, Storage
from vitalgate.oscore.errors import SequenceError
from vitalgate.oscore.sequence import FileSequenceStore

KEYS = "keys.sealed"
SEQUENCES = "sequences"
BINDINGS = "bindings.sealed"
SPOOL = "spool.db"
RUNNING = "running.json"


class HomeError(RuntimeError):
    """A folder or key that cannot be used; the text says what, where and the remedy."""


@dataclass(frozen=True, slots=True)
class Running:
    """What a running program tells other commands on the same machine: its process and where it listens."""

    pid: int
    listeners: dict[str, str]

    @property
    def alive(self) -> bool:
        """True while that process exists."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.stat().st_mode & 0o077:
            raise HomeError(f"{path}: others may enter it; run: chmod 700 {path}")
    except OSError as error:
        raise HomeError(f"{path}: {error.strerror}; make it writable for this user or name another folder") from error
    return path


class Home:
    """One program's folders and keys. Raises `HomeError` and `SecretsError` with what to do about it."""

    def __init__(self, storage: Storage, source: MasterKeySource, *, passphrase: str | None = None) -> None:
        self.data = _folder(storage.data)
        self.state = _folder(storage.state)
        if source.file is not None and not source.file.exists() and not (self.data / KEYS).exists():
            _folder(source.file.parent)
            MasterKey.create_file(source.file, self.data)
        self.master = MasterKey.load(self.data, file=source.file, passphrase=passphrase)
        self.keys = Keystore.open(self.data / KEYS, self.master)
        self.session_keys = self._session_keys()

    def _session_keys(self) -> Keystore:
        path = self.state / KEYS
        try:
            return Keystore.open(path, self.master)
        except SecretsError as error:
            raise HomeError(
                f"{path}: {error}; session keys are made anew when they are gone, so deleting {self.state} is safe"
            ) from error

    def sequences(self) -> FileSequenceStore:
        """The send counters; one process at a time. Raises `SequenceError`, `HomeError` while a program runs here."""
        try:
            return FileSequenceStore(_folder(self.state / SEQUENCES))
        except SequenceError as error:
            now = running(self.state)
            if now is None:
                raise
            raise HomeError(f"{error}: process {now.pid} runs here already; stop that one first") from error

    def announce(self, listeners: dict[str, str]) -> None:
        """Say that this process runs and where it listens."""
        write_atomic(self.state / RUNNING, json.dumps(asdict(Running(os.getpid(), listeners))).encode())

    def retire(self) -> None:
        """Take the announcement back."""
        (self.state / RUNNING).unlink(missing_ok=True)


def running(state: Path) -> Running | None:
    """The process that announced itself in ``state`` and still exists, or None."""
    try:
        row = json.loads((state / RUNNING).read_text(encoding="utf-8"))
        found = Running(int(row["pid"]), {str(k): str(v) for k, v in row["listeners"].items()})
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return found if found.alive else None
