"""Credentials: what we show to peers, and what we take from them.

Three kinds, as RFC 7252 section 9 names them: pre-shared keys, raw public keys (RFC 7250) that are pinned beforehand,
and certificates that lead to a trust anchor. Nothing here is ever printed: keys are left out of every repr.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from vitalgate.dtls.extensions import CertificateType
from vitalgate.dtls.signatures import PrivateKey


class Mode(enum.Enum):
    """How the peer was authenticated; the value is its counter label."""

    PSK = "psk"
    RPK = "rpk"
    X509 = "x509"
    NONE = "none"
    """It was not: a client without a certificate, where the configuration allows that."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the peer is: its name as our configuration or its certificate gives it, and how we know."""

    name: str
    mode: Mode


NOBODY = Identity("", Mode.NONE)


@dataclass(frozen=True, slots=True)
class Psk:
    """A pre-shared key. ``identity`` goes over the network in clear in DTLS 1.2; ``name`` is what we call the peer."""

    identity: bytes
    key: bytes = field(repr=False)
    name: str = ""

    def __post_init__(self) -> None:
        if not self.identity or len(self.identity) > 128:
            raise ValueError("a PSK identity has 1 to 128 bytes")
        if not self.key or len(self.key) > 64:
            raise ValueError("a PSK has 1 to 64 bytes")

    @property
    def peer(self) -> Identity:
        """The peer that is known by this key."""
        return Identity(self.name or self.identity.decode("utf-8", "backslashreplace"), Mode.PSK)


class PskStore:
    """Pre-shared keys by identity, for a server; ``ours`` is the one that a client uses."""

    __slots__ = ("_keys", "ours")

    def __init__(self, keys: tuple[Psk, ...] = (), *, ours: Psk | None = None) -> None:
        self._keys = {each.identity: each for each in keys}
        self.ours = ours

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, identity: bytes) -> Psk | None:
        """The key of a client, or None."""
        return self._keys.get(identity)

    def add(self, psk: Psk) -> None:
        """Take a key into service; one with the same identity is replaced."""
        self._keys[psk.identity] = psk

    def remove(self, identity: bytes) -> None:
        """Take a key out of service; harmless where there is none."""
        self._keys.pop(identity, None)


@dataclass(frozen=True, slots=True)
class OwnKey:
    """Our private key and how we show its public half: as a raw public key, and as ``chain`` (DER, our own certificate
    first, without the trust anchor) where that is not empty. ``raw`` False: only as the chain."""

    key: PrivateKey = field(repr=False)
    chain: tuple[bytes, ...] = ()
    raw: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
            raise ValueError("the key of a DTLS endpoint is on an elliptic curve or Ed25519")
        if self.chain:
            public = x509.load_der_x509_certificate(self.chain[0]).public_key()
            if public != self.key.public_key():
                raise ValueError("the certificate belongs to another key")

    @property
    def spki(self) -> bytes:
        """SubjectPublicKeyInfo, DER."""
        return spki(self.key)

    @property
    def types(self) -> tuple[CertificateType, ...]:
        """In what form we can show it, the preferred first: a raw public key is the shorter."""
        found = (CertificateType.RAW_PUBLIC_KEY,) if self.raw else ()
        return (*found, CertificateType.X509) if self.chain else found

    def certificates(self, kind: CertificateType) -> tuple[bytes, ...]:
        """What a Certificate message of ``kind`` holds."""
        return (self.spki,) if kind is CertificateType.RAW_PUBLIC_KEY else self.chain


def spki(key: PrivateKey) -> bytes:
    """SubjectPublicKeyInfo of a private key, DER."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


class PinnedKeys:
    """Raw public keys (SubjectPublicKeyInfo, DER) that we trust, each with the name of the peer that holds it."""

    __slots__ = ("_names",)

    def __init__(self, names: Mapping[bytes, str] | None = None) -> None:
        self._names = dict(names or {})

    def name(self, spki: bytes) -> str | None:
        """The name of the peer with this key, or None for a stranger. Public keys are no secrets: no care is taken
        about the time that the look-up takes."""
        return self._names.get(spki)

    def add(self, spki: bytes, name: str) -> None:
        """Trust a key."""
        self._names[spki] = name

    def remove(self, spki: bytes) -> None:
        """Trust it no longer."""
        self._names.pop(spki, None)

    def __contains__(self, name: object) -> bool:
        """Whether a peer of this name is trusted still."""
        return name in self._names.values()


@dataclass(frozen=True, slots=True)
class Credentials:
    """All that an endpoint has. Any may be missing; what is there decides which cipher suites are offered or taken.

    ``anchors``: certificates of authorities (DER) that peers' chains may end in. ``require_client``: whether a server
    insists on the client's key under RPK and X.509; without it clients may stay unknown.
    """

    psks: PskStore | None = None
    own: OwnKey | None = None
    pins: PinnedKeys | None = None
    anchors: tuple[bytes, ...] = ()
    require_client: bool = True

    @property
    def peer_types(self) -> tuple[CertificateType, ...]:
        """The forms in which we can judge a peer's key, the preferred first."""
        found = (CertificateType.RAW_PUBLIC_KEY,) if self.pins is not None else ()
        return (*found, CertificateType.X509) if self.anchors else found
