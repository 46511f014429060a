"""Keys made ready, once an SA: ciphers, AEADs and MACs as plain calls.

Everything here is built for many packets under one key: a cipher context lives as long as its SA.
"""

import hashlib
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.constant_time import bytes_eq

from vitalgate.engine import Randomness
from vitalgate.ipsec.rc5 import RC5

Mac: TypeAlias = Callable[[bytes], bytes]
"""Data to the whole MAC; rows cut it to their ICV."""


class Aead(Protocol):
    """`cryptography`'s AEAD objects. ``decrypt`` raises `InvalidTag`."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes:
        """The ciphertext with its tag."""

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes:
        """The plaintext."""


class BlockMode(Protocol):
    """A cipher without integrity of its own, for one SA."""

    def seal(self, sequence: int, plaintext: bytes) -> bytes:
        """IV and ciphertext."""

    def encrypt(self, iv: bytes, plaintext: bytes) -> bytes:
        """The ciphertext under a given IV: for tests against vectors."""

    def open(self, sealed: bytes) -> bytes:
        """The plaintext of IV and ciphertext."""


class ShortTagGcm:
    """AES-GCM with an ICV of 8 or 12 bytes (RFC 4106 section 6), out of one whose tags are whole.

    GCM's encryption is its own inverse but for the tag, so that opening is: decrypt, make the tag anew, compare. The
    plaintext leaves only after that.
    """

    __slots__ = ("_cut", "_seal", "_tag")

    def __init__(self, key: bytes, tag: int) -> None:
        self._seal = AESGCM(key).encrypt
        self._tag = tag
        self._cut = tag - 16

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes:
        """As `Aead`."""
        return self._seal(nonce, data, associated_data)[: self._cut]

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes:
        """As `Aead`."""
        tag = self._tag
        if len(data) < tag:
            raise InvalidTag
        plaintext = self._seal(nonce, data[:-tag], None)[:-16]
        if not bytes_eq(self._seal(nonce, plaintext, associated_data)[-16 : self._cut], data[-tag:]):
            raise InvalidTag
        return plaintext


def gcm(tag: int) -> Callable[[bytes], Aead]:
    """AES-GCM with a tag of ``tag`` bytes."""
    return AESGCM if tag == 16 else lambda key: ShortTagGcm(key, tag)


def ccm(tag: int) -> Callable[[bytes], Aead]:
    """AES-CCM with a tag of ``tag`` bytes."""
    return lambda key: AESCCM(key, tag)


chacha: Final = ChaCha20Poly1305


def _contexts(algorithm: algorithms.AES | TripleDES, block: int) -> tuple[CipherContext, CipherContext]:
    cipher = Cipher(algorithm, modes.CBC(bytes(block)))
    return cipher.encryptor(), cipher.decryptor()


class Cbc:
    """A block cipher in CBC mode with unpredictable IVs, as one long chain.

    Sealing encrypts a random block first: its ciphertext is the packet's IV, and what follows is chained to it (an
    encrypted nonce, SP 800-38A appendix C). Opening feeds the IV as if it were ciphertext and drops what comes of it.
    So neither needs a context a packet, which costs several times the encryption.
    """

    __slots__ = ("_algorithm", "_block", "_decrypt", "_encrypt", "_random")

    def __init__(self, algorithm: algorithms.AES | TripleDES, block: int, randomness: Randomness) -> None:
        self._algorithm = algorithm
        encryptor, decryptor = _contexts(algorithm, block)
        self._encrypt, self._decrypt = encryptor.update, decryptor.update
        self._block = block
        self._random = randomness

    def seal(self, sequence: int, plaintext: bytes) -> bytes:
        """As `BlockMode`; raises ValueError for less than whole blocks, which would break the chain."""
        if len(plaintext) % self._block:
            raise ValueError("whole blocks alone are encrypted")
        return self._encrypt(self._random(self._block) + plaintext)

    def encrypt(self, iv: bytes, plaintext: bytes) -> bytes:
        """As `BlockMode`."""
        return Cipher(self._algorithm, modes.CBC(iv)).encryptor().update(plaintext)

    def open(self, sealed: bytes) -> bytes:
        """As `BlockMode`."""
        if len(sealed) % self._block:
            raise ValueError("whole blocks alone are decrypted")
        return self._decrypt(sealed)[self._block :]


class Rc5Cbc:
    """RC5 in CBC mode with random IVs."""

    __slots__ = ("_cipher", "_random")

    def __init__(self, key: bytes, randomness: Randomness) -> None:
        self._cipher = RC5(key)
        self._random = randomness

    def seal(self, sequence: int, plaintext: bytes) -> bytes:
        """As `BlockMode`."""
        iv = self._random(8)
        return iv + self._cipher.encrypt(iv, plaintext)

    def encrypt(self, iv: bytes, plaintext: bytes) -> bytes:
        """As `BlockMode`."""
        return self._cipher.encrypt(iv, plaintext)

    def open(self, sealed: bytes) -> bytes:
        """As `BlockMode`."""
        return self._cipher.decrypt(sealed[:8], sealed[8:])


class Ctr:
    """AES-CTR (RFC 3686): the counter block is the salt, the IV (the sequence number) and a count from 1."""

    __slots__ = ("_decryptor", "_encryptor", "_salt")

    def __init__(self, key: bytes, salt: bytes) -> None:
        cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(16)))
        self._encryptor, self._decryptor = cipher.encryptor(), cipher.decryptor()
        self._salt = salt

    def seal(self, sequence: int, plaintext: bytes) -> bytes:
        """As `BlockMode`."""
        iv = sequence.to_bytes(8, "big")
        return iv + self.encrypt(iv, plaintext)

    def encrypt(self, iv: bytes, plaintext: bytes) -> bytes:
        """As `BlockMode`."""
        self._encryptor.reset_nonce(self._salt + iv + b"\0\0\0\1")
        return self._encryptor.update(plaintext)

    def open(self, sealed: bytes) -> bytes:
        """As `BlockMode`."""
        self._decryptor.reset_nonce(self._salt + sealed[:8] + b"\0\0\0\1")
        return self._decryptor.update(sealed[8:])


class Null:
    """The NULL encryption algorithm (RFC 2410)."""

    __slots__ = ()

    def seal(self, sequence: int, plaintext: bytes) -> bytes:
        """As `BlockMode`."""
        return plaintext

    def encrypt(self, iv: bytes, plaintext: bytes) -> bytes:
        """As `BlockMode`."""
        return plaintext

    def open(self, sealed: bytes) -> bytes:
        """As `BlockMode`."""
        return sealed


def aes_cbc(key: bytes, salt: bytes, randomness: Randomness) -> BlockMode:
    """RFC 3602."""
    return Cbc(algorithms.AES(key), 16, randomness)


def triple_des_cbc(key: bytes, salt: bytes, randomness: Randomness) -> BlockMode:
    """RFC 2451, key of 24 bytes."""
    return Cbc(TripleDES(key), 8, randomness)


def des_cbc(key: bytes, salt: bytes, randomness: Randomness) -> BlockMode:
    """RFC 2405: Triple DES whose three keys are one."""
    return Cbc(TripleDES(key * 3), 8, randomness)


def rc5_cbc(key: bytes, salt: bytes, randomness: Randomness) -> BlockMode:
    """RFC 2451."""
    return Rc5Cbc(key, randomness)


def aes_ctr(key: bytes, salt: bytes, randomness: Randomness) -> BlockMode:
    """RFC 3686."""
    return Ctr(key, salt)


def null(key: bytes, salt: bytes, randomness: Randomness) -> BlockMode:
    """RFC 2410."""
    return Null()


def hmac_of(name: str) -> Callable[[bytes], Mac]:
    """HMAC (RFC 2104) with the hash ``name``, both pads hashed ahead."""

    def make(key: bytes) -> Mac:
        block = hashlib.new(name, usedforsecurity=False).block_size
        if len(key) > block:
            key = hashlib.new(name, key, usedforsecurity=False).digest()
        padded = key.ljust(block, b"\0")
        inner = hashlib.new(name, bytes(byte ^ 0x36 for byte in padded), usedforsecurity=False)
        outer = hashlib.new(name, bytes(byte ^ 0x5C for byte in padded), usedforsecurity=False)

        def mac(data: bytes) -> bytes:
            one = inner.copy()
            one.update(data)
            two = outer.copy()
            two.update(one.digest())
            return two.digest()

        return mac

    return make


def cmac(key: bytes) -> Mac:
    """AES-CMAC (RFC 4493)."""
    ready = CMAC(algorithms.AES(key))

    def mac(data: bytes) -> bytes:
        one = ready.copy()
        one.update(data)
        return one.finalize()

    return mac


def xcbc(key: bytes) -> Mac:
    """AES-XCBC-MAC (RFC 3566 section 4)."""
    derive = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - single blocks, as the RFC has it
    k1, k2, k3 = (derive.update(bytes([number]) * 16) for number in (1, 2, 3))
    whole, cut = int.from_bytes(k2, "big"), int.from_bytes(k3, "big")
    cipher = Cipher(algorithms.AES(k1), modes.CBC(bytes(16)))

    def mac(data: bytes) -> bytes:
        rest = len(data) % 16
        if rest or not data:
            last, mask = (data[len(data) - rest :] + b"\x80").ljust(16, b"\0"), cut
            start = data[: len(data) - rest]
        else:
            last, mask = data[-16:], whole
            start = data[:-16]
        block = (int.from_bytes(last, "big") ^ mask).to_bytes(16, "big")
        return cipher.encryptor().update(start + block)[-16:]

    return mac
