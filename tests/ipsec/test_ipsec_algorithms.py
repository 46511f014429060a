"""The algorithm table against published vectors; what is legacy is refused."""

import os

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st
from ipsec_packets import VECTORS, parameters

from vitalgate.ipsec.algorithms import (
    ENCRYPTIONS,
    INTEGRITIES,
    SuiteError,
    ah_suites,
    all_suites,
    allowed,
    suite,
)
from vitalgate.ipsec.esp import EspInbound, EspOutbound
from vitalgate.ipsec.rc5 import RC5

ROWS = [line.split() for line in VECTORS.read_text().splitlines() if not line.startswith("#")]


def octets(text: str) -> bytes:
    return b"" if text == "-" else bytes.fromhex(text)


@pytest.mark.parametrize("row", [row for row in ROWS if row[0] == "encryption"], ids=lambda row: row[1])
def test_encryption_vectors(row):
    encryption = ENCRYPTIONS[row[1]]
    keys, iv, aad, plain, cipher = map(octets, row[2:])
    key, salt = keys[: len(keys) - encryption.salt], keys[len(keys) - encryption.salt :]
    assert len(key) in encryption.keys
    if encryption.aead is not None:
        aead = encryption.aead(key)
        assert aead.encrypt(salt + iv, plain, aad) == cipher
        assert aead.decrypt(salt + iv, cipher, aad) == plain
        with pytest.raises(InvalidTag):
            aead.decrypt(salt + iv, cipher[:-1] + bytes([cipher[-1] ^ 1]), aad)
    else:
        mode = encryption.mode(key, salt, os.urandom)
        assert mode.encrypt(iv, plain) == cipher
        assert mode.open(iv + cipher) == plain


@pytest.mark.parametrize("row", [row for row in ROWS if row[0] == "integrity"], ids=lambda row: row[1])
def test_integrity_vectors(row):
    integrity = INTEGRITIES[row[1]]
    key, data, icv = map(octets, row[2:])
    assert integrity.mac(key)(data)[: integrity.icv] == icv


def test_every_row_has_a_vector_or_a_twin_that_has():
    seen = {row[1] for row in ROWS}
    # Implicit-IV rows and the rest have vectors of whole packets; RC5 stands below, NULL is the identity.
    others = {
        "aes-ccm-8-iiv",
        "aes-gcm-16-iiv",
        "chacha20-poly1305-iiv",
        "chacha20-poly1305",
        "rc5",
        "null",
        "aes-gmac",
    }
    assert seen | others == set(ENCRYPTIONS) | set(INTEGRITIES)


@pytest.mark.parametrize(
    ("rounds", "key", "iv", "plain", "cipher"),
    [
        (16, "01020304", "00" * 8, "ff" * 8, "cf270ef9717ff7c4"),
        (16, "00", "0102030405060708", "1020304050607080", "545f7f32a5fc3836"),
        (12, "0102030405060708", "00" * 8, "ff" * 8, "e493f1c1bb4d6e8c"),
        (12, "000102030405060708090a0b0c0d0e0f", "00" * 8, "96950dda654a3d62", "0011223344556677"),
        (12, "2bd6459f82c5b300952c49104881ff48", "00" * 8, "638b3a5ef72b663f", "ea024714ad5c4d84"),
    ],
)
def test_rc5_vectors(rounds, key, iv, plain, cipher):
    ready = RC5(bytes.fromhex(key), rounds)
    assert ready.encrypt(bytes.fromhex(iv), bytes.fromhex(plain)).hex() == cipher
    assert ready.decrypt(bytes.fromhex(iv), bytes.fromhex(cipher)).hex() == plain


@given(st.binary(max_size=40), st.binary(min_size=8, max_size=8), st.integers(0, 6).map(lambda n: bytes(range(n * 8))))
def test_rc5_round_trip(key, iv, plain):
    ready = RC5(key)
    assert ready.decrypt(iv, ready.encrypt(iv, plain)) == plain


def test_ivs_of_cbc_differ_and_are_not_the_random_bytes_themselves():
    mode = ENCRYPTIONS["aes-cbc"].mode(bytes(16), b"", bytes)
    sealed = [mode.seal(1, bytes(32)) for _ in range(50)]
    assert len({each[:16] for each in sealed}) == 50, "the chain goes on from packet to packet"
    assert bytes(16) not in {each[:16] for each in sealed}
    with pytest.raises(ValueError):
        mode.seal(1, bytes(15))
    with pytest.raises(ValueError):
        mode.open(bytes(17))
    assert mode.open(sealed[7]) == bytes(32)


LEGACY = {"null", "des", "3des", "rc5", "hmac-md5-96"}


@pytest.mark.parametrize("chosen", [*all_suites(), *ah_suites()], ids=lambda chosen: chosen.name)
def test_legacy_rows_are_refused_unless_allowed(chosen):
    assert suite(chosen.name) == chosen
    names = {row.name for row in (chosen.encryption, chosen.integrity) if row is not None}
    assert allowed(chosen, allow_legacy=True) is chosen
    if names & LEGACY:
        with pytest.raises(SuiteError, match="allow_legacy"):
            allowed(chosen, allow_legacy=False)
    else:
        assert allowed(chosen, allow_legacy=False) is chosen


def test_an_sa_of_a_legacy_suite_is_not_made():
    for make in (EspOutbound, EspInbound):
        with pytest.raises(SuiteError, match="allow_legacy"):
            make(parameters("3des+hmac-sha1-96"))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "aes",
        "aes-cbc",
        "aes-cbc/129+hmac-sha1-96",
        "aes-gcm-16+hmac-sha1-96",
        "aes-gcm-16/64",
        "aes-gcm-16/x",
        "null+hmac-sha3",
        "hmac-sha1-96+hmac-sha1-96",
        "chacha20-poly1305/128",
    ],
)
def test_wrong_suites_are_refused(name):
    with pytest.raises(SuiteError):
        suite(name)


def test_keys_are_not_shown():
    one = parameters("aes-gcm-16", key=b"K" * 20)
    assert "KKKK" not in repr(one)
    assert "KKKK" not in repr(EspOutbound(one))
