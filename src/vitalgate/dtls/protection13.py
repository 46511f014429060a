"""Protecting records in DTLS 1.3: unified header, encrypted sequence numbers (RFC 9147 sections 4, 4.2.3)."""

from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES, ChaCha20
from cryptography.hazmat.primitives.ciphers.modes import ECB

from vitalgate.dtls.ledger import Layout
from vitalgate.dtls.protection import Discard, Exhausted
from vitalgate.dtls.records import (
    CID_BIT,
    FIXED_BITS,
    LARGEST_PLAINTEXT,
    LENGTH_BIT,
    LENGTH_BYTES,
    SEQUENCE_BIT,
    SEQUENCE_MASK,
    reconstruct,
    split_inner,
)
from vitalgate.dtls.schedule import TrafficKeys
from vitalgate.dtls.suites import NONCE_BYTES, Suite
from vitalgate.dtls.wire import DecodeError

_BYTES = tuple(bytes((value,)) for value in range(256))
SAMPLE_BYTES = 16
"""So much ciphertext makes the mask; shorter records are padded."""
ALWAYS_SHORT = 1 << 7
"""The first numbers of an epoch fit in 8 bits however many of them were lost: nothing lies before number 0."""


def _mask(suite: Suite, sn_key: bytes) -> Callable[[bytes], bytes]:
    if suite.aead.chacha:
        # RFC 9147 takes 4 bytes as counter and 12 as nonce, `cryptography` the same 16 bytes as one.
        return lambda sample: Cipher(ChaCha20(sn_key, sample), mode=None).encryptor().update(b"\0\0")
    return Cipher(AES(sn_key), ECB()).encryptor().update  # noqa: S305  # one block, as the RFC has it


class Seal13:
    """Writes records under one key. ``cid``: the peer's connection ID or b''. ``short``: how many records in a row may
    carry 8-bit numbers between two with 16 bits, once the epoch's first 128 have been sent: if more than 127 records
    in a row are lost, those with 8 bits are lost too until one with 16 comes."""

    __slots__ = (
        "_encrypt",
        "_first",
        "_iv",
        "_limit",
        "_mask",
        "_pad",
        "_short",
        "_tag",
        "_unpadded",
        "cid",
        "epoch",
        "sequence",
    )

    def __init__(
        self, suite: Suite, keys: TrafficKeys, epoch: int, cid: bytes = b"", *, pad: int = 1, short: int = 0
    ) -> None:
        self._encrypt = suite.aead.make(keys.key).encrypt
        self._iv = int.from_bytes(keys.iv, "big")
        self._mask = _mask(suite, keys.sn_key)
        self._tag = suite.aead.tag
        self._limit = min(suite.aead.protects, SEQUENCE_MASK)
        self._pad = pad
        self._unpadded = SAMPLE_BYTES - suite.aead.tag - 1
        self._first = FIXED_BITS | epoch & 3
        self._short = short
        self.cid = cid
        self.epoch = epoch
        self.sequence = 0

    @property
    def worn(self) -> bool:
        """Whether it is time for a new key: half of what this one may protect has been protected."""
        return self.sequence >= self._limit >> 1

    def seal(self, content_type: int, content: bytes, *, last: bool = True) -> bytes:
        """One record, in the shortest form that may be read without doubt. Raises `Exhausted`."""
        sequence = self.sequence
        if sequence >= self._limit:
            raise Exhausted
        self.sequence = sequence + 1
        cid = self.cid
        kind = _BYTES[content_type]
        if self._pad == 1 and len(content) >= self._unpadded:
            inner = content + kind
        else:
            inner = content + kind + bytes(self._padding(len(content)))
        first = self._first | CID_BIT if cid else self._first
        if not last:
            first |= LENGTH_BIT
        short = sequence < ALWAYS_SHORT or (self._short and sequence % (self._short + 1) != 0)
        if short:
            head, low = _BYTES[first] + cid, sequence & 0xFF
            aad = head + _BYTES[low]
        else:
            head, low = _BYTES[first | SEQUENCE_BIT] + cid, sequence & 0xFFFF
            aad = head + low.to_bytes(2, "big")
        tail = b"" if last else (len(inner) + self._tag).to_bytes(LENGTH_BYTES, "big")
        protected = self._encrypt((self._iv ^ sequence).to_bytes(NONCE_BYTES, "big"), inner, aad + tail)
        mask = self._mask(protected[:SAMPLE_BYTES])
        if short:
            return head + _BYTES[low ^ mask[0]] + tail + protected
        return head + (low ^ (mask[0] << 8 | mask[1])).to_bytes(2, "big") + tail + protected

    def layout(self, content: int, *, last: bool = True) -> Layout:
        """The fields of the next record, if it had ``content`` bytes."""
        sequence = self.sequence
        short = sequence < ALWAYS_SHORT or (self._short and sequence % (self._short + 1) != 0)
        header = 1 + (1 if short else 2) + (0 if last else LENGTH_BYTES)
        return Layout(header, len(self.cid), 0, content, 1, self._padding(content), self._tag)

    def _padding(self, content: int) -> int:
        short = SAMPLE_BYTES - self._tag - content - 1
        return max(short, -(content + 1) % self._pad)


class Open13:
    """Opens the peer's records of one epoch. Each has to carry a connection ID of ours where we asked for one; the
    association checks that, as it found the record by it."""

    __slots__ = (
        "_decrypt", "_forgeries", "_iv", "_mask", "_most", "_seen", "_sn", "_window", "epoch", "failures", "highest",
    )  # fmt: skip

    def __init__(self, suite: Suite, keys: TrafficKeys, epoch: int, *, window: int = 64) -> None:
        self._decrypt = suite.aead.make(keys.key).decrypt
        self._iv = int.from_bytes(keys.iv, "big")
        self._sn = _mask(suite, keys.sn_key)
        self._most = LARGEST_PLAINTEXT + 1 + suite.aead.tag
        self._forgeries = suite.aead.forgeries
        self.epoch = epoch
        # The window of RFC 9147 section 4.5.1, written out here because it is passed twice with every record.
        self._window = window
        self._mask = (1 << window) - 1
        self._seen = 0
        self.highest = -1
        """The highest sequence number received."""
        self.failures = 0

    @property
    def worn(self) -> bool:
        """Whether half of the failures that this key may see have been seen."""
        return self.failures >= self._forgeries >> 1

    def open(self, data: bytes, start: int, payload: int, end: int) -> tuple[int, bytes, int]:
        """Content type, content and sequence number of the record at ``start``, whose ciphertext is ``payload`` to
        ``end``; the number is marked as received. Raises `Discard`, and `Exhausted` after too many failures."""
        size = end - payload
        if size < SAMPLE_BYTES or size > self._most:
            raise Discard("length")
        mask = self._sn(data[payload : payload + SAMPLE_BYTES])
        first = data[start]
        after = payload - LENGTH_BYTES if first & LENGTH_BIT else payload
        expected = self.highest + 1
        if first & SEQUENCE_BIT:
            at = after - 2
            low = (data[at] ^ mask[0]) << 8 | data[at + 1] ^ mask[1]
            aad = data[start:at] + low.to_bytes(2, "big")
            sequence = reconstruct(low, 16, expected)
        else:
            at = after - 1
            low = data[at] ^ mask[0]
            aad = data[start:at] + _BYTES[low]
            sequence = reconstruct(low, 8, expected)
        if after != payload:
            aad += data[after:payload]
        ahead = sequence - self.highest
        if ahead <= 0 and (ahead <= -self._window or self._seen >> -ahead & 1):
            raise Discard("replay")
        try:
            inner = self._decrypt((self._iv ^ sequence).to_bytes(NONCE_BYTES, "big"), data[payload:end], aad)
        except InvalidTag:
            self.failures += 1
            if self.failures >= self._forgeries:
                raise Exhausted from None
            raise Discard("decryption") from None
        if ahead <= 0:
            self._seen |= 1 << -ahead
        else:
            self._seen = (self._seen << ahead | 1) & self._mask if ahead < self._window else 1
            self.highest = sequence
        if inner and inner[-1]:
            return inner[-1], inner[:-1], sequence
        try:
            content_type, content = split_inner(inner)
        except DecodeError:
            raise Discard("inner") from None
        return content_type, inner[:content], sequence
