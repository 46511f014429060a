"""One SA's cryptography over whole ESP packets: `sealer` and `opener` make the two calls of the hot path.

The forms are RFC 4303 section 2 with the AEADs of RFC 4106, 4309, 7634 and 8750, and encryption followed by a MAC for
the rest. GMAC (RFC 4543 section 3) authenticates its IV too, as kernels do, though the RFC's text leaves that out.
Extended sequence numbers: SPI and all 64 bits are the additional data of AEADs (RFC 4106 section 5); the high half is
appended for MACs and not sent (RFC 4303 section 2.2.1).
"""

import struct
from collections.abc import Callable
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.constant_time import bytes_eq

from vitalgate.engine import Randomness
from vitalgate.ipsec.algorithms import Suite, SuiteError

Seal: TypeAlias = Callable[[int, bytes], bytes]
"""(sequence number, payload with trailer) to the whole ESP packet."""
Open: TypeAlias = Callable[[bytes, int], bytes]
"""(whole ESP packet, sequence number) to payload with trailer. Raises `InvalidTag`. Lengths were checked before."""

HEADER: Final = struct.Struct("!II")
EXTENDED: Final = struct.Struct("!IQ")
IV: Final = struct.Struct("!Q")
HIGH: Final = struct.Struct("!I")
_LOW: Final = 0xFFFFFFFF


def split_key(suite: Suite, keymat: bytes) -> tuple[bytes, bytes, bytes]:
    """Encryption key, salt and integrity key of ``keymat`` (RFC 7296 section 2.17). Raises `SuiteError`."""
    if len(keymat) != suite.keymat:
        raise SuiteError(f"{suite.name} takes {suite.keymat} bytes of keying material, not {len(keymat)}")
    salt = suite.encryption.salt if suite.encryption is not None else 0
    return keymat[: suite.key], keymat[suite.key : suite.key + salt], keymat[suite.key + salt :]


def _mac(suite: Suite, key: bytes) -> tuple[Callable[[bytes], bytes], int]:
    assert suite.integrity is not None, "a suite is a combined mode or has integrity"
    return suite.integrity.mac(key), suite.integrity.icv


def sealer(suite: Suite, keymat: bytes, spi: int, *, esn: bool, randomness: Randomness) -> Seal:
    """The call that protects. Raises `SuiteError`."""
    key, salt, mac_key = split_key(suite, keymat)
    encryption = suite.encryption
    if encryption is None:
        raise SuiteError(f"{suite.name} is for AH")
    header_of, aad_of, iv_of, high_of = HEADER.pack, EXTENDED.pack, IV.pack, HIGH.pack
    if encryption.aead is None:
        assert encryption.mode is not None, "a row has one or the other"
        encrypt_mode = encryption.mode(key, salt, randomness).seal
        mac, icv = _mac(suite, mac_key)

        def seal(sequence: int, plaintext: bytes) -> bytes:
            body = header_of(spi, sequence & _LOW) + encrypt_mode(sequence, plaintext)
            return body + mac(body + high_of(sequence >> 32) if esn else body)[:icv]

        return seal
    encrypt = encryption.aead(key).encrypt
    if encryption.authenticates_only:

        def seal_gmac(sequence: int, plaintext: bytes) -> bytes:
            header, iv = header_of(spi, sequence & _LOW), iv_of(sequence)
            sealed = iv + plaintext
            aad = aad_of(spi, sequence) if esn else header
            return header + sealed + encrypt(salt + iv, b"", aad + sealed)

        return seal_gmac
    if encryption.implicit_iv:

        def seal_implicit(sequence: int, plaintext: bytes) -> bytes:
            header = header_of(spi, sequence & _LOW)
            return header + encrypt(salt + iv_of(sequence), plaintext, aad_of(spi, sequence) if esn else header)

        return seal_implicit
    if esn:

        def seal_extended(sequence: int, plaintext: bytes) -> bytes:
            iv = iv_of(sequence)
            return header_of(spi, sequence & _LOW) + iv + encrypt(salt + iv, plaintext, aad_of(spi, sequence))

        return seal_extended

    def seal_aead(sequence: int, plaintext: bytes) -> bytes:
        header, iv = header_of(spi, sequence), iv_of(sequence)
        return header + iv + encrypt(salt + iv, plaintext, header)

    return seal_aead


def opener(suite: Suite, keymat: bytes, spi: int, *, esn: bool, randomness: Randomness) -> Open:
    """The call that verifies and decrypts. Raises `SuiteError`."""
    key, salt, mac_key = split_key(suite, keymat)
    encryption = suite.encryption
    if encryption is None:
        raise SuiteError(f"{suite.name} is for AH")
    aad_of, iv_of, high_of = EXTENDED.pack, IV.pack, HIGH.pack
    if encryption.aead is None:
        assert encryption.mode is not None, "a row has one or the other"
        decrypt_mode = encryption.mode(key, salt, randomness).open
        mac, icv = _mac(suite, mac_key)

        def open_(packet: bytes, sequence: int) -> bytes:
            body = packet[:-icv]
            if not bytes_eq(mac(body + high_of(sequence >> 32) if esn else body)[:icv], packet[-icv:]):
                raise InvalidTag
            return decrypt_mode(body[8:])

        return open_
    aead = encryption.aead(key)
    decrypt = aead.decrypt
    if encryption.authenticates_only:

        def open_gmac(packet: bytes, sequence: int) -> bytes:
            aad = aad_of(spi, sequence) if esn else packet[:8]
            decrypt(salt + packet[8:16], packet[-16:], aad + packet[8:-16])
            return packet[16:-16]

        return open_gmac
    if encryption.implicit_iv:

        def open_implicit(packet: bytes, sequence: int) -> bytes:
            return decrypt(salt + iv_of(sequence), packet[8:], aad_of(spi, sequence) if esn else packet[:8])

        return open_implicit
    if esn:

        def open_extended(packet: bytes, sequence: int) -> bytes:
            return decrypt(salt + packet[8:16], packet[16:], aad_of(spi, sequence))

        return open_extended

    def open_aead(packet: bytes, sequence: int) -> bytes:
        return decrypt(salt + packet[8:16], packet[16:], packet[:8])

    return open_aead
