"""Device URNs: ``urn:dev:…`` (RFC 9039), the names under which devices are enrolled, sent and stored.

====== ============================================ ===================================
Form   Body                                         Meaning
====== ============================================ ===================================
mac    16 hexadecimal digits                        EUI-64, or EUI-48 made into one
ow     16 hexadecimal digits                        1-Wire identifier
org    PEN-identifier[:identifier…]                 an organisation's own name
os     PEN-serial[:identifier…]                     an organisation's serial number
ops    PEN-product-serial[:identifier…]             its product and serial number
other  identifier[:identifier…]                     ``example`` and forms yet to come
====== ============================================ ===================================

``PEN`` is an IANA private enterprise number. Components (``_temperature``) may follow every form.
"""

import functools
import re
from dataclasses import dataclass
from typing import Final

MAX_LENGTH: Final = 128
"""Longest name accepted, in characters: ours, the RFC names none."""

_IDENTIFIER: Final = r"[A-Za-z0-9.-]+"
_URN: Final = re.compile(
    rf"urn:dev:([a-z][a-z0-9]*):({_IDENTIFIER}(?::{_IDENTIFIER})*)((?:_{_IDENTIFIER})*)", re.IGNORECASE | re.ASCII
)
_BODIES: Final = {
    "mac": re.compile(r"[0-9a-f]{16}"),
    "ow": re.compile(r"[0-9a-f]{16}"),
    "org": re.compile(rf"[1-9][0-9]*-{_IDENTIFIER}(?::{_IDENTIFIER})*"),
    "os": re.compile(rf"[1-9][0-9]*-{_IDENTIFIER}(?::{_IDENTIFIER})*"),
    "ops": re.compile(rf"[1-9][0-9]*-[A-Za-z0-9.]+-{_IDENTIFIER}(?::{_IDENTIFIER})*"),
}
_HEX: Final = ("mac", "ow")


class UrnError(ValueError):
    """Text that is no device URN."""


@dataclass(frozen=True, slots=True)
class DeviceUrn:
    """A device URN in parts: ``form`` ('mac', 'ow', 'org', 'os', 'ops' or another word), ``body``, ``components``.

    ``str()`` gives the URN in its one normal spelling (RFC 9039 section 3.2.1): 'urn:dev:', form and hexadecimal digits
    in lower case, everything else as it was.
    """

    form: str
    body: str
    components: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"urn:dev:{self.form}:{self.body}" + "".join(f"_{part}" for part in self.components)

    @property
    def eui64(self) -> bytes | None:
        """The 8 bytes of a 'mac' name, or None."""
        return bytes.fromhex(self.body) if self.form == "mac" else None

    @property
    def serial(self) -> str:
        """What tells this device from others of its kind: the whole body of 'mac' and 'ow', else what follows the
        organisation and the product."""
        if self.form in ("org", "os"):
            return self.body.partition("-")[2].partition(":")[0]
        if self.form == "ops":
            return self.body.split("-", 2)[2].partition(":")[0]
        return self.body.partition(":")[0]


def parse(text: str) -> DeviceUrn:
    """Read a device URN (RFC 9039 section 3.2); raises `UrnError`."""
    if len(text) > MAX_LENGTH:
        raise UrnError(f"a device URN has at most {MAX_LENGTH} characters")
    found = _URN.fullmatch(text)
    if found is None:
        raise UrnError("not of the form urn:dev:FORM:NAME with letters, digits, '.', '-' (RFC 9039)")
    form, body, components = found.groups()
    if form != form.lower():
        raise UrnError("the form of a device URN is written in lower case")
    if form in _HEX:
        body = body.lower()
    rule = _BODIES.get(form)
    if rule is not None and not rule.fullmatch(body):
        raise UrnError(f"urn:dev:{form}: is not followed by what RFC 9039 section 4 asks for")
    return DeviceUrn(form, body, tuple(components.split("_")[1:]))


@functools.lru_cache(maxsize=1024)
def is_normal(text: str) -> bool:
    """True when ``text`` is a device URN in its normal spelling."""
    try:
        return str(parse(text)) == text
    except UrnError:
        return False


def from_eui(eui: bytes) -> DeviceUrn:
    """The name of an EUI-64 (8 bytes) or EUI-48 (6 bytes; ff-fe goes in its middle, RFC 9039 section 4.1)."""
    if len(eui) == 6:
        eui = eui[:3] + b"\xff\xfe" + eui[3:]
    if len(eui) != 8:
        raise UrnError("an EUI has 6 or 8 bytes")
    return DeviceUrn("mac", eui.hex())


def from_one_wire(identifier: bytes) -> DeviceUrn:
    """The name of a 1-Wire device: family, serial number and CRC, 8 bytes as they are written."""
    if len(identifier) != 8:
        raise UrnError("a 1-Wire identifier has 8 bytes")
    return DeviceUrn("ow", identifier.hex())


def from_organization(enterprise: int, identifier: str, *more: str) -> DeviceUrn:
    """An organisation's own name for a device; ``enterprise`` is its private enterprise number."""
    return parse(f"urn:dev:org:{enterprise}-{':'.join((identifier, *more))}")


def from_serial(enterprise: int, serial: str, *, product: str = "") -> DeviceUrn:
    """An organisation's serial number ('os'), or with ``product`` its product and serial number ('ops')."""
    if product:
        return parse(f"urn:dev:ops:{enterprise}-{product}-{serial}")
    return parse(f"urn:dev:os:{enterprise}-{serial}")


def example(*identifiers: str) -> DeviceUrn:
    """A name that no real device bears (RFC 9039 section 4.6)."""
    return parse(f"urn:dev:example:{':'.join(identifiers)}")
