"""The algorithms a security context may name: one row each.

AEAD rows are those that COSE defines (RFC 9053 section 4) and `cryptography` implements; OSCORE needs nonces of 7 bytes
or more (RFC 8613 section 5.2). The mandatory ones are AES-CCM-16-64-128 and HKDF SHA-256 (RFC 8613 sections 5, 3.2.1).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305


class AeadKey(Protocol):
    """One key made ready: `cryptography`'s AEAD objects. ``decrypt`` raises `InvalidTag`."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes:
        """The ciphertext with its tag."""

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes:
        """The plaintext."""


@dataclass(frozen=True, slots=True)
class Aead:
    """COSE value, name, sizes in bytes, longest plaintext in bytes, and how a key is made ready."""

    value: int
    name: str
    key: int
    nonce: int
    tag: int
    longest: int
    make: Callable[[bytes], AeadKey]

    @property
    def longest_id(self) -> int:
        """The longest Sender ID in bytes (RFC 8613 section 3.3)."""
        return self.nonce - 6


def _ccm(tag: int) -> Callable[[bytes], AeadKey]:
    return lambda key: AESCCM(key, tag)


LONGEST_MESSAGE = 65535
"""No datagram is longer, so no plaintext is, whatever the algorithm would take."""

AEADS: dict[int, Aead] = {
    row.value: row
    for row in (
        Aead(1, "A128GCM", 16, 12, 16, LONGEST_MESSAGE, AESGCM),
        Aead(2, "A192GCM", 24, 12, 16, LONGEST_MESSAGE, AESGCM),
        Aead(3, "A256GCM", 32, 12, 16, LONGEST_MESSAGE, AESGCM),
        Aead(10, "AES-CCM-16-64-128", 16, 13, 8, LONGEST_MESSAGE, _ccm(8)),
        Aead(11, "AES-CCM-16-64-256", 32, 13, 8, LONGEST_MESSAGE, _ccm(8)),
        Aead(12, "AES-CCM-64-64-128", 16, 7, 8, LONGEST_MESSAGE, _ccm(8)),
        Aead(13, "AES-CCM-64-64-256", 32, 7, 8, LONGEST_MESSAGE, _ccm(8)),
        Aead(24, "ChaCha20/Poly1305", 32, 12, 16, LONGEST_MESSAGE, ChaCha20Poly1305),
        Aead(30, "AES-CCM-16-128-128", 16, 13, 16, LONGEST_MESSAGE, _ccm(16)),
        Aead(31, "AES-CCM-16-128-256", 32, 13, 16, LONGEST_MESSAGE, _ccm(16)),
        Aead(32, "AES-CCM-64-128-128", 16, 7, 16, LONGEST_MESSAGE, _ccm(16)),
        Aead(33, "AES-CCM-64-128-256", 32, 7, 16, LONGEST_MESSAGE, _ccm(16)),
    )
}

DEFAULT_AEAD = 10


@dataclass(frozen=True, slots=True)
class Kdf:
    """COSE value (RFC 9053 section 5.1), name, and the hash of the HMAC."""

    value: int
    name: str
    hash: Callable[[], hashes.HashAlgorithm]


HKDFS: dict[int, Kdf] = {
    row.value: row
    for row in (
        Kdf(-10, "HKDF SHA-256", hashes.SHA256),
        Kdf(-11, "HKDF SHA-512", hashes.SHA512),
    )
}

DEFAULT_HKDF = -10
