"""Sender sequence numbers that survive crashes (RFC 8613 section 7.2 and Appendix B.1.1).

Numbers are reserved ahead in blocks: before the first number of a block is used, the block's end is on disk, synced. A
sender that starts again begins at the end it finds there, so it skips what it might have used and never repeats.
A store that fails, or that has lost its record, stops the sender: what cannot be numbered is not protected.
"""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final, Protocol

from vitalgate.oscore.errors import SequenceError

LIMIT: Final = 1 << 40
"""Sequence numbers are below this (RFC 8613 section 7.2.1)."""
DEFAULT_BLOCK: Final = 1024


class SequenceStore(Protocol):
    """Where the ends of reserved blocks are kept. A record's name identifies one sender *key*, not a peer: the same
    numbers under another key are no reuse. Every call raises `SequenceError` when it cannot do what it says."""

    def create(self, record: str) -> None:
        """Durably make the record of a key that was never used, at 0; refused when there is one."""

    def load(self, record: str) -> int:
        """The first number that was never reserved; refused when there is no record."""

    def reserve(self, record: str, end: int) -> None:
        """Durably say that numbers below ``end`` may be used from now on."""

    def remove(self, record: str) -> None:
        """Forget the record of a key that is destroyed."""


class SenderSequence:
    """The sequence numbers of one sender key: `next` gives each number once, over all restarts.

    ``record`` must exist in ``store``; ``block`` numbers are reserved at a time. Raises `SequenceError` without one.
    """

    __slots__ = ("_block", "_end", "_next", "_record", "_store")

    def __init__(self, store: SequenceStore, record: str, *, block: int = DEFAULT_BLOCK) -> None:
        if block < 1:
            raise ValueError("a block has at least one number")
        self._store = store
        self._record = record
        self._block = block
        # Nothing is left of what an earlier run had reserved: it may have used all of it.
        self._next = self._end = store.load(record)

    def next(self) -> int:
        """A number that was never given before. Raises `SequenceError` when the store fails or 2^40 are used up."""
        number = self._next
        if number >= self._end:
            if number >= LIMIT:
                raise SequenceError("all sequence numbers of this key are used; it needs new keys")
            end = min(number + self._block, LIMIT)
            self._store.reserve(self._record, end)
            self._end = end
        self._next = number + 1
        return number

    @property
    def used(self) -> int:
        """The number that `next` gives next: how far this key is used up."""
        return self._next


class MemorySequenceStore:
    """A store that lives as long as its object: for the laboratory and for contexts that are never restored."""

    def __init__(self) -> None:
        self._ends: dict[str, int] = {}

    def create(self, record: str) -> None:
        """Make ``record`` at 0."""
        if record in self._ends:
            raise SequenceError("this key has a sequence record already")
        self._ends[record] = 0

    def load(self, record: str) -> int:
        """The record's end."""
        try:
            return self._ends[record]
        except KeyError:
            raise SequenceError("this key has no sequence record") from None

    def reserve(self, record: str, end: int) -> None:
        """Move the record's end up."""
        if end < self.load(record):
            raise SequenceError("sequence numbers never go back")
        self._ends[record] = end

    def remove(self, record: str) -> None:
        """Forget ``record``."""
        self._ends.pop(record, None)


class Files(Protocol):
    """The few file operations a store needs, so that a test can stop the machine between any two. All raise OSError."""

    def read(self, path: Path) -> bytes:
        """The whole of a (small) file."""

    def create(self, path: Path) -> int:
        """Open a new file for writing, readable by its owner alone."""

    def write(self, handle: int, data: bytes) -> int:
        """Write; returns how many bytes were taken."""

    def sync(self, handle: int) -> None:
        """Make the file's content durable."""

    def close(self, handle: int) -> None:
        """Close a handle."""

    def replace(self, source: Path, target: Path) -> None:
        """Rename, atomically replacing ``target``."""

    def remove(self, path: Path) -> None:
        """Unlink a file."""

    def sync_folder(self, folder: Path) -> None:
        """Make the names in a folder durable."""

    def lock(self, path: Path) -> int:
        """Take the exclusive lock of ``path``, held until the handle is closed; fails at once when it is taken."""


class OsFiles:
    """`Files` of the operating system."""

    def read(self, path: Path) -> bytes:
        """The whole of a file."""
        return path.read_bytes()

    def create(self, path: Path) -> int:
        """A new file of mode 0600, whatever the umask."""
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.fchmod(handle, 0o600)
        return handle

    def write(self, handle: int, data: bytes) -> int:
        """Write."""
        return os.write(handle, data)

    def sync(self, handle: int) -> None:
        """Fsync a file."""
        os.fsync(handle)

    def close(self, handle: int) -> None:
        """Close."""
        os.close(handle)

    def replace(self, source: Path, target: Path) -> None:
        """Rename."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Unlink."""
        path.unlink()

    def sync_folder(self, folder: Path) -> None:
        """Fsync a folder."""
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def lock(self, path: Path) -> int:
        """Flock ``path``; the system lets go when the process dies."""
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise
        return handle


_MAGIC: Final = b"vitalgate-oscore-sequence 1"


class FileSequenceStore:
    """One small file a record in ``folder`` (which must exist), replaced atomically and synced at every reservation.

    The folder belongs outside every backup: an old copy of it would repeat numbers. The store holds the folder's lock
    until `close` or the process's end; a second store on it is refused. Raises `SequenceError`.
    """

    def __init__(self, folder: Path, *, files: Files | None = None) -> None:
        self._folder = folder
        self._files: Files = OsFiles() if files is None else files
        self._lock: int | None = None
        try:
            self._lock = self._files.lock(folder / ".lock")
        except BlockingIOError as error:
            raise SequenceError(f"another process uses the sequence numbers in {folder}") from error
        except OSError as error:
            raise SequenceError(f"cannot use {folder} for sequence numbers: {error.strerror}") from error

    def close(self) -> None:
        """Let go of the folder; the store serves no more."""
        if self._lock is not None:
            self._files.close(self._lock)
            self._lock = None

    def __enter__(self) -> "FileSequenceStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def create(self, record: str) -> None:
        """Make ``record`` at 0."""
        try:
            self._files.read(self._path(record))
        except FileNotFoundError:
            self._write(record, 0)
        except OSError as error:
            raise SequenceError(f"cannot read {self._path(record)}: {error.strerror}") from error
        else:
            raise SequenceError("this key has a sequence record already")

    def load(self, record: str) -> int:
        """The record's end; a record that does not read as we write it is refused."""
        path = self._path(record)
        try:
            data = self._files.read(path)
        except FileNotFoundError:
            raise SequenceError("this key has no sequence record; it needs new keys") from None
        except OSError as error:
            raise SequenceError(f"cannot read {path}: {error.strerror}") from error
        digits = data.rpartition(b" ")[2].strip()
        end = int(digits) if digits.isdigit() and len(digits) <= 13 else -1
        if not 0 <= end <= LIMIT or data != self._form(record, end):
            raise SequenceError(f"{path} is damaged; this key needs to be replaced")
        return end

    def reserve(self, record: str, end: int) -> None:
        """Move the record's end up."""
        if end < self.load(record):
            raise SequenceError("sequence numbers never go back")
        self._write(record, end)

    def remove(self, record: str) -> None:
        """Forget ``record``."""
        try:
            with contextlib.suppress(FileNotFoundError):
                self._files.remove(self._path(record))
            self._files.sync_folder(self._folder)
        except OSError as error:
            raise SequenceError(f"cannot remove {self._path(record)}: {error.strerror}") from error

    def _path(self, record: str) -> Path:
        if self._lock is None:
            raise SequenceError("the sequence store is closed")
        if not (record.isalnum() and record.isascii()):
            raise ValueError("a record's name is letters and digits")
        return self._folder / f"{record}.seq"

    @staticmethod
    def _form(record: str, end: int) -> bytes:
        return b"%s %s %d\n" % (_MAGIC, record.encode(), end)

    def _write(self, record: str, end: int) -> None:
        path, files = self._path(record), self._files
        beside = path.with_suffix(".new")
        try:
            with contextlib.suppress(FileNotFoundError):
                files.remove(beside)  # left by a crash
            handle = files.create(beside)
            try:
                rest = self._form(record, end)
                while rest:
                    rest = rest[files.write(handle, rest) :]
                # The new content is durable before it takes the name, and the name before anyone relies on it.
                files.sync(handle)
            finally:
                files.close(handle)
            files.replace(beside, path)
            files.sync_folder(self._folder)
        except OSError as error:
            raise SequenceError(f"cannot write {path}: {error.strerror}") from error
