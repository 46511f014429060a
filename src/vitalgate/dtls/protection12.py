"""Protecting records in DTLS 1.2 with AEADs (RFC 5246 section 6.2.3.3, RFC 6347 section 4.1, RFC 9146 section 5)."""

from struct import Struct

from cryptography.exceptions import InvalidTag

from vitalgate.dtls.ledger import Layout
from vitalgate.dtls.protection import Discard, Exhausted
from vitalgate.dtls.records import (
    CID_AT,
    DTLS_1_2,
    HEADER,
    HEADER_BYTES,
    LARGEST_PLAINTEXT,
    LENGTH_BYTES,
    SEQUENCE_BITS,
    SEQUENCE_MASK,
    ContentType,
    split_inner,
)
from vitalgate.dtls.suites import NONCE_BYTES, Suite
from vitalgate.dtls.wire import DecodeError

_AAD = Struct("!QBHH").pack
"""Epoch and sequence number, type, version, length of the plaintext."""
_HEADER = HEADER.pack
_CID = int(ContentType.TLS12_CID)
_HEAD_OF_CID = Struct("!BHQ").pack
_VERSION = DTLS_1_2
EPOCH = 1
"""Without renegotiation there is one protected epoch."""
_EPOCH = EPOCH << SEQUENCE_BITS


LEAST_FORGERIES = 1 << 20
"""DTLS 1.2 sets no limit to failures and has no key update. RFC 9147's for CCM_8 would let anyone end an association
with 128 datagrams; this one leaves a forger a chance of 2^-44."""


def _cid_aad(cid: bytes) -> bytes:
    """What the additional data of a record with connection ID begins with (RFC 9146 section 5.3)."""
    return b"\xff" * 8 + bytes((_CID, len(cid), _CID)) + _VERSION.to_bytes(2, "big")


class Seal12:
    """Writes records under one key. ``cid``: the connection ID that the peer wants to see, b'' for none; then records
    are of content type 25, their content padded to a multiple of ``pad`` bytes."""

    __slots__ = ("_cid", "_cid_aad", "_encrypt", "_explicit", "_iv", "_limit", "_pad", "_tag", "epoch", "sequence")

    def __init__(self, suite: Suite, key: bytes, salt: bytes, cid: bytes = b"", *, pad: int = 1) -> None:
        aead = suite.aead
        self._encrypt = aead.make(key).encrypt
        # The nonce is salt || sequence for AES, IV xor sequence for ChaCha20 (RFC 7905 section 2): one number, one xor.
        self._iv = int.from_bytes(salt.ljust(NONCE_BYTES, b"\0"), "big")
        self._explicit = bool(aead.explicit)
        self._tag = aead.tag
        self._limit = min(aead.protects, SEQUENCE_MASK)
        self._cid = cid
        self._cid_aad = _cid_aad(cid)
        self._pad = pad
        self.epoch = EPOCH
        self.sequence = 0

    def seal(self, content_type: int, content: bytes, *, last: bool = True) -> bytes:
        """One record. Raises `Exhausted`."""
        sequence = self.sequence
        if sequence >= self._limit:
            raise Exhausted
        self.sequence = sequence + 1
        number = _EPOCH | sequence
        nonce = (self._iv ^ number).to_bytes(NONCE_BYTES, "big")
        if self._cid:
            return self._seal_with_cid(content_type, content, number, nonce)
        protected = self._encrypt(nonce, content, _AAD(number, content_type, _VERSION, len(content)))
        if self._explicit:
            return _HEADER(content_type, _VERSION, number, 8 + len(protected)) + nonce[4:] + protected
        return _HEADER(content_type, _VERSION, number, len(protected)) + protected

    def _seal_with_cid(self, content_type: int, content: bytes, number: int, nonce: bytes) -> bytes:
        inner = content + bytes((content_type,)) + bytes(self._padding(len(content)))
        number_and_cid = number.to_bytes(8, "big") + self._cid
        protected = self._encrypt(nonce, inner, self._cid_aad + number_and_cid + len(inner).to_bytes(2, "big"))
        if self._explicit:
            protected = nonce[4:] + protected
        return b"\x19\xfe\xfd" + number_and_cid + len(protected).to_bytes(2, "big") + protected

    def layout(self, content: int, *, last: bool = True) -> Layout:
        """The fields of a record with ``content`` bytes."""
        nonce = 8 if self._explicit else 0
        if not self._cid:
            return Layout(HEADER_BYTES, 0, nonce, content, 0, 0, self._tag)
        return Layout(HEADER_BYTES, len(self._cid), nonce, content, 1, self._padding(content), self._tag)

    def _padding(self, content: int) -> int:
        return -(content + 1) % self._pad


class Open12:
    """Opens the peer's records. ``cid``: the connection ID that they have to carry, b'' for none."""

    __slots__ = (
        "_cid", "_cid_aad", "_decrypt", "_explicit", "_forgeries", "_iv", "_mask", "_overhead", "_salt", "_seen",
        "_window", "epoch", "failures", "highest",
    )  # fmt: skip

    def __init__(self, suite: Suite, key: bytes, salt: bytes, cid: bytes = b"", *, window: int = 64) -> None:
        aead = suite.aead
        self._decrypt = aead.make(key).decrypt
        self._iv = int.from_bytes(salt.ljust(NONCE_BYTES, b"\0"), "big")
        self._explicit = aead.explicit
        self._overhead = aead.explicit + aead.tag
        self._salt = salt
        self._forgeries = max(aead.forgeries, LEAST_FORGERIES)
        self._cid = cid
        self._cid_aad = _cid_aad(cid)
        self.epoch = EPOCH
        # The window of RFC 6347 section 4.1.2.6, written out here because it is passed twice with every record.
        self._window = window
        self._mask = (1 << window) - 1
        self._seen = 0
        self.highest = -1
        """The highest sequence number received."""
        self.failures = 0

    def open(self, data: bytes, start: int, payload: int, end: int, number: int) -> tuple[int, bytes]:
        """Content type and content of the record at ``start``, whose fragment is ``payload`` to ``end`` and whose epoch
        and sequence number are ``number``; it is marked as received. Raises `Discard`, and `Exhausted` after too many
        failures."""
        sequence = number & SEQUENCE_MASK
        ahead = sequence - self.highest
        if ahead <= 0 and (ahead <= -self._window or self._seen >> -ahead & 1):
            raise Discard("replay")
        content_type = data[start]
        with_cid = content_type == _CID
        if with_cid != bool(self._cid):
            raise Discard("cid")
        size = end - payload - self._overhead
        if size < 0 or size > LARGEST_PLAINTEXT:
            raise Discard("length")
        explicit = self._explicit
        if explicit:  # chosen by the sender as it likes; ours and everybody's is epoch and sequence number
            body = payload + explicit
            nonce = self._salt + data[payload:body]
        else:
            body = payload
            nonce = (self._iv ^ number).to_bytes(NONCE_BYTES, "big")
        if with_cid:
            if data[start + CID_AT : payload - LENGTH_BYTES] != self._cid:
                raise Discard("cid")
            aad = self._cid_aad + data[start + 3 : payload - LENGTH_BYTES] + size.to_bytes(2, "big")
        else:
            aad = _AAD(number, content_type, _VERSION, size)
        try:
            content = self._decrypt(nonce, data[body:end], aad)
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
        if not with_cid:
            return content_type, content
        if content and content[-1]:
            return content[-1], content[:-1]
        try:
            content_type, size = split_inner(content)
        except DecodeError:
            raise Discard("inner") from None
        return content_type, content[:size]
