"""The cloud's identity key, and how one follows another without every gateway being enrolled anew.

When the key is rotated, the former key signs its successor once and is then forgotten. A gateway that pinned the former
key gets that signature with its next rekey, checks it, and pins the new key. One step is kept: a gateway that was away
for two rotations, and every gateway after a *compromise* of the former key, is enrolled again with a code.
"""

import os
from dataclasses import dataclass, field
from typing import Final

from vitalgate.engine import Randomness
from vitalgate.gateway.handshake import succession_signed
from vitalgate.gateway.identity import PRIVATE_BYTES, PUBLIC_BYTES, SIGNATURE_BYTES, IdentityKey, thumbprint
from vitalgate.gateway.vault import Secrets, VaultError

NAME: Final = "cloud.identity"


@dataclass(frozen=True, slots=True)
class CloudIdentity:
    """The current key; ``former`` is the public key before it (33 bytes) and ``succession`` that key's signature."""

    key: IdentityKey
    former: bytes = b""
    succession: bytes = field(default=b"", repr=False)

    def succession_for(self, pinned: bytes) -> bytes | None:
        """What a gateway that pinned the key of thumbprint ``pinned`` needs: b'' for the current key, the signature for
        the former one, None when neither is the one it pinned."""
        if pinned == self.key.thumbprint:
            return b""
        return self.succession if self.former and pinned == thumbprint(self.former) else None


def load_cloud_identity(secrets: Secrets, randomness: Randomness = os.urandom) -> CloudIdentity:
    """The cloud's identity from its key store, made at the first call. Raises `VaultError` when it is damaged."""
    found = secrets.get(NAME)
    if found is None:
        key = IdentityKey.create(randomness)
        secrets.put(NAME, key.to_bytes())
        return CloudIdentity(key)
    value = found.value
    if len(value) not in (PRIVATE_BYTES, PRIVATE_BYTES + PUBLIC_BYTES + SIGNATURE_BYTES):
        raise VaultError("the cloud's identity key is damaged: restore the key store")
    key, rest = IdentityKey.from_bytes(value[:PRIVATE_BYTES]), value[PRIVATE_BYTES:]
    return CloudIdentity(key, rest[:PUBLIC_BYTES], rest[PUBLIC_BYTES:])


def rotate_cloud_identity(secrets: Secrets, randomness: Randomness = os.urandom) -> CloudIdentity:
    """Put a new key in place of the current one, in one write. A running cloud takes it up when it starts again."""
    current = load_cloud_identity(secrets, randomness)
    key = IdentityKey.create(randomness)
    succession = current.key.sign(succession_signed(current.key.public, key.public))
    secrets.put(NAME, key.to_bytes() + current.key.public + succession)
    return CloudIdentity(key, current.key.public, succession)
