"""Resources: routing, conditions, and discovery with the filters of RFC 6690 section 4.1."""

import pytest
from coap_lockstep import seeded

from vitalgate.coap import Code, ContentFormat, Message, Option, Site, build_options, content_format
from vitalgate.coap.linkformat import Link, format_links, matches


def says(text):
    return lambda request, path, identity, now: Message(Code.CONTENT, (), text.encode())


def get(site, path, *, code=Code.GET, query=(), identity="", **options):
    return site.answer(Message(code, build_options(path, query=query, **options)), None, identity, 0.0)


@pytest.fixture
def site():
    made = Site(randomness=seeded())
    made.add("sensors", says("index"), methods=[Code.GET], rt="sensors-index", title="Sensor Index", formats=[40])
    made.add("sensors/temp", says("temp"), methods=[Code.GET], rt="temperature-c", interface="sensor")
    made.add("sensors/light", says("light"), methods=[Code.GET], rt="light-lux core.s", interface="sensor", sz=9)
    made.add("sensors/light", says("set"), methods=[Code.PUT])
    made.add("hidden", says("hidden"), listed=False)
    made.add("tree", says("tree"), methods=[Code.GET], subtree=True)
    made.add("tree/branch/leaf", says("leaf"), methods=[Code.GET])
    return made


@pytest.mark.parametrize(
    ("path", "code", "expected"),
    [
        ("sensors", Code.GET, b"index"),
        ("sensors/temp", Code.GET, b"temp"),
        ("sensors/light", Code.PUT, b"set"),
        ("sensors/light", Code.POST, Code.METHOD_NOT_ALLOWED),
        ("sensors/", Code.GET, Code.NOT_FOUND),
        ("sensors/none", Code.GET, Code.NOT_FOUND),
        ("", Code.GET, Code.NOT_FOUND),
        ("hidden", Code.FETCH, b"hidden"),
        ("tree", Code.GET, b"tree"),
        ("tree/x/y/z", Code.GET, b"tree"),
        ("tree/branch", Code.GET, b"tree"),
        ("tree/branch/leaf", Code.GET, b"leaf"),
        ("tree/branch/leaf/x", Code.GET, b"tree"),
        ("tree/x", Code.PUT, Code.METHOD_NOT_ALLOWED),
        ("trees", Code.GET, Code.NOT_FOUND),
        (".well-known", Code.GET, Code.NOT_FOUND),
        (".well-known/core", Code.POST, Code.METHOD_NOT_ALLOWED),
    ],
)
def test_routing(site, path, code, expected):
    response = get(site, path, code=code)
    assert (response.payload or response.code) == expected


def test_a_root_resource():
    site = Site()
    site.add("", says("root"))
    assert get(site, "").payload == b"root"
    assert get(site, "x").code == Code.NOT_FOUND


def test_identity_reaches_the_handler():
    site = Site()
    site.add("who", lambda request, path, identity, now: Message(Code.CONTENT, (), identity.encode()))
    assert get(site, "who", identity="gateway-1").payload == b"gateway-1"


def test_a_method_is_served_once(site):
    with pytest.raises(ValueError):
        site.add("sensors/light", says("x"), methods=[Code.GET])
    for wrong in ([], [0], [8], [69]):
        with pytest.raises(ValueError):
            site.add("new", says("x"), methods=wrong)


def test_accept():
    """RFC 7252 section 5.10.4."""
    site = Site()
    site.add("a", says("x"), formats=[ContentFormat.CBOR])
    site.add("b", says("x"))
    assert get(site, "a").code == Code.CONTENT
    assert get(site, "a", accept=60).code == Code.CONTENT
    assert get(site, "a", accept=50).code == Code.NOT_ACCEPTABLE
    assert get(site, "b", accept=50).code == Code.CONTENT


def listing(site, *query):
    response = get(site, ".well-known/core", query=query)
    assert response.code == Code.CONTENT
    assert content_format(response) == ContentFormat.LINK_FORMAT
    return response.payload.decode()


def test_discovery(site):
    assert listing(site) == (
        '</sensors>;rt="sensors-index";title="Sensor Index";ct=40,'
        '</sensors/light>;rt="light-lux core.s";if="sensor";sz=9,'
        '</sensors/temp>;rt="temperature-c";if="sensor",'
        "</tree>,</tree/branch/leaf>"
    )


@pytest.mark.parametrize(
    ("query", "hrefs"),
    [
        (["rt=temperature-c"], ["/sensors/temp"]),
        (["rt=light-lux"], ["/sensors/light"]),
        (["rt=core.s"], ["/sensors/light"]),
        (["rt=light-lux core.s"], ["/sensors/light"]),
        (["rt=light*"], ["/sensors/light"]),
        (["rt=*"], ["/sensors", "/sensors/light", "/sensors/temp"]),
        (["rt=core"], []),
        (["if=sensor"], ["/sensors/light", "/sensors/temp"]),
        (["if=sensor", "rt=temp*"], ["/sensors/temp"]),
        (["href=/sensors/temp"], ["/sensors/temp"]),
        (["href=/tree*"], ["/tree", "/tree/branch/leaf"]),
        (["title=Sensor Index"], ["/sensors"]),
        (["title=Index"], []),
        (["ct=40"], ["/sensors"]),
        (["sz=9"], ["/sensors/light"]),
        (["nosuch=1"], []),
        (["plain"], ["/sensors", "/sensors/light", "/sensors/temp", "/tree", "/tree/branch/leaf"]),
    ],
)
def test_filters(site, query, hrefs):
    text = listing(site, *query)
    assert [part.split(">")[0] for part in text.split("<")[1:]] == hrefs


def test_link_format_escapes():
    link = Link("/ä b/,x", title='say "hi" \\', ct=(40, 50))
    assert format_links([link]) == '</%C3%A4%20b/,x>;title="say \\"hi\\" \\\\";ct="40 50"'
    assert matches(link, "ct=50")


def test_wrong_conditions_do_not_reach_the_handler(site):
    response = site.answer(Message(Code.GET, ((Option.IF_NONE_MATCH, b""), *build_options("tree"))), None, "", 0.0)
    assert response.code == Code.BAD_OPTION
