"""The key schedule of DTLS 1.3: RFC 8446 section 7 with the label prefix 'dtls13' (RFC 9147 section 5.9)."""

import hashlib
import hmac
from dataclasses import dataclass

from vitalgate.dtls.suites import NONCE_BYTES, Suite

PREFIX = b"dtls13"


def extract(hash_name: str, salt: bytes, secret: bytes) -> bytes:
    """HKDF-Extract."""
    return hmac.digest(salt, secret, hash_name)


def expand_label(
    hash_name: str, secret: bytes, label: bytes, context: bytes, size: int, prefix: bytes = PREFIX
) -> bytes:
    """HKDF-Expand-Label."""
    full = prefix + label
    info = size.to_bytes(2, "big") + bytes((len(full),)) + full + bytes((len(context),)) + context
    block, output, counter = b"", b"", 1
    while len(output) < size:
        block = hmac.digest(secret, block + info + bytes((counter,)), hash_name)
        output += block
        counter += 1
    return output[:size]


def digest(hash_name: str, data: bytes) -> bytes:
    """The plain hash of ``data``."""
    return hashlib.new(hash_name, data).digest()


def finished_mac(hash_name: str, base: bytes, transcript_hash: bytes) -> bytes:
    """verify_data of Finished, and a binder where ``base`` is the binder key (RFC 8446 sections 4.4.4, 4.2.11.2)."""
    size = hashlib.new(hash_name).digest_size
    return hmac.digest(expand_label(hash_name, base, b"finished", b"", size), transcript_hash, hash_name)


@dataclass(frozen=True, slots=True, repr=False)
class TrafficKeys:
    """What protects one direction in one epoch: AEAD key, IV, key of the sequence number mask."""

    key: bytes
    iv: bytes
    sn_key: bytes


def traffic_keys(suite: Suite, secret: bytes) -> TrafficKeys:
    """RFC 8446 section 7.3, RFC 9147 section 4.2.3."""
    size = suite.aead.key
    return TrafficKeys(
        expand_label(suite.hash, secret, b"key", b"", size),
        expand_label(suite.hash, secret, b"iv", b"", NONCE_BYTES),
        expand_label(suite.hash, secret, b"sn", b"", size),
    )


def next_generation(suite: Suite, secret: bytes) -> bytes:
    """application_traffic_secret_N+1 (RFC 8446 section 7.2)."""
    return expand_label(suite.hash, secret, b"traffic upd", b"", suite.hash_bytes)


class Schedule:
    """The secrets of one handshake, stage after stage."""

    __slots__ = ("_hash", "_size", "early", "handshake", "master", "suite")

    def __init__(self, suite: Suite, psk: bytes | None = None) -> None:
        self.suite = suite
        self._hash = suite.hash
        self._size = suite.hash_bytes
        zeros = bytes(self._size)
        self.early = extract(self._hash, zeros, zeros if psk is None else psk)
        self.handshake = b""
        self.master = b""

    def binder(self, *, external: bool, transcript_hash: bytes) -> bytes:
        """The binder over a ClientHello without its binders (RFC 8446 section 4.2.11.2)."""
        base = self._derive(self.early, b"ext binder" if external else b"res binder", digest(self._hash, b""))
        return finished_mac(self._hash, base, transcript_hash)

    def agreed(self, secret: bytes | None) -> None:
        """Take what (EC)DHE agreed on, or None under PSK alone; handshake and master secret follow."""
        empty = digest(self._hash, b"")
        zeros = bytes(self._size)
        salt = self._derive(self.early, b"derived", empty)
        self.handshake = extract(self._hash, salt, zeros if secret is None else secret)
        self.master = extract(self._hash, self._derive(self.handshake, b"derived", empty), zeros)

    def handshake_traffic(self, sender: str, transcript_hash: bytes) -> bytes:
        """[sender]_handshake_traffic_secret, after ServerHello; ``sender`` is 'c' or 's'."""
        return self._derive(self.handshake, sender.encode() + b" hs traffic", transcript_hash)

    def application_traffic(self, sender: str, transcript_hash: bytes) -> bytes:
        """[sender]_application_traffic_secret_0, after the server's Finished."""
        return self._derive(self.master, sender.encode() + b" ap traffic", transcript_hash)

    def resumption(self, transcript_hash: bytes) -> bytes:
        """resumption_master_secret, after the client's Finished."""
        return self._derive(self.master, b"res master", transcript_hash)

    def exporter(self, transcript_hash: bytes) -> bytes:
        """exporter_master_secret, after the server's Finished."""
        return self._derive(self.master, b"exp master", transcript_hash)

    def _derive(self, secret: bytes, label: bytes, transcript_hash: bytes) -> bytes:
        return expand_label(self._hash, secret, label, transcript_hash, self._size)


def resumption_psk(suite: Suite, resumption: bytes, nonce: bytes) -> bytes:
    """The key that belongs to a ticket (RFC 8446 section 4.6.1)."""
    return expand_label(suite.hash, resumption, b"resumption", nonce, suite.hash_bytes)
