"""The groups of ephemeral key agreement (RFC 8422 section 5.1.1, RFC 8446 section 4.2.7): one row each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from vitalgate.dtls.alerts import Alert, HandshakeError

PrivateShare: TypeAlias = ec.EllipticCurvePrivateKey | x25519.X25519PrivateKey


@dataclass(frozen=True, slots=True)
class Group:
    """Registry value, name, length of a public share in bytes, and its operations."""

    value: int
    name: str
    share: int
    generate: Callable[[], PrivateShare]
    public: Callable[[PrivateShare], bytes]
    agree: Callable[[PrivateShare, bytes], bytes]


def _generate(curve: type[ec.EllipticCurve]) -> Callable[[], PrivateShare]:
    return lambda: ec.generate_private_key(curve())


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
        Group(29, "x25519", 32, x25519.X25519PrivateKey.generate, _raw, _x25519),
        Group(23, "secp256r1", 65, _generate(ec.SECP256R1), _point, _ecdh),
        Group(24, "secp384r1", 97, _generate(ec.SECP384R1), _point, _ecdh),
    )
}

DEFAULT_GROUPS: tuple[int, ...] = (23, 29, 24)
"""P-256 first: RFC 7925 section 4.4 has every device of the Internet of Things know it."""
