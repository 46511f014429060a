"""The cipher suites: one row each, AEAD only, for both versions.

Values and names are the registry's; the sources are RFC 6655 and 7251 (CCM), 5487 and 5289 (GCM), 7905 (ChaCha20), 8442
(ECDHE_PSK), 8446 appendix B.4. Limits are RFC 9147 section 4.5.3 and RFC 8446 section 5.5.
"""

import enum
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305

from vitalgate.dtls.records import DTLS_1_2, DTLS_1_3


class AeadKey(Protocol):
    """One key made ready: `cryptography`'s AEAD objects. ``decrypt`` raises `InvalidTag`."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes:
        """The ciphertext with its tag."""

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes:
        """The plaintext."""


@dataclass(frozen=True, slots=True)
class Aead:
    """Sizes in bytes; ``salt``: how much of the nonce DTLS 1.2 derives, the rest travels in each record (RFC 5246
    section 6.2.3.3); ``protects`` and ``forgeries``: how many records may be protected with one key, and how many
    failures be seen before it is given up."""

    name: str
    key: int
    tag: int
    salt: int
    make: Callable[[bytes], AeadKey]
    protects: int
    forgeries: int

    @property
    def explicit(self) -> int:
        """Bytes of nonce in each record of DTLS 1.2."""
        return NONCE_BYTES - self.salt

    @property
    def chacha(self) -> bool:
        """Whether sequence numbers are masked with ChaCha20 instead of AES (RFC 9147 section 4.2.3)."""
        return self.salt == NONCE_BYTES


NONCE_BYTES = 12


def _ccm8(key: bytes) -> AeadKey:
    return AESCCM(key, 8)


def _gcm_limit() -> int:
    return int(2**24.5)


AES_128_CCM_8 = Aead("AES_128_CCM_8", 16, 8, 4, _ccm8, 1 << 23, 1 << 7)
AES_256_CCM_8 = Aead("AES_256_CCM_8", 32, 8, 4, _ccm8, 1 << 23, 1 << 7)
AES_128_CCM = Aead("AES_128_CCM", 16, 16, 4, AESCCM, 1 << 23, int(2**23.5))
AES_128_GCM = Aead("AES_128_GCM", 16, 16, 4, AESGCM, _gcm_limit(), 1 << 36)
AES_256_GCM = Aead("AES_256_GCM", 32, 16, 4, AESGCM, _gcm_limit(), 1 << 36)
CHACHA20_POLY1305 = Aead("CHACHA20_POLY1305", 32, 16, 12, ChaCha20Poly1305, 1 << 48, 1 << 36)


class Exchange(enum.Enum):
    """How keys are agreed in DTLS 1.2; in 1.3 the suite does not say."""

    ANY = "any"
    PSK = "psk"
    ECDHE_PSK = "ecdhe-psk"
    ECDHE_ECDSA = "ecdhe-ecdsa"

    @property
    def psk(self) -> bool:
        """Whether a pre-shared key authenticates."""
        return self in (Exchange.PSK, Exchange.ECDHE_PSK)

    @property
    def ephemeral(self) -> bool:
        """Whether the server sends an ephemeral key."""
        return self in (Exchange.ECDHE_PSK, Exchange.ECDHE_ECDSA)


@dataclass(frozen=True, slots=True)
class Suite:
    """One row; ``hash`` is a name of hashlib."""

    value: int
    name: str
    version: int
    exchange: Exchange
    aead: Aead
    hash: str = "sha256"

    @property
    def hash_bytes(self) -> int:
        """Length of the hash's output."""
        return hashlib.new(self.hash).digest_size

    @property
    def algorithm(self) -> hashes.HashAlgorithm:
        """The hash for `cryptography`."""
        return hashes.SHA384() if self.hash == "sha384" else hashes.SHA256()


SUITES: dict[int, Suite] = {
    row.value: row
    for row in (
        Suite(0x1301, "TLS_AES_128_GCM_SHA256", DTLS_1_3, Exchange.ANY, AES_128_GCM),
        Suite(0x1302, "TLS_AES_256_GCM_SHA384", DTLS_1_3, Exchange.ANY, AES_256_GCM, "sha384"),
        Suite(0x1303, "TLS_CHACHA20_POLY1305_SHA256", DTLS_1_3, Exchange.ANY, CHACHA20_POLY1305),
        Suite(0x1304, "TLS_AES_128_CCM_SHA256", DTLS_1_3, Exchange.ANY, AES_128_CCM),
        Suite(0x1305, "TLS_AES_128_CCM_8_SHA256", DTLS_1_3, Exchange.ANY, AES_128_CCM_8),
        Suite(0xC0AE, "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8", DTLS_1_2, Exchange.ECDHE_ECDSA, AES_128_CCM_8),
        Suite(0xC0AC, "TLS_ECDHE_ECDSA_WITH_AES_128_CCM", DTLS_1_2, Exchange.ECDHE_ECDSA, AES_128_CCM),
        Suite(0xC02B, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", DTLS_1_2, Exchange.ECDHE_ECDSA, AES_128_GCM),
        Suite(0xC02C, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", DTLS_1_2, Exchange.ECDHE_ECDSA, AES_256_GCM, "sha384"),
        Suite(
            0xCCA9, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", DTLS_1_2, Exchange.ECDHE_ECDSA, CHACHA20_POLY1305
        ),
        Suite(0xD003, "TLS_ECDHE_PSK_WITH_AES_128_CCM_8_SHA256", DTLS_1_2, Exchange.ECDHE_PSK, AES_128_CCM_8),
        Suite(0xD005, "TLS_ECDHE_PSK_WITH_AES_128_CCM_SHA256", DTLS_1_2, Exchange.ECDHE_PSK, AES_128_CCM),
        Suite(0xD001, "TLS_ECDHE_PSK_WITH_AES_128_GCM_SHA256", DTLS_1_2, Exchange.ECDHE_PSK, AES_128_GCM),
        Suite(0xD002, "TLS_ECDHE_PSK_WITH_AES_256_GCM_SHA384", DTLS_1_2, Exchange.ECDHE_PSK, AES_256_GCM, "sha384"),
        Suite(0xCCAC, "TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256", DTLS_1_2, Exchange.ECDHE_PSK, CHACHA20_POLY1305),
        Suite(0xC0A8, "TLS_PSK_WITH_AES_128_CCM_8", DTLS_1_2, Exchange.PSK, AES_128_CCM_8),
        Suite(0xC0A4, "TLS_PSK_WITH_AES_128_CCM", DTLS_1_2, Exchange.PSK, AES_128_CCM),
        Suite(0x00A8, "TLS_PSK_WITH_AES_128_GCM_SHA256", DTLS_1_2, Exchange.PSK, AES_128_GCM),
        Suite(0x00A9, "TLS_PSK_WITH_AES_256_GCM_SHA384", DTLS_1_2, Exchange.PSK, AES_256_GCM, "sha384"),
        Suite(0xCCAB, "TLS_PSK_WITH_CHACHA20_POLY1305_SHA256", DTLS_1_2, Exchange.PSK, CHACHA20_POLY1305),
    )
}

DEFAULT_SUITES: tuple[int, ...] = tuple(value for value in SUITES if value != 0x1305)
"""Every row in the table's order, which is that of preference, but CCM_8 under DTLS 1.3, which somebody has to ask for:
its tag is too short for a key that outlives failures (RFC 9147 section 4.5.3)."""

EMPTY_RENEGOTIATION_INFO_SCSV = 0x00FF
"""Not a suite: the client knows RFC 5746."""
