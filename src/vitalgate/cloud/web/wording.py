"""The protection of a link in words, from the table of stacks: for pages and scripts alike."""

from dataclasses import dataclass
from typing import Final

from vitalgate.net.stacks import STACKS


@dataclass(frozen=True, slots=True)
class Protection:
    """``level``: 'protected', 'none' or 'unknown'; ``name`` stands on the tile, ``words`` explain."""

    slug: str
    level: str
    name: str
    words: str


PROTECTIONS: Final[dict[str, Protection]] = {
    stack.slug: Protection(
        stack.slug,
        "protected" if stack.protects else "none",
        stack.label,
        f"{stack.title}: {stack.words}",
    )
    for stack in STACKS.values()
}


def protection(slug: str) -> Protection:
    """The row of a slug. Never raises: what is not in the table is unknown, and shown like no protection."""
    return PROTECTIONS.get(slug) or Protection(
        slug, "unknown", slug or "not stated", "Protection not known: treat it as none."
    )
