"""Bindings: whom a line belongs to, and the sealed file they are kept in."""

import os
from dataclasses import replace
from pathlib import Path

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitalgate.gateway.bindings import (
    BindingError,
    BindingFile,
    BindingTable,
    DeviceBinding,
    Match,
    Quarantine,
)
from vitalgate.gateway.sealing import FixedKeys
from vitalgate.gateway.secrets import Keystore, MasterKey, SecretsError
from vitalgate.vitals.observation import Status

KEYS = FixedKeys(bytes(32))
IVY = DeviceBinding("urn:dev:ops:32473-Ivy450C-0001", "ivy450c", "/dev/ttyUSB0", patient="Doe^Jane", demo=True)
ONE = DeviceBinding("urn:dev:mac:00a037fffe000001", "hl7", "tcp:127.0.0.1:2575", serial="00a037fffe000001")
TWO = DeviceBinding("urn:dev:mac:00a037fffe000002", "hl7", "tcp:127.0.0.1:2575", serial="00a037fffe000002")
WARD = DeviceBinding("urn:dev:os:32473-ward", "hl7", "tcp:10.0.0.1:2575", sources=("10.0.0.0/24",))
HOST = DeviceBinding("urn:dev:os:32473-host", "hl7", "tcp:10.0.0.1:2575", sources=("10.0.1.7/32", "2001:db8::/64"))
TABLE = BindingTable([IVY, ONE, TWO, WARD, HOST])


@pytest.mark.parametrize(
    ("port", "kind", "serial", "peer", "binding", "reason"),
    [
        ("/dev/ttyUSB0", "ivy450c", "", "", IVY, None),
        ("/dev/ttyUSB0", "ivy450c", "whatever", "", IVY, None),  # the port alone counts
        ("/dev/ttyUSB1", "ivy450c", "", "", None, Quarantine.NOT_ENROLLED),
        ("/dev/ttyUSB0", "nonin", "", "", None, Quarantine.NOT_ENROLLED),
        (ONE.port, "hl7", ONE.serial, "127.0.0.1", ONE, None),
        (ONE.port, "hl7", TWO.serial, "127.0.0.1", TWO, None),
        (ONE.port, "hl7", "00a037fffe000003", "127.0.0.1", None, Quarantine.WRONG_SERIAL),
        (ONE.port, "hl7", "", "127.0.0.1", None, Quarantine.NO_SERIAL),
        (WARD.port, "hl7", ONE.serial, "10.0.0.3", ONE, Quarantine.OTHER_PORT),
        ("tcp:[::1]:9", "hl7", TWO.serial, "::1", TWO, Quarantine.OTHER_PORT),
        (WARD.port, "hl7", "", "10.0.0.3", WARD, None),
        (WARD.port, "hl7", "", "::ffff:10.0.0.3", WARD, None),
        (WARD.port, "hl7", "", "10.0.1.7", HOST, None),
        (WARD.port, "hl7", "", "2001:db8::5", HOST, None),
        (WARD.port, "hl7", "", "10.0.1.8", None, Quarantine.WRONG_SOURCE),
        (WARD.port, "hl7", "", "nonsense", None, Quarantine.WRONG_SOURCE),
        (WARD.port, "hl7", "", "", None, Quarantine.AMBIGUOUS),
    ],
)
def test_who_speaks(
    port: str, kind: str, serial: str, peer: str, binding: DeviceBinding | None, reason: Quarantine | None
) -> None:
    assert TABLE.match(port, kind, serial, peer) == Match(binding, reason)


def test_a_known_serial_from_the_wrong_place_is_not_taken() -> None:
    table = BindingTable([replace(ONE, sources=("10.0.0.5/32",))])
    assert table.match(ONE.port, "hl7", ONE.serial, "10.0.0.6").reason is Quarantine.WRONG_SOURCE
    assert table.match(ONE.port, "hl7", ONE.serial, "10.0.0.5").binding == table.get(ONE.urn)


def test_marks() -> None:
    assert IVY.mark is Status.DEMO
    assert ONE.mark is Status.NONE


@pytest.mark.parametrize(
    "wrong",
    [
        {"urn": "urn:dev:MAC:00A037FFFE000001"},
        {"urn": "ivy"},
        {"kind": ""},
        {"port": ""},
        {"sources": ("10.0.0.1/8",)},
        {"sources": ("somewhere",)},
        {"sources": ("10.0.0.0/24",) * 33},
        {"patient": "a\nb"},
        {"label": "x" * 201},
    ],
)
def test_bindings_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(BindingError):
        replace(IVY, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "second",
    [
        replace(IVY, port="/dev/ttyUSB9"),  # the same device twice
        replace(IVY, urn="urn:dev:os:1-x"),  # two devices that nothing tells apart
        replace(ONE, urn="urn:dev:os:1-y", port="tcp:other:1"),  # one serial number for two devices
    ],
)
def test_bindings_that_contradict_each_other(second: DeviceBinding) -> None:
    with pytest.raises(BindingError):
        BindingTable([IVY, ONE, second])


texts = st.text(max_size=12)


@given(texts, texts, texts, texts)
def test_any_words_have_an_answer(port: str, kind: str, serial: str, peer: str) -> None:
    match = TABLE.match(port, kind, serial, peer)
    assert match.reason is not None or match.binding in TABLE


# the file


def test_the_file_keeps_bindings_sealed(tmp_path: Path) -> None:
    path = tmp_path / "bindings"
    file = BindingFile(path, KEYS)
    assert len(file.table) == 0
    assert not path.exists()
    for binding in TABLE:
        file.put(binding)
    file.put(replace(IVY, label="Bed 3"))
    assert file.remove(TWO.urn)
    assert not file.remove(TWO.urn)
    again = BindingFile(path, KEYS)
    assert sorted(again.table, key=lambda b: b.urn) == sorted(
        [replace(IVY, label="Bed 3"), ONE, WARD, HOST], key=lambda b: b.urn
    )
    content = path.read_bytes()
    for known in ("Doe", "Ivy450C", "ttyUSB0", "10.0.0.0", ONE.serial):
        assert known.encode() not in content
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_another_process_writes_is_taken_over(tmp_path: Path) -> None:
    one, other = BindingFile(tmp_path / "b", KEYS), BindingFile(tmp_path / "b", KEYS)
    one.put(IVY)
    assert other.refresh()
    assert not other.refresh()
    other.put(ONE)
    one.put(TWO)  # after another's change: nothing is overwritten
    assert other.refresh()
    assert len(other.table) == 3


def test_a_refused_change_changes_nothing(tmp_path: Path) -> None:
    file = BindingFile(tmp_path / "b", KEYS)
    file.put(IVY)
    before = file.path.read_bytes()
    with pytest.raises(BindingError):
        file.put(replace(IVY, urn="urn:dev:os:1-x"))
    assert file.path.read_bytes() == before
    assert list(file.table) == [IVY]


def test_a_damaged_file_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "b"
    BindingFile(path, KEYS).put(IVY)
    good = path.read_bytes()
    for at in range(0, len(good), 5):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(SecretsError):
            BindingFile(path, KEYS)
    for bad in (b"", b"\xff" * 20, cbor2.dumps([1]), cbor2.dumps({"schema": 2, "key": "", "box": b""}), good[:-1]):
        path.write_bytes(bad)
        with pytest.raises(SecretsError, match=r"restore them from a backup|this version knows"):
            BindingFile(path, KEYS)
    path.write_bytes(good)
    with pytest.raises(SecretsError):
        BindingFile(path, FixedKeys(b"\x01" * 32))
    file = BindingFile(path, KEYS)
    path.unlink()
    with pytest.raises(SecretsError, match="are gone"):
        file.refresh()
    assert list(file.table) == [IVY], "the former ones stay"


def test_a_disk_that_refuses_leaves_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = BindingFile(tmp_path / "b", KEYS)
    file.put(IVY)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(SecretsError, match="No space left"):
            file.put(ONE)
    assert list(BindingFile(tmp_path / "b", KEYS).table) == list(file.table) == [IVY]


def test_rotated_keys(tmp_path: Path) -> None:
    keys = Keystore.open(tmp_path / "keys", MasterKey(bytes(32)))
    BindingFile(tmp_path / "b", keys).put(IVY)
    keys.rotate("bindings")
    file = BindingFile(tmp_path / "b", keys)
    assert list(file.table) == [IVY]
    file.put(ONE)
    assert len(BindingFile(tmp_path / "b", keys).table) == 2
