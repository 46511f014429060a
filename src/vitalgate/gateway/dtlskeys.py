"""What DTLS needs of an enrolment: raw public keys, a pre-shared key, and how both ends speak.

Nothing is agreed anew. Raw public keys (RFC 7250) are the identity keys that gateway and cloud pinned at enrolment. The
pre-shared key is derived from the session keys of the newest enrolment or rekey under a label of its own: it is fresh
whenever they are, and ends with them.
"""

from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from vitalgate.dtls.credentials import Credentials, Mode, OwnKey, PinnedKeys, Psk, PskStore
from vitalgate.dtls.judging import Target
from vitalgate.dtls.parameters import Parameters
from vitalgate.gateway.identity import public_key
from vitalgate.gateway.vault import CLOUD_NAME, GatewayVault, VaultError
from vitalgate.net.stacks import STACKS, Dtls
from vitalgate.oscore.context import Parameters as SessionKeys

PSK_BYTES: Final = 32
_LABEL: Final = b"vitalgate dtls psk "
CID_BYTES: Final = 4
"""Connection IDs that the cloud has gateways use; a gateway has one peer and wants none."""
CLOUD: Final = Target(pinned=CLOUD_NAME)


def raw_public_key(public: bytes) -> bytes:
    """SubjectPublicKeyInfo (DER) of an identity key's public half (33 bytes). Raises `IdentityError`."""
    return public_key(public).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def psk_identity(kid: bytes) -> bytes:
    """What a gateway names its pre-shared key by: text, as RFC 4279 section 5.1 has it."""
    return kid.hex().encode()


def session_psk(keys: SessionKeys, kid: bytes, name: str) -> Psk:
    """The pre-shared key of a session, the same at both ends. ``kid``: the gateway's Sender ID, by which the cloud
    finds the key; it changes with every session. ``name``: what the peer is called here."""
    derived = HKDF(hashes.SHA256(), PSK_BYTES, keys.master_salt, _LABEL + kid).derive(keys.master_secret)
    return Psk(psk_identity(kid), derived, name)


def dtls_of(stack: str) -> Dtls:
    """The row's DTLS. ValueError for a stack without."""
    dtls = STACKS[stack].dtls
    if dtls is None:
        raise ValueError(f"{stack} is not DTLS")
    return dtls


def gateway_parameters(stack: str) -> Parameters:
    """How a gateway shakes hands: one version alone, connection IDs towards the cloud. Its flights are repeated after
    1 s as usual (RFC 6347 section 4.2.4.1), not after RFC 7925's 9 s, and at least every 8 s, so that a cloud that was
    away is found soon."""
    return Parameters(
        versions=(dtls_of(stack).version,), cid=0, retransmission=1.0, retransmission_most=8.0, retransmissions=5
    )


def cloud_parameters(stacks: tuple[str, ...]) -> Parameters:
    """How the cloud shakes hands under any of these stacks. An association that nobody speaks on for an hour goes; a
    gateway that had more to say shakes hands anew."""
    wanted = {dtls_of(stack).version for stack in stacks}
    versions = tuple(version for version in Parameters().versions if version in wanted)
    return Parameters(versions=versions, cid=CID_BYTES, retransmission=1.0, idle=3600.0)


def gateway_credentials(vault: GatewayVault, mode: Mode) -> Credentials:
    """What the gateway shows and takes under ``mode``. Raises `VaultError` where it has no enrolment or no session."""
    enrolled, session = vault.enrolment(), vault.session()
    if enrolled is None or session is None:
        raise VaultError("no enrolment or no session keys: there is nothing to show to the cloud")
    if mode is Mode.PSK:
        return Credentials(psks=PskStore(ours=session_psk(session.keys, session.keys.sender_id, CLOUD_NAME)))
    if mode is Mode.RPK:
        pins = PinnedKeys({raw_public_key(enrolled.cloud): CLOUD_NAME})
        return Credentials(own=OwnKey(vault.identity().private), pins=pins)
    raise ValueError(f"a gateway has no credentials for {mode.value}")
