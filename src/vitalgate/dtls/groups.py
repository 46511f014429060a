"""The groups of ephemeral key agreement (RFC 8422 section 5.1.1, RFC 8446 section 4.2.7): one row each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from vitalgate.dtls.alerts import Alert, HandshakeError
from vitalgate.engine import Randomness

PrivateShare: TypeAlias = ec.EllipticCurvePrivateKey | x25519.X25519PrivateKey


@dataclass(frozen=True, slots=True)
class Group:
    """Registry value, name, length of a public share in bytes, and its operations."""

    value: int
    name: str
    share: int
    generate: Callable[[Randomness], PrivateShare]
    public: Callable[[PrivateShare], bytes]
    agree: Callable[[PrivateShare, bytes], bytes]


def _generate(curve: type[ec.EllipticCurve], order: int) -> Callable[[Randomness], PrivateShare]:
    size = (order.bit_length() + 7) // 8 + 8

    def generate(randomness: Randomness) -> PrivateShare:
        # 64 bits more than the order has leave no bias worth the name (FIPS 186-5 appendix A.2.1).
        scalar = int.from_bytes(randomness(size), "big") % (order - 1) + 1
        return ec.derive_private_key(scalar, curve())

    return generate


def _generate_x25519(randomness: Randomness) -> PrivateShare:
    return x25519.X25519PrivateKey.from_private_bytes(randomness(32))


P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
P384_ORDER = int("ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16)


def _point(private: PrivateShare) -> bytes:
    return private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _raw(private: PrivateShare) -> bytes:
    return private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def _ecdh(private: PrivateShare, share: bytes) -> bytes:
    assert not isinstance(private, x25519.X25519PrivateKey)
    if not share or share[0] != 4:
        raise HandshakeError(Alert.ILLEGAL_PARAMETER, "a point that is not uncompressed")
    try:
        return private.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(private.curve, share))
    except ValueError as error:
        raise HandshakeError(Alert.ILLEGAL_PARAMETER, "a point that is not on the curve") from error


def _x25519(private: PrivateShare, share: bytes) -> bytes:
    assert isinstance(private, x25519.X25519PrivateKey)
    try:
        return private.exchange(x25519.X25519PublicKey.from_public_bytes(share))
    except ValueError as error:  # too short, or a point of small order (RFC 8446 section 7.4.2)
        raise HandshakeError(Alert.ILLEGAL_PARAMETER, "a share that agrees on nothing") from error


GROUPS: dict[int, Group] = {
    row.value: row
    for row in (
        Group(29, "x25519", 32, _generate_x25519, _raw, _x25519),
        Group(23, "secp256r1", 65, _generate(ec.SECP256R1, P256_ORDER), _point, _ecdh),
        Group(24, "secp384r1", 97, _generate(ec.SECP384R1, P384_ORDER), _point, _ecdh),
    )
}

DEFAULT_GROUPS: tuple[int, ...] = (23, 29, 24)
"""P-256 first: RFC 7925 section 4.4 has every device of the Internet of Things know it."""
