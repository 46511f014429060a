"""Everything that keeps a secret, under one name: master key, key store, sealers, boxes."""

from vitalgate.gateway.keystore import KeyInfo, Keystore, Secret
from vitalgate.gateway.master import CREDENTIAL, MasterKey
from vitalgate.gateway.sealing import (
    BOX_OVERHEAD,
    KEY_BYTES,
    TAG_BYTES,
    DataKey,
    EpochSealer,
    FixedKeys,
    KeySource,
    Sealer,
    SecretsError,
    derive,
    open_box,
    seal_box,
)

__all__ = [
    "BOX_OVERHEAD",
    "CREDENTIAL",
    "KEY_BYTES",
    "TAG_BYTES",
    "DataKey",
    "EpochSealer",
    "FixedKeys",
    "KeyInfo",
    "KeySource",
    "Keystore",
    "MasterKey",
    "Sealer",
    "Secret",
    "SecretsError",
    "derive",
    "open_box",
    "seal_box",
]
