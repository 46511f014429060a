"""Identity keys: ECDSA on P-256 with SHA-256 (FIPS 186-5), for gateways and for the cloud alike.

One kind of key serves OSCORE enrolment today and raw public keys, certificates and IKE tomorrow. A public key travels
as its compressed point (33 bytes, SEC 1 section 2.3.3), a signature as r || s (64 bytes, RFC 9053 section 2.1), a
key's short name is its *thumbprint*: the first 16 bytes of SHA-256 over the compressed point.
"""

import hashlib
import os
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from vitalgate.engine import Randomness

PUBLIC_BYTES: Final = 33
PRIVATE_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
THUMBPRINT_BYTES: Final = 16

_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_RANDOMISED: Final = ec.ECDSA(hashes.SHA256())


def _signature_algorithm() -> ec.ECDSA:
    """RFC 6979 signatures where the crypto library has them: they need no randomness, so none can be bad."""
    deterministic = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    try:
        ec.derive_private_key(1, ec.SECP256R1()).sign(b"", deterministic)
    except UnsupportedAlgorithm:
        return _RANDOMISED
    return deterministic


_SIGNING: Final = _signature_algorithm()


class IdentityError(ValueError):
    """Bytes that are no P-256 key of the documented form."""


def thumbprint(public: bytes) -> bytes:
    """The 16-byte short name of a public key (compressed point, 33 bytes)."""
    return hashlib.sha256(public).digest()[:THUMBPRINT_BYTES]


def fingerprint_text(public: bytes) -> str:
    """A public key's thumbprint as people compare it: eight groups of four hexadecimal digits."""
    digits = thumbprint(public).hex()
    return ":".join(digits[at : at + 4] for at in range(0, len(digits), 4))


def public_key(public: bytes) -> ec.EllipticCurvePublicKey:
    """The key object of a compressed point. Raises `IdentityError` for anything else, points off the curve included."""
    if len(public) != PUBLIC_BYTES or public[0] not in (2, 3):
        raise IdentityError("not a compressed P-256 point")
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public)
    except ValueError as error:
        raise IdentityError("not a point of P-256") from error


def verify(public: bytes, signature: bytes, data: bytes) -> bool:
    """Whether ``signature`` (r || s) over ``data`` was made by the key of ``public``; False for malformed input too."""
    if len(signature) != SIGNATURE_BYTES:
        return False
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        public_key(public).verify(encode_dss_signature(r, s), data, _RANDOMISED)
    except (InvalidSignature, IdentityError):
        return False
    return True


class IdentityKey:
    """A private identity key. It shows itself by its fingerprint only and cannot be pickled or copied by accident."""

    __slots__ = ("_private", "public")

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        if not isinstance(private.curve, ec.SECP256R1):
            raise IdentityError("not a P-256 key")
        self._private = private
        numbers = private.public_key().public_numbers()
        self.public: bytes = bytes([2 + (numbers.y & 1)]) + numbers.x.to_bytes(32, "big")

    @classmethod
    def create(cls, randomness: Randomness = os.urandom) -> "IdentityKey":
        """A new key: 64 bits more than the order's length, reduced (FIPS 186-5 A.2.1)."""
        scalar = int.from_bytes(randomness(PRIVATE_BYTES + 8), "big") % (_ORDER - 1) + 1
        return cls(ec.derive_private_key(scalar, ec.SECP256R1()))

    @classmethod
    def from_bytes(cls, secret: bytes) -> "IdentityKey":
        """The key whose scalar is ``secret`` (32 bytes, big-endian). Raises `IdentityError`."""
        scalar = int.from_bytes(secret, "big")
        if len(secret) != PRIVATE_BYTES or not 0 < scalar < _ORDER:
            raise IdentityError("not a P-256 private key")
        return cls(ec.derive_private_key(scalar, ec.SECP256R1()))

    def to_bytes(self) -> bytes:
        """The scalar (32 bytes, big-endian): for the sealed key store alone."""
        return self._private.private_numbers().private_value.to_bytes(PRIVATE_BYTES, "big")

    @property
    def private(self) -> ec.EllipticCurvePrivateKey:
        """The key object, for protocols that take their credentials from enrolment (DTLS, IKE)."""
        return self._private

    @property
    def thumbprint(self) -> bytes:
        """The public key's thumbprint, 16 bytes."""
        return thumbprint(self.public)

    def sign(self, data: bytes) -> bytes:
        """r || s over SHA-256 of ``data``, 64 bytes."""
        r, s = decode_dss_signature(self._private.sign(data, _SIGNING))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def __repr__(self) -> str:
        return f"IdentityKey({fingerprint_text(self.public)})"

    def __reduce__(self) -> str:
        raise TypeError("an identity key is stored with to_bytes(), sealed, and in no other way")
