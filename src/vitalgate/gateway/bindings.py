"""Which device speaks on which port: the bindings that `enroll device` makes, and the decision they allow.

A binding names a port and what may be heard there; what does not fit one is quarantined. Identity of a legacy device is
only ever as good as the line it speaks on, so the port always counts, and a serial number or address narrows it down.
"""

import contextlib
import enum
import ipaddress
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import cbor2

from vitalgate.engine import Randomness
from vitalgate.gateway.files import locked, write_atomic
from vitalgate.gateway.sealing import KeySource, SecretsError, open_box, seal_box
from vitalgate.vitals.observation import Status
from vitalgate.vitals.urn import is_normal

SCHEMA: Final = 1
PURPOSE: Final = "bindings"
MAX_BINDINGS: Final = 1024
MAX_TEXT: Final = 200
MAX_NETWORKS: Final = 32
MAX_FILE: Final = 4 * 1024 * 1024

_AAD: Final = b"vitalgate bindings 1 "


class BindingError(ValueError):
    """A binding that cannot be; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class DeviceBinding:
    """One enrolled device.

    ``urn`` is its identity (RFC 9039, normal spelling), ``kind`` a slug of the device registry, ``port`` the name of a
    serial port or of a listener ('tcp:host:port'). ``serial`` is the serial number (or EUI) that its frames must state,
    '' where the port alone counts; ``sources`` are the networks it may dial from, none for any that the listener
    admits. ``patient`` and ``location`` are put where its frames say nothing of them; ``demo`` marks all it says as
    demonstration data; ``label`` is what people call it. Raises `BindingError`.
    """

    urn: str
    kind: str
    port: str
    serial: str = ""
    sources: tuple[str, ...] = ()
    patient: str = ""
    location: str = ""
    demo: bool = False
    label: str = ""
    enrolled_at: float = 0.0

    def __post_init__(self) -> None:
        if not is_normal(self.urn):
            raise BindingError(f"{self.urn!r} is no device URN in normal spelling (urn:dev:…, RFC 9039)")
        if not self.kind or not self.port:
            raise BindingError("a binding names a kind of device and a port")
        if len(self.sources) > MAX_NETWORKS:
            raise BindingError(f"a binding lists at most {MAX_NETWORKS} networks")
        for text in (self.kind, self.port, self.serial, self.patient, self.location, self.label):
            if len(text) > MAX_TEXT or not (text.isprintable() or not text):
                raise BindingError(f"texts of a binding are printable and have at most {MAX_TEXT} characters")
        for network in self.sources:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise BindingError(f"{network!r} is no network such as 10.1.2.0/24: {error}") from error

    @property
    def mark(self) -> Status:
        """The status flag that everything it says gets."""
        return Status.DEMO if self.demo else Status.NONE

    def admits(self, peer: str) -> bool:
        """Whether it may speak from the address ``peer`` ('' for a line without addresses)."""
        if not self.sources or not peer:
            return True
        try:
            address = ipaddress.ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in ipaddress.ip_network(network) for network in self.sources)


class Quarantine(enum.Enum):
    """Why a device is not taken for an enrolled one."""

    NOT_ENROLLED = "not-enrolled"
    WRONG_SERIAL = "wrong-serial"
    NO_SERIAL = "no-serial"
    WRONG_SOURCE = "wrong-source"
    OTHER_PORT = "other-port"
    AMBIGUOUS = "ambiguous"


@dataclass(frozen=True, slots=True)
class Match:
    """The decision: a ``binding``, or the ``reason`` for quarantine (``binding`` is then, for `OTHER_PORT`, where the
    device is enrolled)."""

    binding: DeviceBinding | None = None
    reason: Quarantine | None = None


class BindingTable:
    """All bindings, looked up by port. Raises `BindingError` for two that contradict each other."""

    __slots__ = ("_by_port", "_by_serial", "_by_urn")

    def __init__(self, bindings: Iterable[DeviceBinding] = ()) -> None:
        self._by_urn: dict[str, DeviceBinding] = {}
        self._by_port: dict[tuple[str, str], list[DeviceBinding]] = {}
        self._by_serial: dict[tuple[str, str], DeviceBinding] = {}
        for binding in bindings:
            self._add(binding)

    def _add(self, binding: DeviceBinding) -> None:
        if binding.urn in self._by_urn:
            raise BindingError(f"device {binding.urn} is bound twice")
        if len(self._by_urn) >= MAX_BINDINGS:
            raise BindingError(f"there are at most {MAX_BINDINGS} bindings")
        if binding.serial:
            other = self._by_serial.setdefault((binding.kind, binding.serial), binding)
            if other is not binding:
                raise BindingError(
                    f"serial number {binding.serial} of kind {binding.kind} is bound to {other.urn} already"
                )
        here = self._by_port.setdefault((binding.port, binding.kind), [])
        for other in here:
            if not binding.serial and not other.serial and set(binding.sources) == set(other.sources):
                raise BindingError(
                    f"port {binding.port} is bound to {other.urn} already: tell the two apart by serial or source"
                )
        here.append(binding)
        self._by_urn[binding.urn] = binding

    def __iter__(self) -> Iterator[DeviceBinding]:
        return iter(self._by_urn.values())

    def __len__(self) -> int:
        return len(self._by_urn)

    def get(self, urn: str) -> DeviceBinding | None:
        """The binding of a device."""
        return self._by_urn.get(urn)

    def match(self, port: str, kind: str, serial: str, peer: str = "") -> Match:
        """Who speaks on ``port`` in the protocol ``kind``, saying that it is ``serial`` ('' when it says nothing) from
        the address ``peer`` ('' on a serial line)."""
        here = self._by_port.get((port, kind), [])
        if serial:
            owner = self._by_serial.get((kind, serial))
            if owner is not None:
                if owner.port != port:
                    return Match(owner, Quarantine.OTHER_PORT)
                return Match(owner) if owner.admits(peer) else Match(None, Quarantine.WRONG_SOURCE)
        unnamed = [binding for binding in here if not binding.serial]
        if not unnamed:
            if not here:
                return Match(None, Quarantine.NOT_ENROLLED)
            return Match(None, Quarantine.WRONG_SERIAL if serial else Quarantine.NO_SERIAL)
        fitting = [binding for binding in unnamed if binding.admits(peer)]
        if not fitting:
            return Match(None, Quarantine.WRONG_SOURCE)
        narrow = [binding for binding in fitting if binding.sources and peer] or fitting
        return Match(narrow[0]) if len(narrow) == 1 else Match(None, Quarantine.AMBIGUOUS)


class BindingFile:
    """The sealed, versioned file of bindings; every change is on disk when the call returns.

    On disk: a CBOR map of ``schema``, ``key`` (id of the data key) and ``box``. Another process's changes are taken
    over by `refresh`. Raises `SecretsError` when the file cannot be read, written or trusted.
    """

    def __init__(self, path: Path, keys: KeySource, randomness: Randomness = os.urandom) -> None:
        self.path = path
        self._keys = keys
        self._randomness = randomness
        self._stamp: tuple[int, int, int] | None = None
        self.table = BindingTable()
        self.refresh()

    def refresh(self) -> bool:
        """Take over what is on disk; True when that is another table than before."""
        try:
            found = self.path.stat()
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            if stamp == self._stamp:
                return False
            if found.st_size > MAX_FILE:
                raise SecretsError(f"bindings {self.path} are larger than {MAX_FILE} bytes: restore them from a backup")
            self.table = self._decode(self.path.read_bytes())
        except FileNotFoundError:
            if self._stamp is None:
                return False
            raise SecretsError(f"bindings {self.path} are gone: restore them from a backup") from None
        except OSError as error:
            raise SecretsError(f"bindings {self.path}: {error.strerror}") from error
        self._stamp = stamp
        return True

    def put(self, binding: DeviceBinding) -> None:
        """Bind a device, or bind it otherwise. Raises `BindingError` when another binding stands against it."""
        with self._changing():
            self._write(BindingTable([*(other for other in self.table if other.urn != binding.urn), binding]))

    def remove(self, urn: str) -> bool:
        """Unbind a device; False when it was not bound."""
        with self._changing():
            after = [binding for binding in self.table if binding.urn != urn]
            found = len(after) < len(self.table)
            if found:
                self._write(BindingTable(after))
            return found

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """The file is ours, and as it is on disk."""
        try:
            with locked(self.path):
                self.refresh()
                yield
        except OSError as error:
            raise SecretsError(f"bindings {self.path}: {error.strerror}") from error

    def _write(self, table: BindingTable) -> None:
        write_atomic(self.path, self._encode(table))
        found = self.path.stat()
        self._stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
        self.table = table

    def _encode(self, table: BindingTable) -> bytes:
        key = self._keys.data_key(PURPOSE)
        rows = [{field.name: _plain(getattr(b, field.name)) for field in fields(b)} for b in table]
        box = seal_box(key.key, cbor2.dumps(rows), _AAD + key.key_id.encode(), self._randomness)
        return cbor2.dumps({"schema": SCHEMA, "key": key.key_id, "box": box})

    def _decode(self, data: bytes) -> BindingTable:
        try:
            file: Any = cbor2.loads(data)
            schema, key_id, box = file["schema"], file["key"], file["box"]
            if schema != SCHEMA:
                raise SecretsError(f"bindings {self.path} have schema {schema!r}, this version knows {SCHEMA}")
            plain = open_box(self._keys.data_key(PURPOSE, key_id).key, box, _AAD + key_id.encode())
            return BindingTable(
                DeviceBinding(**{**row, "sources": tuple(row["sources"])}) for row in cbor2.loads(plain)
            )
        except SecretsError as error:
            raise SecretsError(f"bindings {self.path}: {error}; restore them from a backup") from error
        except (cbor2.CBORDecodeError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise SecretsError(f"bindings {self.path} are damaged: restore them from a backup") from error


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
