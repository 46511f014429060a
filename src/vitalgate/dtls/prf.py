"""The key schedule of DTLS 1.2: the PRF (RFC 5246 section 5), master secret, key block, Finished."""

import hmac
from dataclasses import dataclass

from vitalgate.dtls.suites import Suite

MASTER_BYTES = 48
FINISHED_BYTES = 12


def prf(hash_name: str, secret: bytes, label: bytes, seed: bytes, size: int) -> bytes:
    """``size`` bytes of P_hash."""
    seed = label + seed
    block = seed
    output = b""
    while len(output) < size:
        block = hmac.digest(secret, block, hash_name)
        output += hmac.digest(secret, block + seed, hash_name)
    return output[:size]


def premaster_psk(key: bytes, agreed: bytes | None = None) -> bytes:
    """The premaster secret of PSK (RFC 4279 section 2) or, with what Diffie-Hellman ``agreed`` on, of ECDHE_PSK (RFC
    5489 section 2)."""
    other = bytes(len(key)) if agreed is None else agreed
    return len(other).to_bytes(2, "big") + other + len(key).to_bytes(2, "big") + key


def extended_master_secret(suite: Suite, premaster: bytes, session_hash: bytes) -> bytes:
    """RFC 7627 section 4."""
    return prf(suite.hash, premaster, b"extended master secret", session_hash, MASTER_BYTES)


def finished(suite: Suite, master: bytes, sender: str, transcript_hash: bytes) -> bytes:
    """verify_data of ``sender``, 'client' or 'server' (RFC 5246 section 7.4.9)."""
    return prf(suite.hash, master, sender.encode() + b" finished", transcript_hash, FINISHED_BYTES)


@dataclass(frozen=True, slots=True, repr=False)
class KeyBlock:
    """Keys and salts (or whole IVs) of both directions."""

    client_key: bytes
    server_key: bytes
    client_salt: bytes
    server_salt: bytes


def key_block(suite: Suite, master: bytes, client_random: bytes, server_random: bytes) -> KeyBlock:
    """RFC 5246 section 6.3, without MAC keys."""
    key, salt = suite.aead.key, suite.aead.salt
    block = prf(suite.hash, master, b"key expansion", server_random + client_random, 2 * (key + salt))
    return KeyBlock(
        block[:key],
        block[key : 2 * key],
        block[2 * key : 2 * key + salt],
        block[2 * key + salt :],
    )
