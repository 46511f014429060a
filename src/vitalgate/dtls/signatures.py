"""Signature schemes (RFC 8446 section 4.2.3, RFC 8422 section 5.10): one row each; no RSA."""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_der_public_key

from vitalgate.dtls.alerts import Alert, HandshakeError

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey: TypeAlias = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class Scheme:
    """Registry value, name, and the kind of key: a curve, or None for Ed25519. In DTLS 1.2 the values mean a hash and a
    kind of signature, and any curve goes with any hash; in 1.3 the curve is part of the scheme."""

    value: int
    name: str
    curve: type[ec.EllipticCurve] | None
    hash: Callable[[], hashes.HashAlgorithm] | None


SCHEMES: dict[int, Scheme] = {
    row.value: row
    for row in (
        Scheme(0x0403, "ecdsa_secp256r1_sha256", ec.SECP256R1, hashes.SHA256),
        Scheme(0x0503, "ecdsa_secp384r1_sha384", ec.SECP384R1, hashes.SHA384),
        Scheme(0x0807, "ed25519", None, None),
    )
}

DEFAULT_SCHEMES: tuple[int, ...] = tuple(SCHEMES)


class ClientCertificateType(enum.IntEnum):
    """ClientCertificateType of DTLS 1.2 (RFC 8422 section 5.5); Ed25519 keys come under the same value."""

    ECDSA_SIGN = 64


def load_public_key(spki: bytes) -> PublicKey:
    """The key of a SubjectPublicKeyInfo. Raises `HandshakeError`."""
    try:
        key = load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise HandshakeError(Alert.BAD_CERTIFICATE, "a public key that cannot be read") from error
    if isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        return key
    raise HandshakeError(Alert.UNSUPPORTED_CERTIFICATE, "a public key of a kind that we do not take")


def scheme_for(key: PrivateKey, offered: tuple[int, ...]) -> Scheme | None:
    """The scheme to sign with: the first of ours that fits ``key`` and that the peer offered."""
    for scheme in SCHEMES.values():
        if scheme.value in offered and _fits(scheme, key):
            return scheme
    return None


def _deterministic() -> bool:
    """Whether this build of `cryptography` can draw nonces from key and message (RFC 6979)."""
    key = ec.derive_private_key(1, ec.SECP256R1())
    try:
        key.sign(b"", ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    except UnsupportedAlgorithm:
        return False
    return True


_DETERMINISTIC = _deterministic()
"""No bad randomness can then betray a key, and one seed gives one handshake."""


def sign(key: PrivateKey, scheme: Scheme, data: bytes) -> bytes:
    """A signature over ``data``."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    assert scheme.hash is not None
    return key.sign(data, ec.ECDSA(scheme.hash(), deterministic_signing=_DETERMINISTIC))


def verify(key: PublicKey, value: int, signature: bytes, data: bytes, *, any_curve: bool = False) -> None:
    """Check a signature made under scheme ``value``; ``any_curve`` as in DTLS 1.2. Raises `HandshakeError`."""
    scheme = SCHEMES.get(value)
    if scheme is None or not _fits(scheme, key, any_curve=any_curve):
        raise HandshakeError(Alert.ILLEGAL_PARAMETER, "a signature scheme that we did not offer or the key cannot have")
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, data)
        else:
            assert scheme.hash is not None
            key.verify(signature, data, ec.ECDSA(scheme.hash()))
    except InvalidSignature as error:
        raise HandshakeError(Alert.DECRYPT_ERROR, "a signature that does not verify") from error


def _fits(scheme: Scheme, key: PrivateKey | PublicKey, *, any_curve: bool = False) -> bool:
    if isinstance(key, ed25519.Ed25519PrivateKey | ed25519.Ed25519PublicKey):
        return scheme.curve is None
    return scheme.curve is not None and (any_curve or isinstance(key.curve, scheme.curve))
