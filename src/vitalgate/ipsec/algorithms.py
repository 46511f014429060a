"""The algorithms of ESP and AH: one row each.

Identifiers are IKEv2's transform IDs; sources stand beside the rows. What RFC 8221 has gone, the ciphers with blocks of
64 bits, and NULL are ``legacy``: refused unless the configuration allows them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vitalgate.engine import Randomness
from vitalgate.ipsec import primitives
from vitalgate.ipsec.primitives import Aead, BlockMode, Mac


@dataclass(frozen=True, slots=True)
class Encryption:
    """An encryption or combined-mode algorithm of ESP. Sizes in bytes.

    ``keys``: the key lengths it takes (salt not counted, the first is the default); ``iv``: what travels in each
    packet; ``block``: what the plaintext is padded to; ``icv``: of combined modes, 0 for others. Of ``aead``, ``mode``
    and neither (GMAC: ``aead`` with ``authenticates_only``) one is how a key is made ready.
    """

    name: str
    identifier: int
    keys: tuple[int, ...]
    salt: int = 0
    iv: int = 0
    block: int = 1
    icv: int = 0
    aead: Callable[[bytes], Aead] | None = None
    mode: Callable[[bytes, bytes, Randomness], BlockMode] | None = None
    authenticates_only: bool = False
    legacy: bool = False

    @property
    def combined(self) -> bool:
        """Whether it brings its own integrity."""
        return self.aead is not None

    @property
    def implicit_iv(self) -> bool:
        """Whether the IV is the sequence number and does not travel (RFC 8750)."""
        return self.combined and self.iv == 0

    @property
    def counts(self) -> bool:
        """Whether one IV used twice under a key breaks it: such keys need counters that never go back."""
        return self.combined or self.name == "aes-ctr"

    @property
    def align(self) -> int:
        """What payload, padding and two bytes of trailer are a multiple of (RFC 4303 section 2.4)."""
        return max(self.block, 4)


@dataclass(frozen=True, slots=True)
class Integrity:
    """An integrity algorithm of ESP and AH. Sizes in bytes: ``icv`` is what the MAC is cut to."""

    name: str
    identifier: int
    key: int
    icv: int
    mac: Callable[[bytes], Mac]
    legacy: bool = False


AES_KEYS: Final = (16, 24, 32)

ENCRYPTIONS: Final[dict[str, Encryption]] = {
    row.name: row
    for row in (
        *(  # RFC 4106
            Encryption(f"aes-gcm-{tag}", number, AES_KEYS, 4, 8, 1, tag, primitives.gcm(tag))
            for tag, number in ((8, 18), (12, 19), (16, 20))
        ),
        *(  # RFC 4309
            Encryption(f"aes-ccm-{tag}", number, AES_KEYS, 3, 8, 1, tag, primitives.ccm(tag))
            for tag, number in ((8, 14), (12, 15), (16, 16))
        ),
        Encryption("chacha20-poly1305", 28, (32,), 4, 8, 1, 16, primitives.chacha),  # RFC 7634
        Encryption("aes-ccm-8-iiv", 29, AES_KEYS, 3, 0, 1, 8, primitives.ccm(8)),  # RFC 8750
        Encryption("aes-gcm-16-iiv", 30, AES_KEYS, 4, 0, 1, 16, primitives.gcm(16)),
        Encryption("chacha20-poly1305-iiv", 31, (32,), 4, 0, 1, 16, primitives.chacha),
        Encryption(
            "aes-gmac", 21, AES_KEYS, 4, 8, 1, 16, primitives.gcm(16), authenticates_only=True
        ),  # RFC 4543: no encryption
        Encryption("aes-cbc", 12, AES_KEYS, 0, 16, 16, mode=primitives.aes_cbc),  # RFC 3602
        Encryption("aes-ctr", 13, AES_KEYS, 4, 8, 1, mode=primitives.aes_ctr),  # RFC 3686
        Encryption("null", 11, (0,), mode=primitives.null, legacy=True),  # RFC 2410
        Encryption("des", 2, (8,), 0, 8, 8, mode=primitives.des_cbc, legacy=True),  # RFC 2405
        Encryption("3des", 3, (24,), 0, 8, 8, mode=primitives.triple_des_cbc, legacy=True),  # RFC 2451
        Encryption("rc5", 4, (16,), 0, 8, 8, mode=primitives.rc5_cbc, legacy=True),  # RFC 2451, RFC 2040
    )
}

INTEGRITIES: Final[dict[str, Integrity]] = {
    row.name: row
    for row in (
        Integrity("hmac-sha2-256-128", 12, 32, 16, primitives.hmac_of("sha256")),  # RFC 4868
        Integrity("hmac-sha2-384-192", 13, 48, 24, primitives.hmac_of("sha384")),
        Integrity("hmac-sha2-512-256", 14, 64, 32, primitives.hmac_of("sha512")),
        Integrity("aes-xcbc-96", 5, 16, 12, primitives.xcbc),  # RFC 3566
        Integrity("aes-cmac-96", 8, 16, 12, primitives.cmac),  # RFC 4494
        Integrity("hmac-sha1-96", 2, 20, 12, primitives.hmac_of("sha1")),  # RFC 2404
        Integrity("hmac-md5-96", 1, 16, 12, primitives.hmac_of("md5"), legacy=True),  # RFC 2403
    )
}


class SuiteError(ValueError):
    """Algorithms or keys that cannot or may not be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Suite:
    """What one SA does: encryption with integrity, a combined mode, or (AH) integrity or GMAC alone."""

    encryption: Encryption | None
    integrity: Integrity | None
    key: int = 0
    """Length of the encryption key in bytes, salt not counted."""

    def __post_init__(self) -> None:
        encryption, integrity = self.encryption, self.integrity
        if encryption is None:
            if integrity is None:
                raise SuiteError("a suite without any algorithm")
            return
        if self.key not in encryption.keys:
            raise SuiteError(f"{encryption.name} takes keys of {encryption.keys} bytes, not {self.key}")
        if encryption.combined == (integrity is not None):
            # RFC 8221 section 4: no encryption without integrity, and combined modes bring theirs.
            raise SuiteError(
                f"{encryption.name} " + ("brings its own integrity" if encryption.combined else "needs integrity")
            )

    @property
    def name(self) -> str:
        """As `suite` takes it."""
        parts = []
        if self.encryption is not None:
            sized = len(self.encryption.keys) > 1
            parts.append(self.encryption.name + (f"/{self.key * 8}" if sized else ""))
        if self.integrity is not None:
            parts.append(self.integrity.name)
        return "+".join(parts)

    @property
    def keymat(self) -> int:
        """Bytes of keying material: encryption key, its salt, integrity key, in this order (RFC 7296 section 2.17)."""
        salt = self.encryption.salt if self.encryption is not None else 0
        return self.key + salt + (self.integrity.key if self.integrity is not None else 0)

    @property
    def icv(self) -> int:
        """Bytes of ICV."""
        if self.integrity is not None:
            return self.integrity.icv
        assert self.encryption is not None
        return self.encryption.icv

    @property
    def legacy(self) -> bool:
        """Whether the configuration must allow it."""
        return any(row is not None and row.legacy for row in (self.encryption, self.integrity))

    @property
    def for_ah(self) -> bool:
        """Whether AH can use it (GMAC: RFC 4543 section 4)."""
        return self.encryption is None or self.encryption.authenticates_only


def suite(name: str) -> Suite:
    """The suite called ``name``: ``ENCRYPTION[/BITS][+INTEGRITY]`` or (AH) ``INTEGRITY``, names as in the tables.
    Raises `SuiteError`."""
    first, _, second = name.partition("+")
    if first in INTEGRITIES and not second:
        return Suite(None, INTEGRITIES[first])
    base, _, bits = first.partition("/")
    encryption = ENCRYPTIONS.get(base)
    if encryption is None or (second and second not in INTEGRITIES):
        raise SuiteError(f"no algorithms are called {name!r}")
    if bits and not (bits.isascii() and bits.isdigit() and len(bits) < 5 and int(bits) % 8 == 0):
        raise SuiteError(f"{bits!r} is no key length in bits")
    key = int(bits) // 8 if bits else encryption.keys[0]
    return Suite(encryption, INTEGRITIES[second] if second else None, key)


def allowed(chosen: Suite, *, allow_legacy: bool) -> Suite:
    """``chosen`` if it may be used. Raises `SuiteError`."""
    if chosen.legacy and not allow_legacy:
        raise SuiteError(f"{chosen.name} is legacy or leaves the data readable: refused unless allow_legacy = true")
    return chosen


DEFAULT_MANUAL: Final = "aes-cbc/128+hmac-sha2-256-128"
"""What manual keys use: nothing breaks at once where a counter goes back."""


def all_suites() -> list[Suite]:
    """Every suite of ESP: combined modes at each key length; others at each key length with SHA2-256, and AES-CBC with
    each integrity."""
    made = []
    for encryption in ENCRYPTIONS.values():
        for key in encryption.keys:
            if encryption.combined:
                made.append(Suite(encryption, None, key))
                continue
            each = (
                INTEGRITIES.values()
                if encryption.name == "aes-cbc" and key == 16
                else [INTEGRITIES["hmac-sha2-256-128"]]
            )
            made += [Suite(encryption, integrity, key) for integrity in each]
    return made


def ah_suites() -> list[Suite]:
    """Every suite of AH."""
    gmac = ENCRYPTIONS["aes-gmac"]
    return [Suite(None, row) for row in INTEGRITIES.values()] + [Suite(gmac, None, key) for key in gmac.keys]
