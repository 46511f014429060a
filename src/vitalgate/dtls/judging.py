"""Judging what a peer shows: a pinned raw public key, or a certificate that leads to a trust anchor and names it.

Path validation is `cryptography.x509.verification`'s (RFC 5280), with what small authorities of devices leave out
(key usage, extended key usage, subject key identifiers) forgiven; basic constraints are not.
"""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import verification
from cryptography.x509.verification import Criticality, ExtensionPolicy

from vitalgate.dtls.alerts import Alert, HandshakeError
from vitalgate.dtls.credentials import Credentials, Identity, Mode
from vitalgate.dtls.extensions import CertificateType
from vitalgate.dtls.signatures import PublicKey, load_public_key

LONGEST_CHAIN = 8


@dataclass(frozen=True, slots=True)
class Target:
    """Whom a client wants to reach. ``server_name``: the DNS name or address that a certificate has to be for, sent in
    server_name if a DNS name; ``pinned``: the name that a raw public key has to be pinned under, or '' for any."""

    server_name: str = ""
    pinned: str = ""

    @property
    def sni(self) -> str:
        """What goes into server_name: DNS names alone (RFC 6066 section 3)."""
        return (
            "" if not self.server_name or isinstance(_subject(self.server_name), x509.IPAddress) else self.server_name
        )


def judge(
    credentials: Credentials,
    kind: CertificateType,
    certificates: tuple[bytes, ...],
    target: Target | None,
    wall: float,
) -> tuple[PublicKey, Identity]:
    """The public key that a peer has to prove, and who holds it. ``target``: whom a client wants to reach, None on a
    server. Raises `HandshakeError`."""
    if kind is CertificateType.RAW_PUBLIC_KEY:
        return _judge_raw(credentials, certificates[0], target)
    if target is not None and not target.server_name:
        raise HandshakeError(Alert.INTERNAL_ERROR, "no name to check a certificate against")
    return _judge_chain(credentials, certificates, None if target is None else target.server_name, wall)


def _judge_raw(credentials: Credentials, spki: bytes, target: Target | None) -> tuple[PublicKey, Identity]:
    name = None if credentials.pins is None else credentials.pins.name(spki)
    if name is None:
        raise HandshakeError(Alert.CERTIFICATE_UNKNOWN, "a raw public key that is not pinned")
    if target is not None and target.pinned and name != target.pinned:
        raise HandshakeError(Alert.CERTIFICATE_UNKNOWN, "the raw public key of another peer")
    return load_public_key(spki), Identity(name, Mode.RPK)


def _policies(*, names_needed: bool) -> tuple[ExtensionPolicy, ExtensionPolicy]:
    authority = ExtensionPolicy.permit_all().require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
    leaf = ExtensionPolicy.permit_all()
    if names_needed:
        leaf = leaf.require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
    return authority, leaf


def _judge_chain(
    credentials: Credentials, certificates: tuple[bytes, ...], server_name: str | None, wall: float
) -> tuple[PublicKey, Identity]:
    if len(certificates) > LONGEST_CHAIN:
        raise HandshakeError(Alert.BAD_CERTIFICATE, "a chain longer than we follow")
    try:
        chain = [x509.load_der_x509_certificate(each) for each in certificates]
        spki = chain[0].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise HandshakeError(Alert.BAD_CERTIFICATE, "a certificate that cannot be read") from error
    now = datetime.fromtimestamp(wall, UTC)
    leaf = chain[0]
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        raise HandshakeError(Alert.CERTIFICATE_EXPIRED, "a certificate outside its validity")
    store = verification.Store([x509.load_der_x509_certificate(each) for each in credentials.anchors])
    authority_policy, leaf_policy = _policies(names_needed=server_name is not None)
    builder = (
        verification.PolicyBuilder()
        .store(store)
        .time(now)
        .extension_policies(ca_policy=authority_policy, ee_policy=leaf_policy)
    )
    try:
        if server_name is None:
            builder.build_client_verifier().verify(leaf, chain[1:])
            return load_public_key(spki), Identity(_name_of(leaf), Mode.X509)
        builder.build_server_verifier(_subject(server_name)).verify(leaf, chain[1:])
    except verification.VerificationError as error:
        if server_name is not None and "subjectAltName" in str(error):
            raise HandshakeError(Alert.BAD_CERTIFICATE, "a certificate for another name") from error
        raise HandshakeError(Alert.UNKNOWN_CA, "a certificate that leads to no anchor of ours") from error
    return load_public_key(spki), Identity(server_name, Mode.X509)


def _subject(name: str) -> verification.Subject:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name_of(leaf: x509.Certificate) -> str:
    """The first name in subjectAltName, or else the common name: RFC 7925 section 4.4.2 has EUI-64s there."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        pass
    else:
        for kind in (x509.DNSName, x509.UniformResourceIdentifier, x509.RFC822Name):
            found = names.get_values_for_type(kind)
            if found:
                return found[0]
    common = leaf.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    if not common:
        raise HandshakeError(Alert.BAD_CERTIFICATE, "a certificate that names nobody")
    return str(common[0].value)
