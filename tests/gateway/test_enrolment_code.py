"""Identity keys and one-time codes."""

import copy
import pickle
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitalgate.gateway.code import ALPHABET, CodeError, EnrolmentCode, code_id_text
from vitalgate.gateway.identity import IdentityError, IdentityKey, fingerprint_text, public_key, thumbprint, verify


def key(seed=7):
    return IdentityKey.create(random.Random(seed).randbytes)


def test_code_round_trip_and_shape():
    code = EnrolmentCode.create()
    text = code.text()
    assert len(text) == 41
    assert [len(group) for group in text.split("-")] == [6] * 6
    assert EnrolmentCode.from_text(text) == code
    assert EnrolmentCode.from_text(f"  {text.lower().replace('-', ' ')}\n") == code
    assert text.replace("-", "").startswith(code_id_text(code.code_id))
    assert len({EnrolmentCode.create().text() for _ in range(100)}) == 100


def test_code_secret_has_130_bits_that_all_count():
    secrets = [int.from_bytes(EnrolmentCode.create().secret, "big") for _ in range(200)]
    union = 0
    for secret in secrets:
        assert secret < 1 << 130
        union |= secret
    assert union == (1 << 130) - 1


def test_code_reads_lookalikes():
    code = EnrolmentCode(bytes(5), bytes([0] * 16 + [33]))  # zeros and ones in the text
    assert EnrolmentCode.from_text(code.text().replace("0", "o").replace("1", "l")) == code
    assert EnrolmentCode.from_text(code.text().replace("1", "I")) == code


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(0, 2**32))
def test_code_finds_every_single_typo_and_every_exchange_of_neighbours(seed):
    text = EnrolmentCode.create(random.Random(seed).randbytes).text().replace("-", "")
    for at in range(36):
        for other in random.Random(seed + at).sample(ALPHABET, 6):
            if other != text[at]:
                with pytest.raises(CodeError):
                    EnrolmentCode.from_text(text[:at] + other + text[at + 1 :])
        if at < 33 and text[at] != text[at + 1]:
            with pytest.raises(CodeError):
                EnrolmentCode.from_text(text[:at] + text[at + 1] + text[at] + text[at + 2 :])


@settings(derandomize=True, deadline=None)
@given(st.text(max_size=200))
def test_code_from_any_text_is_a_code_or_the_one_error(text):
    try:
        code = EnrolmentCode.from_text(text)
    except CodeError:
        return
    assert EnrolmentCode.from_text(code.text()) == code


def test_code_shows_no_secret():
    code = EnrolmentCode.create()
    assert code.secret.hex() not in repr(code)
    assert repr(code.secret) not in repr(code)
    assert code.text()[9:] not in repr(code)
    with pytest.raises(CodeError) as error:
        EnrolmentCode.from_text(code.text()[:-1] + ("0" if code.text()[-1] != "0" else "1"))
    assert code.text()[9:20] not in str(error.value)


def test_code_key_depends_on_identifier_and_secret():
    code = EnrolmentCode.create()
    assert len(code.key()) == 32
    assert code.key() == EnrolmentCode.from_text(code.text()).key()
    assert code.key() != EnrolmentCode(bytes(5), code.secret).key()
    assert code.key() != EnrolmentCode(code.code_id, bytes(17)).key()


def test_identity_signs_and_verifies():
    identity, other = key(1), key(2)
    signature = identity.sign(b"data")
    assert len(signature) == 64
    assert verify(identity.public, signature, b"data")
    assert not verify(identity.public, signature, b"Data")
    assert not verify(other.public, signature, b"data")
    for at in range(0, 64, 7):
        flipped = bytearray(signature)
        flipped[at] ^= 1
        assert not verify(identity.public, bytes(flipped), b"data")
    for bad in (b"", bytes(64), b"\xff" * 64, signature[:63], signature + b"\0"):
        assert not verify(identity.public, bad, b"data")
    for bad in (b"", bytes(33), b"\x02" + b"\xff" * 32, identity.public[1:], b"\x04" + identity.public[1:]):
        assert not verify(bad, signature, b"data")
        with pytest.raises(IdentityError):
            public_key(bad)


def test_identity_round_trip_and_names():
    identity = key()
    assert IdentityKey.from_bytes(identity.to_bytes()).public == identity.public
    assert identity.thumbprint == thumbprint(identity.public)
    assert fingerprint_text(identity.public).replace(":", "") == identity.thumbprint.hex()
    for bad in (b"", bytes(32), b"\xff" * 32, bytes(31) + b"\1\0"):
        with pytest.raises(IdentityError):
            IdentityKey.from_bytes(bad)


def test_identity_is_neither_shown_nor_copied():
    identity = key()
    secret = identity.to_bytes()
    for text in (repr(identity), str(identity), f"{identity}"):
        assert secret.hex() not in text
        assert fingerprint_text(identity.public) in text
    with pytest.raises(TypeError):
        pickle.dumps(identity)
    with pytest.raises(TypeError):
        copy.deepcopy(identity)
