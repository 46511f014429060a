"""Protecting records in DTLS 1.3: unified header, encrypted sequence numbers (RFC 9147 sections 4, 4.2.3)."""

from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES, ChaCha20
from cryptography.hazmat.primitives.ciphers.modes import ECB

from vitalgate.dtls.ledger import Layout
from vitalgate.dtls.protection import Discard, Exhausted
from vitalgate.dtls.records import (
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
from vitalgate.oscore.replay import ReplayWindow

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

    __slots__ = ("_encrypt", "_iv", "_limit", "_mask", "_pad", "_short", "_tag", "cid", "epoch", "sequence")

    def __init__(
        self, suite: Suite, keys: TrafficKeys, epoch: int, cid: bytes = b"", *, pad: int = 1, short: int = 0
    ) -> None:
        self._encrypt = suite.aead.make(keys.key).encrypt
        self._iv = int.from_bytes(keys.iv, "big")
        self._mask = _mask(suite, keys.sn_key)
        self._tag = suite.aead.tag
        self._limit = min(suite.aead.protects, SEQUENCE_MASK)
        self._pad = pad
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
        size = len(content)
        padding = self._padding(size)
        inner = content + (bytes((content_type,)) if not padding else bytes((content_type,)) + bytes(padding))
        short = sequence < ALWAYS_SHORT or (self._short and sequence % (self._short + 1) != 0)
        first = 0x20 | self.epoch & 3
        if cid:
            first |= 0x10
        if short:
            number = (sequence & 0xFF).to_bytes(1, "big")
        else:
            first |= SEQUENCE_BIT
            number = (sequence & 0xFFFF).to_bytes(2, "big")
        head = bytes((first,)) + cid if last else bytes((first | LENGTH_BIT,)) + cid
        tail = b"" if last else (len(inner) + self._tag).to_bytes(LENGTH_BYTES, "big")
        protected = self._encrypt((self._iv ^ sequence).to_bytes(NONCE_BYTES, "big"), inner, head + number + tail)
        mask = self._mask(protected[:SAMPLE_BYTES])
        if short:
            return head + bytes((number[0] ^ mask[0],)) + tail + protected
        return head + bytes((number[0] ^ mask[0], number[1] ^ mask[1])) + tail + protected

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

    __slots__ = ("_decrypt", "_forgeries", "_iv", "_mask", "_tag", "epoch", "failures", "window")

    def __init__(self, suite: Suite, keys: TrafficKeys, epoch: int, *, window: int = 64) -> None:
        self._decrypt = suite.aead.make(keys.key).decrypt
        self._iv = int.from_bytes(keys.iv, "big")
        self._mask = _mask(suite, keys.sn_key)
        self._tag = suite.aead.tag
        self._forgeries = suite.aead.forgeries
        self.epoch = epoch
        self.window = ReplayWindow(window)
        self.failures = 0

    @property
    def worn(self) -> bool:
        """Whether half of the failures that this key may see have been seen."""
        return self.failures >= self._forgeries >> 1

    def open(self, data: bytes, start: int, payload: int, end: int) -> tuple[int, bytes, int]:
        """Content type, content and sequence number of the record at ``start``, whose ciphertext is ``payload`` to
        ``end``; the number is marked as received. Raises `Discard`, and `Exhausted` after too many failures."""
        size = end - payload
        if size < SAMPLE_BYTES or size > LARGEST_PLAINTEXT + 1 + self._tag:
            raise Discard("length")
        mask = self._mask(data[payload : payload + SAMPLE_BYTES])
        first = data[start]
        number_at = payload - LENGTH_BYTES if first & LENGTH_BIT else payload
        if first & SEQUENCE_BIT:
            number_at -= 2
            low = (data[number_at] ^ mask[0]) << 8 | data[number_at + 1] ^ mask[1]
            bits, number = 16, low.to_bytes(2, "big")
            after = number_at + 2
        else:
            number_at -= 1
            low = data[number_at] ^ mask[0]
            bits, number = 8, low.to_bytes(1, "big")
            after = number_at + 1
        window = self.window
        sequence = reconstruct(low, bits, window.highest + 1)
        if not window.fresh(sequence):
            raise Discard("replay")
        nonce = (self._iv ^ sequence).to_bytes(NONCE_BYTES, "big")
        try:
            inner = self._decrypt(nonce, data[payload:end], data[start:number_at] + number + data[after:payload])
        except InvalidTag:
            self.failures += 1
            if self.failures >= self._forgeries:
                raise Exhausted from None
            raise Discard("decryption") from None
        window.mark(sequence)
        if inner and inner[-1]:
            return inner[-1], inner[:-1], sequence
        try:
            content_type, content = split_inner(inner)
        except DecodeError:
            raise Discard("inner") from None
        return content_type, inner[:content], sequence
