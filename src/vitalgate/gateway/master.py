"""The master key: 32 bytes that wrap every other key, kept apart from the data they protect."""

import contextlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from vitalgate.engine import Randomness
from vitalgate.gateway.files import locked, sync_directory, write_atomic, write_whole
from vitalgate.gateway.sealing import KEY_BYTES, SecretsError, derive

CREDENTIAL: Final = "vitalgate-master-key"
"""The name of the systemd credential (``LoadCredential=`` or ``LoadCredentialEncrypted=``)."""
SALT_FILE: Final = "master-salt.json"
SALT_SCHEMA: Final = 1
PASSPHRASE_SALT_BYTES: Final = 16
MIN_PASSPHRASE: Final = 12
MAX_KEY_FILE: Final = 4096

# RFC 9106 section 4, second recommended option: 3 passes, 4 lanes, 64 MiB.
_ARGON2ID: Final = {"iterations": 3, "lanes": 4, "memory_kib": 65536}
# RFC 7914 section 2; 128 MiB, for crypto libraries without Argon2id.
_SCRYPT: Final = {"n": 2**17, "r": 8, "p": 1}
# What a salt file may ask for: (least, most). Less would be a downgrade, more a way to exhaust memory.
_BOUNDS: Final = {
    "argon2id": {"iterations": (2, 64), "lanes": (1, 64), "memory_kib": (19456, 2**21)},
    "scrypt": {"n": (2**15, 2**21), "r": (8, 32), "p": (1, 16)},
}


class MasterKey:
    """The key that wraps all others. It shows where it came from and never itself."""

    __slots__ = ("_key", "source")

    def __init__(self, key: bytes, source: str = "given") -> None:
        if len(key) != KEY_BYTES:
            raise SecretsError(f"a master key has {KEY_BYTES} bytes, the one from {source} has {len(key)}")
        self._key = bytes(key)
        self.source = source

    @classmethod
    def load(
        cls,
        data_folder: Path,
        *,
        file: Path | None = None,
        passphrase: str | None = None,
        environ: Mapping[str, str] = os.environ,
        randomness: Randomness = os.urandom,
    ) -> "MasterKey":
        """The first source that is there: systemd credential, key file, passphrase.

        A source that is there but wrong is an error, never a reason to try the next. ``data_folder`` is where data
        lies: a key file inside it is refused (whoever copies the folder would have both), and the passphrase's salt is
        kept in it. Raises `SecretsError`.
        """
        folder = environ.get("CREDENTIALS_DIRECTORY", "")
        if folder and (credential := Path(folder) / CREDENTIAL).exists():
            return cls(_read_key(credential), f"systemd credential {CREDENTIAL}")
        if file is not None:
            return cls.from_file(file, data_folder)
        if passphrase is not None:
            return cls.from_passphrase(passphrase, data_folder, randomness=randomness)
        raise SecretsError(
            f"no master key: neither the systemd credential {CREDENTIAL}, nor a key file, nor a passphrase is given; "
            "name a key file (mode 0600, outside the data folder) in the configuration, or give a passphrase"
        )

    @classmethod
    def from_file(cls, file: Path, data_folder: Path) -> "MasterKey":
        """The key in ``file``: 32 bytes, or 64 hexadecimal digits. Raises `SecretsError` as `load` says."""
        try:
            real, data = file.resolve(strict=True), data_folder.resolve()
        except OSError as error:
            raise SecretsError(f"master key file {file}: {error.strerror}; put it back or correct its path") from error
        if real.is_relative_to(data):
            raise SecretsError(
                f"master key file {file} lies inside the data folder {data_folder}: move it out, so that a copy of the "
                "data does not carry its key"
            )
        return cls(_read_key(real, private=True), f"file {file}")

    @classmethod
    def create_file(cls, file: Path, data_folder: Path, randomness: Randomness = os.urandom) -> "MasterKey":
        """Make a new key in a new file of mode 0600. Raises `SecretsError` when it exists or lies with the data."""
        if file.parent.resolve().is_relative_to(data_folder.resolve()):
            raise SecretsError(f"master key file {file} would lie inside the data folder {data_folder}: name another")
        try:
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                write_whole(handle, randomness(KEY_BYTES).hex().encode() + b"\n")
                os.fsync(handle)
            finally:
                os.close(handle)
            sync_directory(file.parent)
        except FileExistsError as error:
            raise SecretsError(f"master key file {file} exists already: it is never overwritten") from error
        except OSError as error:
            with contextlib.suppress(OSError):
                file.unlink()
            raise SecretsError(f"master key file {file}: {error.strerror}") from error
        return cls.from_file(file, data_folder)

    @classmethod
    def from_passphrase(cls, passphrase: str, data_folder: Path, *, randomness: Randomness = os.urandom) -> "MasterKey":
        """The key that Argon2id (scrypt where the library has none) makes of ``passphrase`` and the stored salt.

        The first call makes the salt (`SALT_FILE` in ``data_folder``). Takes a fraction of a second and 64 MiB. Raises
        `SecretsError` when the passphrase is too short or the salt file is damaged.
        """
        if len(passphrase) < MIN_PASSPHRASE:
            raise SecretsError(f"the passphrase is too short: {MIN_PASSPHRASE} characters or more")
        salt_file = data_folder / SALT_FILE
        try:
            with locked(salt_file):
                if not salt_file.exists():
                    write_atomic(salt_file, _new_salt(randomness))
                text = salt_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SecretsError(f"salt of the passphrase {salt_file}: {error}") from error
        kdf, salt, settings = _parse_salt(salt_file, text)
        try:
            return cls(_stretch(kdf, passphrase.encode("utf-8"), salt, settings), "passphrase")
        except UnsupportedAlgorithm as error:
            raise SecretsError(
                f"{salt_file} asks for {kdf}, which this machine's crypto library does not have: use a newer one"
            ) from error

    def derive(self, info: bytes, salt: bytes = b"", length: int = KEY_BYTES) -> bytes:
        """A key bound to ``info`` and ``salt`` (HKDF-SHA256); the master key itself is used for nothing else."""
        return derive(self._key, info, salt, length)

    def __repr__(self) -> str:
        return f"MasterKey(from {self.source})"

    def __reduce__(self) -> str:
        raise TypeError("a master key is never pickled")


def _read_key(file: Path, *, private: bool = False) -> bytes:
    """The key in ``file``; ``private`` demands that nobody else can read it."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC | (os.O_NOFOLLOW if private else 0))
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise SecretsError(f"master key file {file} is no regular file")
            mode = stat.S_IMODE(found.st_mode)
            if private and mode & 0o077:
                raise SecretsError(f"master key file {file} has mode {mode:04o}: others can read it; chmod 0600 it")
            if private and found.st_uid != os.geteuid():
                raise SecretsError(
                    f"master key file {file} belongs to user {found.st_uid}, not to {os.geteuid()} who runs this: "
                    "chown it"
                )
            data = os.read(handle, MAX_KEY_FILE)
        finally:
            os.close(handle)
    except OSError as error:
        raise SecretsError(f"master key file {file}: {error.strerror}") from error
    if len(data) == KEY_BYTES:
        return data
    with contextlib.suppress(ValueError):  # UnicodeDecodeError is one
        if len(text := data.decode("ascii").strip()) == 2 * KEY_BYTES:
            return bytes.fromhex(text)
    raise SecretsError(f"master key file {file} holds neither {KEY_BYTES} bytes nor {2 * KEY_BYTES} hexadecimal digits")


def _new_salt(randomness: Randomness) -> bytes:
    salt = randomness(PASSPHRASE_SALT_BYTES)
    kdf, settings = "argon2id", _ARGON2ID
    try:
        Argon2id(salt=salt, length=KEY_BYTES, iterations=1, lanes=1, memory_cost=8)
    except UnsupportedAlgorithm:
        kdf, settings = "scrypt", _SCRYPT
    return json.dumps({"schema": SALT_SCHEMA, "kdf": kdf, "salt": salt.hex(), **settings}).encode() + b"\n"


def _parse_salt(file: Path, text: str) -> tuple[str, bytes, dict[str, int]]:
    """(KDF, salt, its settings) of a salt file, within `_BOUNDS`."""
    damaged = SecretsError(f"salt of the passphrase {file} is damaged: restore it from a backup of the data folder")
    try:
        row: Any = json.loads(text)
        schema, kdf, salt = row["schema"], row["kdf"], bytes.fromhex(row["salt"])
        if schema != SALT_SCHEMA:
            raise SecretsError(f"salt of the passphrase {file} has schema {schema!r}, this version knows {SALT_SCHEMA}")
        settings = {name: row[name] for name in _BOUNDS[kdf]}
        bounds = _BOUNDS[kdf].items()
        sane = all(type(settings[name]) is int and low <= settings[name] <= high for name, (low, high) in bounds)
    except (ValueError, KeyError, TypeError) as error:
        raise damaged from error
    if not sane or len(salt) < PASSPHRASE_SALT_BYTES:
        raise damaged
    return kdf, salt, settings


def _stretch(kdf: str, passphrase: bytes, salt: bytes, settings: dict[str, int]) -> bytes:
    if kdf == "argon2id":
        return Argon2id(
            salt=salt,
            length=KEY_BYTES,
            iterations=settings["iterations"],
            lanes=settings["lanes"],
            memory_cost=settings["memory_kib"],
        ).derive(passphrase)
    return Scrypt(salt=salt, length=KEY_BYTES, n=settings["n"], r=settings["r"], p=settings["p"]).derive(passphrase)
