"""Master key, key store and sealers: who may open what, and what a changed byte does."""

import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitalgate.gateway import master as master_module
from vitalgate.gateway.files import write_atomic
from vitalgate.gateway.sealing import MAX_OPEN_EPOCHS
from vitalgate.gateway.secrets import (
    CREDENTIAL,
    DataKey,
    Keystore,
    MasterKey,
    Sealer,
    SecretsError,
    derive,
    open_box,
    seal_box,
)

KEY = bytes(range(32))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    data, etc = tmp_path / "data", tmp_path / "etc"
    data.mkdir()
    etc.mkdir()
    return data, etc


def test_hkdf_is_rfc_5869_case_1() -> None:
    ikm, salt, info = bytes([0x0B] * 22), bytes(range(13)), bytes(range(0xF0, 0xFA))
    okm = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    assert derive(ikm, info, salt, 42).hex() == okm


def test_master_key_file_made_and_read(folders: tuple[Path, Path]) -> None:
    data, etc = folders
    made = MasterKey.create_file(etc / "key", data)
    assert (etc / "key").stat().st_mode & 0o777 == 0o600
    assert MasterKey.load(data, file=etc / "key", environ={}).derive(b"x") == made.derive(b"x")
    with pytest.raises(SecretsError, match="exists already"):
        MasterKey.create_file(etc / "key", data)
    digits = (etc / "key").read_text().strip()
    assert digits not in repr(made)
    assert repr(made) == f"MasterKey(from file {etc / 'key'})"
    with pytest.raises(TypeError):
        pickle.dumps(made)


def test_master_key_file_of_raw_bytes(folders: tuple[Path, Path]) -> None:
    data, etc = folders
    write_atomic(etc / "raw", KEY)
    write_atomic(etc / "hex", KEY.hex().upper().encode())
    assert MasterKey.from_file(etc / "raw", data).derive(b"x") == MasterKey.from_file(etc / "hex", data).derive(b"x")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_master_key_file_others_can_read(folders: tuple[Path, Path], mode: int) -> None:
    data, etc = folders
    write_atomic(etc / "key", KEY, mode)
    with pytest.raises(SecretsError, match=f"mode {mode:04o}.*chmod 0600"):
        MasterKey.from_file(etc / "key", data)


def test_master_key_file_with_the_data(folders: tuple[Path, Path]) -> None:
    data, etc = folders
    write_atomic(data / "key", KEY)
    with pytest.raises(SecretsError, match="inside the data folder"):
        MasterKey.from_file(data / "key", data)
    (etc / "link").symlink_to(data / "key")
    with pytest.raises(SecretsError, match="inside the data folder"):
        MasterKey.from_file(etc / "link", data)
    with pytest.raises(SecretsError, match="inside the data folder"):
        MasterKey.create_file(data / "new", data)
    assert not (data / "new").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file to another user needs root")
def test_master_key_file_of_another_user(folders: tuple[Path, Path]) -> None:
    data, etc = folders
    write_atomic(etc / "key", KEY)
    os.chown(etc / "key", 12345, -1)
    with pytest.raises(SecretsError, match="belongs to user 12345"):
        MasterKey.from_file(etc / "key", data)


@pytest.mark.parametrize("content", [b"", KEY[:31], KEY.hex().encode()[:62], b"z" * 64, b"\xff" * 64, b"0" * 5000])
def test_master_key_file_with_something_else(folders: tuple[Path, Path], content: bytes) -> None:
    data, etc = folders
    write_atomic(etc / "key", content)
    with pytest.raises(SecretsError, match="holds neither 32 bytes nor 64"):
        MasterKey.from_file(etc / "key", data)


def test_master_key_sources_in_order(folders: tuple[Path, Path]) -> None:
    data, etc = folders
    (etc / CREDENTIAL).write_bytes(bytes(32))
    write_atomic(etc / "file", KEY)
    environ = {"CREDENTIALS_DIRECTORY": str(etc)}
    phrase = "correct horse battery"
    assert MasterKey.load(data, file=etc / "file", passphrase=phrase, environ=environ).source.startswith("systemd")
    assert MasterKey.load(data, file=etc / "file", passphrase=phrase, environ={}).source.startswith("file")
    assert MasterKey.load(data, passphrase=phrase, environ={}).source == "passphrase"
    with pytest.raises(SecretsError, match="no master key"):
        MasterKey.load(data, environ={})
    with pytest.raises(SecretsError, match="No such file"):  # a named file that is missing is not passed over
        MasterKey.load(data, file=etc / "absent", passphrase=phrase, environ={})


def test_passphrase_keeps_its_salt_and_refuses_a_weakened_one(folders: tuple[Path, Path]) -> None:
    data, _ = folders
    first = MasterKey.from_passphrase("correct horse battery", data)
    assert MasterKey.from_passphrase("correct horse battery", data).derive(b"") == first.derive(b"")
    assert MasterKey.from_passphrase("correct horse buttery", data).derive(b"") != first.derive(b"")
    with pytest.raises(SecretsError, match="too short"):
        MasterKey.from_passphrase("short", data)
    salt = data / master_module.SALT_FILE
    good = salt.read_text()
    for bad in (good.replace("65536", "8"), good.replace('"lanes": 4', '"lanes": true'), good[:-3], "[]", "{}"):
        salt.write_text(bad)
        with pytest.raises(SecretsError, match="damaged"):
            MasterKey.from_passphrase("correct horse battery", data)
    salt.write_text(good.replace('"schema": 1', '"schema": 2'))
    with pytest.raises(SecretsError, match="schema 2"):
        MasterKey.from_passphrase("correct horse battery", data)


def test_passphrase_with_scrypt(folders: tuple[Path, Path]) -> None:
    data, _ = folders
    salt = '{"schema": 1, "kdf": "scrypt", "salt": "%s", "n": 32768, "r": 8, "p": 1}' % ("ab" * 16)
    (data / master_module.SALT_FILE).write_text(salt)
    first = MasterKey.from_passphrase("correct horse battery", data)
    assert first.derive(b"") == MasterKey.from_passphrase("correct horse battery", data).derive(b"")


def test_keystore_keeps_secrets(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    store = Keystore.open(path, MasterKey(KEY))
    store.put("oscore/master", b"very secret value", {"since": 3, "peer": "cloud"})
    store.put("oscore/salt", b"\x00")
    assert path.stat().st_mode & 0o777 == 0o600
    again = Keystore.open(path, MasterKey(KEY))
    found = again.get("oscore/master")
    assert found is not None
    assert (found.value, found.meta) == (b"very secret value", {"since": 3, "peer": "cloud"})
    assert "very secret" not in repr(found)
    assert again.names("oscore/") == ["oscore/master", "oscore/salt"]
    assert again.delete("oscore/salt")
    assert not again.delete("oscore/salt")
    assert store.names() == ["oscore/master"]  # another opening's change is seen
    assert store.get("oscore/salt") is None
    content = path.read_bytes()
    assert b"very secret" not in content
    assert b"oscore" not in content


def test_keystore_data_keys_rotate(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    store, other = Keystore.open(path, MasterKey(KEY)), Keystore.open(path, MasterKey(KEY))
    first = store.data_key("spool")
    assert other.data_key("spool") == first
    second = other.rotate("spool")
    assert second.key != first.key
    assert store.data_key("spool") == second
    assert store.data_key("spool", first.key_id) == first
    assert [info.active for info in store.key_infos() if info.purpose == "spool"] == [False, True]
    with pytest.raises(SecretsError, match="in use"):
        store.delete_key(second.key_id)
    store.delete_key(first.key_id)
    with pytest.raises(SecretsError, match="has no key"):
        other.data_key("spool", first.key_id)
    assert first.key not in path.read_bytes()
    assert first.key.hex() not in repr(first)


def test_keystore_under_another_master(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    store = Keystore.open(path, MasterKey(KEY))
    store.put("name", b"value")
    key = store.data_key("spool")
    with pytest.raises(SecretsError, match="does not open under the master key"):
        Keystore.open(path, MasterKey(bytes(32)))
    store.rewrap(MasterKey(bytes(32), "new file"))
    assert Keystore.open(path, MasterKey(bytes(32))).data_key("spool") == key
    found = Keystore.open(path, MasterKey(bytes(32))).get("name")
    assert found is not None
    assert found.value == b"value"
    with pytest.raises(SecretsError, match="does not open"):
        Keystore.open(path, MasterKey(KEY))


def test_keystore_any_changed_or_missing_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    store = Keystore.open(path, MasterKey(KEY))
    store.put("name", b"value")
    good = path.read_bytes()
    for at in range(0, len(good), 3):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(SecretsError):
            Keystore.open(path, MasterKey(KEY))
    for at in range(0, len(good), 7):
        path.write_bytes(good[:at])
        with pytest.raises(SecretsError):
            Keystore.open(path, MasterKey(KEY))
    path.unlink()
    with pytest.raises(SecretsError, match="is gone"):
        store.get("name")
    with pytest.raises(SecretsError, match="no key store"):
        Keystore.open(path, MasterKey(KEY), create=False)


@settings(derandomize=True, deadline=None)
@given(st.binary(max_size=200))
def test_keystore_garbage_has_one_answer(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage-keys"
    path.write_bytes(data)
    with pytest.raises(SecretsError):
        Keystore.open(path, MasterKey(KEY))


def test_keystore_that_cannot_be_written_keeps_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys"
    store = Keystore.open(path, MasterKey(KEY))
    store.put("name", b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(SecretsError, match="No space left"):
            store.put("name", b"new")
    found = store.get("name")
    assert found is not None
    assert found.value == b"old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".keys.lock", "keys"]


def test_keystore_is_bounded(tmp_path: Path) -> None:
    store = Keystore.open(tmp_path / "keys", MasterKey(KEY))
    with pytest.raises(SecretsError, match="at most 65536"):
        store.put("name", bytes(65537))
    with pytest.raises(SecretsError, match="1 to 200"):
        store.put("", b"")


def test_sealer_never_seals_a_sequence_twice() -> None:
    sealer = Sealer(DataKey("00", "spool", KEY)).for_epoch(7)
    sealer.seal(1, b"a", b"")
    sealer.seal(5, b"a", b"")
    for sequence in (5, 4, 1, 0, -1, 2**63):
        with pytest.raises(SecretsError, match="never used twice"):
            sealer.seal(sequence, b"b", b"")


def test_sealer_remembers_what_it_sealed_among_many_epochs() -> None:
    sealer = Sealer(KEY)
    sealer.for_epoch(1).seal(1, b"x", b"")
    for epoch in range(2, 3 * MAX_OPEN_EPOCHS):
        sealer.for_epoch(epoch)
    with pytest.raises(SecretsError, match="never used twice"):
        sealer.for_epoch(1).seal(1, b"y", b"")
    assert len(sealer._epochs) <= MAX_OPEN_EPOCHS


def test_sealer_binds_epoch_sequence_and_aad() -> None:
    sealed = Sealer(KEY).for_epoch(7).seal(3, b"plain", b"aad")
    assert b"plain" not in sealed
    reader = Sealer(KEY)
    assert reader.for_epoch(7).open(3, sealed, b"aad") == b"plain"
    changed = bytes([sealed[0] ^ 1]) + sealed[1:]
    for epoch, sequence, data, aad in (
        (8, 3, sealed, b"aad"),
        (7, 4, sealed, b"aad"),
        (7, 3, changed, b"aad"),
        (7, 3, sealed, b""),
        (7, -3, sealed, b"aad"),
        (7, 3, b"", b"aad"),
    ):
        with pytest.raises(SecretsError):
            reader.for_epoch(epoch).open(sequence, data, aad)
    with pytest.raises(SecretsError):
        Sealer(bytes(32)).for_epoch(7).open(3, sealed, b"aad")


@settings(derandomize=True, deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=40))
def test_box_round_trip(plaintext: bytes, aad: bytes) -> None:
    box = seal_box(KEY, plaintext, aad)
    assert open_box(KEY, box, aad) == plaintext
    assert box != seal_box(KEY, plaintext, aad)
    for bad in (box[:-1], box[1:], box + b"\x00", b""):
        with pytest.raises(SecretsError):
            open_box(KEY, bad, aad)
    with pytest.raises(SecretsError):
        open_box(KEY, box, aad + b"!")
