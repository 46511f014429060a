"""Passwords: what is accepted, and how they are kept (scrypt, RFC 7914)."""

import base64
import binascii
import hashlib
import hmac
import os
import threading
import unicodedata
from dataclasses import dataclass
from typing import Final

from vitalgate.engine import Randomness

MIN_PASSWORD: Final = 12
MAX_PASSWORD: Final = 256
_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32
_BUSY: Final = threading.BoundedSemaphore(2)  # each takes tens of megabytes: a crowd at the door waits its turn


class PasswordError(ValueError):
    """A password that is not accepted; the text says why and never holds the password."""


@dataclass(frozen=True, slots=True)
class Cost:
    """scrypt's cost: N = 2 ** ``log_n``, block size ``r``, parallelism ``p``; memory is 128 * N * r bytes."""

    log_n: int = 15
    r: int = 8
    p: int = 3


def check(password: str, name: str) -> None:
    """Raises `PasswordError` unless ``password`` may be the password of the user called ``name``."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise PasswordError(f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    if len(set(password)) < 5:
        raise PasswordError("the password repeats the same few characters")
    if name and password.casefold() == name.casefold():
        raise PasswordError("the password is the user's name")


def _scrypt(password: str, salt: bytes, cost: Cost) -> bytes:
    text = unicodedata.normalize("NFKC", password).encode()
    n = 1 << cost.log_n
    room = 128 * cost.r * (n + cost.p + 2)
    with _BUSY:
        return hashlib.scrypt(text, salt=salt, n=n, r=cost.r, p=cost.p, maxmem=room + 65536, dklen=_HASH_BYTES)


def hash_password(password: str, cost: Cost, randomness: Randomness = os.urandom) -> str:
    """The text that is kept: ``scrypt$log_n$r$p$salt$hash`` (base 64)."""
    salt = randomness(_SALT_BYTES)
    parts = (salt, _scrypt(password, salt, cost))
    return "$".join(
        ["scrypt", str(cost.log_n), str(cost.r), str(cost.p), *(base64.b64encode(part).decode() for part in parts)]
    )


def verify_password(password: str, kept: str) -> bool:
    """Whether ``password`` is the one ``kept`` was made from; False also for a text that `hash_password` never made."""
    if len(password) > MAX_PASSWORD:
        return False
    try:
        kind, log_n, r, p, salt, wanted = kept.split("$")
        cost = Cost(int(log_n), int(r), int(p))
        if kind != "scrypt" or not (1 <= cost.log_n <= 20 and 1 <= cost.r <= 32 and 1 <= cost.p <= 16):
            return False
        return hmac.compare_digest(_scrypt(password, base64.b64decode(salt), cost), base64.b64decode(wanted))
    except (ValueError, binascii.Error):
        return False


def cost_of(kept: str) -> Cost:
    """The cost of a text that `hash_password` made."""
    _, log_n, r, p, _, _ = kept.split("$")
    return Cost(int(log_n), int(r), int(p))
