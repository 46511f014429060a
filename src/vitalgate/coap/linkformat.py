"""The CoRE link format (RFC 6690) of a server's own resources: writing it, and the filters of section 4.1."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Link:
    """A resource and its attributes (RFC 6690 section 3, RFC 7252 section 7.2.1): ``rt`` and ``interface`` (attribute
    'if') hold space-separated words, ``ct`` Content-Formats, ``sz`` bytes; ``obs``: it can be observed (RFC 7641
    section 6)."""

    href: str
    rt: str = ""
    interface: str = ""
    title: str = ""
    ct: tuple[int, ...] = ()
    sz: int | None = None
    obs: bool = False

    def attributes(self) -> list[tuple[str, str]]:
        """(name, value) pairs of what is set."""
        pairs = [
            ("rt", self.rt),
            ("if", self.interface),
            ("title", self.title),
            ("ct", " ".join(str(int(number)) for number in self.ct)),
            ("sz", "" if self.sz is None else str(self.sz)),
        ]
        return [pair for pair in pairs if pair[1]]


def format_links(links: Iterable[Link]) -> str:
    """A link-format document."""
    return ",".join(_format(link) for link in links)


def _format(link: Link) -> str:
    parts = [f"<{_percent(link.href)}>"]
    for name, value in link.attributes():
        # Section 2: ct and sz are numbers where they hold one; everything else is a quoted string.
        bare = name in ("ct", "sz") and value.isdigit()
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        parts.append(f"{name}={value}" if bare else f'{name}="{quoted}"')
    if link.obs:
        parts.append("obs")
    return ";".join(parts)


_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=:@/")
"""What a path may hold without percent-encoding (RFC 3986 section 3.3)."""


def _percent(path: str) -> str:
    return "".join(c if c in _PLAIN else "".join(f"%{byte:02X}" for byte in c.encode()) for c in path)


def matches(link: Link, query: str) -> bool:
    """True where ``link`` passes the filter ``query`` ('rt=light*'): section 4.1; a value that ends in '*' is a prefix,
    and of an attribute that holds several words one has to match. A query without '=' asks for nothing and passes."""
    name, equals, wanted = query.partition("=")
    if not equals:
        return True
    if name == "href":
        values = [link.href]
    else:
        value = dict(link.attributes()).get(name)
        if value is None:
            return False
        values = [value] if name == "title" else [value, *value.split()]
    if wanted.endswith("*"):
        return any(value.startswith(wanted[:-1]) for value in values)
    return wanted in values
