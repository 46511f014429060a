"""TD_COAP_LINK_01 to 09: RFC 6690."""

import re
from collections.abc import Callable

from vitalgate.coap.formats import ContentFormat
from vitalgate.coap.message import Code
from vitalgate.net.etsi.asking import Ask
from vitalgate.net.etsi.trial import Trial, case

WELL_KNOWN = ".well-known/core"
Attributes = dict[str, str]
_LINK = re.compile(r'<([^>]*)>((?:;[^",;=]+(?:=(?:"(?:[^"\\]|\\.)*"|[^",;]*))?)*)(?:,|$)')
_ATTRIBUTE = re.compile(r';([^",;=]+)(?:=(?:"((?:[^"\\]|\\.)*)"|([^",;]*)))?')


def parse_links(text: str) -> dict[str, Attributes] | None:
    """The links of a document by target (RFC 6690 section 2), or None where it is not in that format."""
    links: dict[str, Attributes] = {}
    at = 0
    while at < len(text):
        found = _LINK.match(text, at)
        if found is None:
            return None
        pairs = _ATTRIBUTE.findall(found.group(2))
        links[found.group(1)] = {name: quoted or bare for name, quoted, bare in pairs}
        at = found.end()
    return links


async def _links(trial: Trial, *query: str, path: str = WELL_KNOWN) -> dict[str, Attributes]:
    exchange = await trial.transact(
        Ask(Code.GET, path, query=query), [Code.CONTENT], content_format=ContentFormat.LINK_FORMAT, display=False
    )
    shown = exchange.shown.payload if exchange.shown is not None else b""
    links = parse_links(shown.decode(errors="replace").strip())
    trial.must("the client displays a document in link format", links is not None and bool(links), shown[:80])
    assert links is not None
    return links


async def _everything(trial: Trial) -> dict[str, Attributes]:
    response = await trial.change(Ask(Code.GET, WELL_KNOWN))
    return parse_links(response.payload.decode(errors="replace")) or {}


async def _filtered(trial: Trial, query: str, wanted: Callable[[str, Attributes], bool]) -> None:
    # What the filter leaves is compared with what is wanted of the whole list.
    links = await _everything(trial)
    right = {href for href, attributes in links.items() if wanted(href, attributes)}
    trial.must(f"the server has links that match {query}, and others", 0 < len(right) < len(links), len(right))
    found = await _links(trial, query)
    trial.check(f"the payload has the links that match {query} and no other", set(found) == right, ", ".join(found))


def _words(attributes: Attributes, name: str) -> list[str]:
    return attributes.get(name, "").split()


async def _word(trial: Trial, name: str, preferred: str) -> str:
    """``preferred`` where a link has an attribute ``name`` with a word that begins so, else a word that some link has:
    the descriptions leave it to the server what its types are."""
    words = [word for link in (await _everything(trial)).values() for word in _words(link, name)]
    return preferred if any(word.startswith(preferred) for word in words) or not words else words[0]


async def _target(trial: Trial, preferred: str) -> str:
    """The same for targets."""
    links = [href for href in await _everything(trial) if len(href) > 1]
    return preferred if preferred in links or not links else links[0]


@case("TD_COAP_LINK_01", "Resource discovery", "RFC 6690 section 4", WELL_KNOWN)
async def link_01(trial: Trial) -> None:
    """GET of /.well-known/core."""
    await trial.ensure("test")
    links = await _links(trial)
    trial.check("the payload lists /test", "/" + trial.named(Ask(Code.GET, "test")).path in links, ", ".join(links))


async def _by_type(trial: Trial, preferred: str) -> None:
    word = await _word(trial, "rt", preferred)
    await _filtered(trial, f"rt={word}", lambda _, link: word in _words(link, "rt"))


@case("TD_COAP_LINK_02", "Filter by resource type", "RFC 6690 section 4.1", WELL_KNOWN)
async def link_02(trial: Trial) -> None:
    """?rt=Type1."""
    await _by_type(trial, "Type1")


@case("TD_COAP_LINK_03", "Filter with an empty prefix", "RFC 6690 section 4.1", WELL_KNOWN)
async def link_03(trial: Trial) -> None:
    """?rt=* : whatever has a resource type."""
    await _filtered(trial, "rt=*", lambda _, link: "rt" in link)


@case("TD_COAP_LINK_04", "Filter where there are several types", "RFC 6690 sections 3.1, 4.1", WELL_KNOWN)
async def link_04(trial: Trial) -> None:
    """?rt=Type2."""
    await _by_type(trial, "Type2")


@case("TD_COAP_LINK_05", "Filter by interface with a prefix", "RFC 6690 sections 3.2, 4.1", WELL_KNOWN)
async def link_05(trial: Trial) -> None:
    """?if=If*."""
    prefix = (await _word(trial, "if", "If"))[:2]
    await _filtered(trial, f"if={prefix}*", lambda _, link: any(each.startswith(prefix) for each in _words(link, "if")))


@case("TD_COAP_LINK_06", "Filter by size with an empty prefix", "RFC 6690 sections 3.3, 4.1", WELL_KNOWN)
async def link_06(trial: Trial) -> None:
    """?sz=*."""
    await _filtered(trial, "sz=*", lambda _, link: "sz" in link)


@case("TD_COAP_LINK_07", "Filter by target", "RFC 6690 section 4.1", WELL_KNOWN)
async def link_07(trial: Trial) -> None:
    """?href=/link1."""
    target = await _target(trial, "/link1")
    await _filtered(trial, f"href={target}", lambda href, _: href == target)


@case("TD_COAP_LINK_08", "Filter by target with a prefix", "RFC 6690 section 4.1", WELL_KNOWN)
async def link_08(trial: Trial) -> None:
    """?href=/link*."""
    prefix = (await _target(trial, "/link1"))[:-1]
    await _filtered(trial, f"href={prefix}*", lambda href, _: href.startswith(prefix))


@case("TD_COAP_LINK_09", "Links in a hierarchy", "RFC 6690 section 5", WELL_KNOWN)
async def link_09(trial: Trial) -> None:
    """/.well-known/core leads to /path, that to /path/sub1."""
    top = await _links(trial)
    trial.must("/path is listed with ct=40", "40" in _words(top.get("/path", {}), "ct"), top.get("/path"))
    below = await _links(trial, path="path")
    children = [href for href in below if href.startswith("/path/")]
    trial.must("/path lists /path/sub1 and more", "/path/sub1" in children and len(children) > 1, ", ".join(below))
    exchange = await trial.transact(Ask(Code.GET, "path/sub1"), [Code.CONTENT], payload=True)
    trial.check("the payload is the sub-resource's", b"sub1" in exchange.response.payload)
