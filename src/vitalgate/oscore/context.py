"""Security contexts: input parameters, what is derived from them, and what changes while they are used (section 3)."""

import hmac
from dataclasses import dataclass, field
from typing import Final

import cbor2
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vitalgate.oscore.algorithms import AEADS, DEFAULT_AEAD, DEFAULT_HKDF, HKDFS, Aead, AeadKey
from vitalgate.oscore.option import LONGEST_OPTION, LONGEST_PIV
from vitalgate.oscore.replay import DEFAULT_WINDOW, ReplayWindow
from vitalgate.oscore.sequence import DEFAULT_BLOCK, SenderSequence, SequenceStore


class ContextError(ValueError):
    """Input parameters that make no security context; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """The input parameters of section 3.2. ``aead`` and ``hkdf`` are COSE values, rows of `AEADS` and `HKDFS`;
    ``id_context`` None is no ID Context, which is not the same as an empty one. Raises `ContextError`."""

    master_secret: bytes = field(repr=False)
    sender_id: bytes
    recipient_id: bytes
    master_salt: bytes = field(default=b"", repr=False)
    id_context: bytes | None = None
    aead: int = DEFAULT_AEAD
    hkdf: int = DEFAULT_HKDF

    def __post_init__(self) -> None:
        aead = AEADS.get(self.aead)
        if aead is None:
            raise ContextError(f"no AEAD algorithm has the COSE value {self.aead}")
        if self.hkdf not in HKDFS:
            raise ContextError(f"no HKDF has the COSE value {self.hkdf}")
        if not self.master_secret:
            raise ContextError("the Master Secret is empty")
        if self.sender_id == self.recipient_id:
            raise ContextError("Sender ID and Recipient ID are equal")
        if max(len(self.sender_id), len(self.recipient_id)) > aead.longest_id:
            raise ContextError(f"an ID is longer than the {aead.longest_id} bytes that {aead.name} leaves")
        # The option's 255 bytes must hold flags, Partial IV, length, ID Context and kid.
        if self.id_context is not None and len(self.id_context) > LONGEST_OPTION - 2 - LONGEST_PIV - aead.longest_id:
            raise ContextError("the ID Context does not fit the OSCORE option")

    def reversed(self) -> "Parameters":
        """The same context as the other side holds it."""
        return Parameters(
            self.master_secret,
            self.recipient_id,
            self.sender_id,
            self.master_salt,
            self.id_context,
            self.aead,
            self.hkdf,
        )


@dataclass(frozen=True, slots=True)
class Keys:
    """What section 3.2.1 derives."""

    sender_key: bytes = field(repr=False)
    recipient_key: bytes = field(repr=False)
    common_iv: bytes = field(repr=False)


def info(parameters: Parameters, identifier: bytes, kind: str, length: int) -> bytes:
    """The HKDF's info: CBOR of [id, id_context, alg_aead, type, L] (section 3.2.1)."""
    return cbor2.dumps([identifier, parameters.id_context, parameters.aead, kind, length])


def derive(parameters: Parameters) -> Keys:
    """Sender Key, Recipient Key and Common IV (section 3.2.1)."""
    aead, kdf = AEADS[parameters.aead], HKDFS[parameters.hkdf]

    def one(identifier: bytes, kind: str, length: int) -> bytes:
        about = info(parameters, identifier, kind, length)
        return HKDF(kdf.hash(), length, parameters.master_salt, about).derive(parameters.master_secret)

    return Keys(
        one(parameters.sender_id, "Key", aead.key),
        one(parameters.recipient_id, "Key", aead.key),
        one(b"", "IV", aead.nonce),
    )


class Party:
    """One direction of a context: an ID, its key made ready once, and what is the same in every nonce and AAD."""

    __slots__ = ("_aad_heads", "_nonce_base", "_nonce_bytes", "key", "kid")

    def __init__(self, aead: Aead, kid: bytes, key: bytes, common_iv: bytes) -> None:
        self.kid: Final = kid
        self.key: Final[AeadKey] = aead.make(key)
        # Section 5.2: size of ID_PIV, padded ID_PIV, padded Partial IV, all XORed with the Common IV.
        self._nonce_bytes = aead.nonce
        fixed = len(kid).to_bytes(1, "big") + kid.rjust(aead.nonce - 6, b"\0") + bytes(LONGEST_PIV)
        self._nonce_base = int.from_bytes(common_iv, "big") ^ int.from_bytes(fixed, "big")
        # Section 5.4: everything of the AAD before the Partial IV, by the Partial IV's length.
        self._aad_heads = tuple(_aad_head(aead, kid, length) for length in range(LONGEST_PIV + 1))

    def nonce(self, number: int) -> bytes:
        """The AEAD nonce of a message whose Partial IV ``number`` this party chose."""
        return (self._nonce_base ^ number).to_bytes(self._nonce_bytes, "big")

    def aad(self, piv: bytes) -> bytes:
        """The AAD of a request that this party made with Partial IV ``piv``, and of its responses."""
        return self._aad_heads[len(piv)] + piv + b"\x40"


def _aad_head(aead: Aead, kid: bytes, length: int) -> bytes:
    # No Class I options are defined, so the array ends with an empty string: the 0x40 that `Party.aad` appends.
    array = cbor2.dumps([1, [aead.value], kid, bytes(length), b""])
    return cbor2.dumps(["Encrypt0", b"", array])[: -(length + 1)]


_RECORD_LABEL: Final = b"vitalgate oscore sequence record"


class SecurityContext:
    """A context in use. ``name`` is the peer's identity as applications see it.

    ``fresh=True`` is for keys that were made just now and never used: numbers from 0, an empty replay window; refused
    when ``store`` knows the key. ``fresh=False`` is for keys that an earlier run may have used: numbers past all it can
    have used, and ``window`` None until the peer has shown a request to be fresh (Appendix B.1.2); refused when
    ``store`` has no sound record of the key, which must then be replaced. ``send_id_context`` False leaves the ID
    Context out of requests. Both refusals are `SequenceError`. Shows no key material.
    """

    __slots__ = (
        "aead",
        "challenge_second",
        "challenges",
        "echo",
        "id_context",
        "name",
        "recipient",
        "record",
        "send_id_context",
        "sender",
        "sequence",
        "window",
        "window_size",
    )

    def __init__(
        self,
        name: str,
        parameters: Parameters,
        store: SequenceStore,
        *,
        fresh: bool,
        window: int = DEFAULT_WINDOW,
        block: int = DEFAULT_BLOCK,
        send_id_context: bool = True,
    ) -> None:
        keys, aead = derive(parameters), AEADS[parameters.aead]
        self.name: Final = name
        self.aead: Final = aead
        self.id_context: Final = parameters.id_context
        self.send_id_context: Final = send_id_context and parameters.id_context is not None
        self.sender: Final = Party(aead, parameters.sender_id, keys.sender_key, keys.common_iv)
        self.recipient: Final = Party(aead, parameters.recipient_id, keys.recipient_key, keys.common_iv)
        self.record: Final = record_name(keys)
        self.window_size: Final = window
        first = ReplayWindow(window)  # also refuses a size that is out of range
        self.window: ReplayWindow | None = first if fresh else None
        self.echo = b""  # the challenge given while there is no window, and how many went out in which second
        self.challenge_second = 0
        self.challenges = 0
        if fresh:
            store.create(self.record)
        self.sequence: Final = SenderSequence(store, self.record, block=block)

    def __repr__(self) -> str:
        return f"SecurityContext({self.name!r}, {self.aead.name}, sends as {self.sender.kid.hex() or 'empty'!r})"

    def __reduce__(self) -> str:
        raise TypeError("a security context holds keys and a place in a sequence: it is neither copied nor pickled")


def record_name(keys: Keys) -> str:
    """The name of a sender key's sequence record, 32 hexadecimal digits; tells nothing of the key."""
    return hmac.digest(keys.sender_key, _RECORD_LABEL, "sha256")[:16].hex()
