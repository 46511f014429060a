"""Who may see and do what, and what every answer carries."""

import re
import socket

import pytest
from website import PASSWORD

from vitalgate.cloud.roles import PERMISSIONS, Permission, Role
from vitalgate.cloud.web.access import local_path
from vitalgate.cloud.web.app import WAYS
from vitalgate.cloud.web.guard import host_name
from vitalgate.cloud.web.settings import WebSettings

URN = "urn:dev:mac:0024befffe804ff1"
PUBLIC = {
    *((method, path) for method in ("GET", "POST") for path in ("/sign-in", "/link")),
    *(("GET", path) for path in ("/health", "/ready", "/metrics")),
}
POLICY = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    "connect-src 'self'",
    "frame-ancestors 'none'",
    "form-action 'self'",
    "base-uri 'none'",
)


def address(way):
    return way.path.replace("{urn:path}", URN).replace("{user:int}", "1")


def key(way):
    return way.method, way.path


def test_nothing_but_the_way_in_is_public():
    assert {key(way) for way in WAYS if way.needs is None} == PUBLIC


def test_every_page_sends_a_stranger_to_sign_in(site):
    stranger = site.visitor()
    for way in WAYS:
        if way.needs is None:
            continue
        answer = stranger.request(way.method, address(way), data={"do": "disable"} if way.method == "POST" else None)
        if way.kind.value == "data":
            assert (answer.status_code, answer.json()) == (401, {"error": "Sign in first."}), way.path
        else:
            assert answer.status_code == 303, way.path
            assert answer.headers["location"].startswith("/sign-in"), way.path
        assert site.board.version == site.app.state.web.services.board.version  # and nothing was done


@pytest.mark.parametrize("role", Role)
def test_a_role_opens_what_it_carries_and_nothing_else(site, role):
    site.store.commit([])
    visitor = site.signed_in(role.value, role)
    token = visitor.csrf("/")
    for way in WAYS:
        if way.needs is None or way.path in ("/events", "/sign-out", "/password"):
            continue
        form = {"csrf": token} if way.method == "POST" else None
        answer = visitor.request(way.method, address(way), data=form)
        allowed = way.needs in PERMISSIONS[role]
        assert (answer.status_code != 403) is allowed, (role, way.method, way.path, answer.status_code)
        assert answer.status_code != 500, (role, way.method, way.path, answer.text)


def test_links_in_the_navigation_are_those_the_role_may_follow(site):
    for role in Role:
        page = site.signed_in(role.value, role).get("/").text
        shown = set(re.findall(r'<a href="(/[a-z]*)"', page.partition("<nav")[2].partition("</nav>")[0]))
        assert ("/users" in shown) is (Permission.MANAGE_USERS in PERMISSIONS[role])
        assert ("/security" in shown) is (Permission.VIEW_TECHNICAL in PERMISSIONS[role])
        assert "/gaps" in shown


def test_every_answer_carries_the_headers(site):
    visitor = site.signed_in("root", Role.ADMINISTRATOR)
    pages = ["/", "/sign-in", "/static/js/dashboard.js", "/api/board", "/nowhere", "/health", "/metrics", "/users"]
    for page in pages:
        headers = visitor.get(page).headers
        policy = headers["content-security-policy"]
        assert set(POLICY) <= set(policy.split("; ")), page
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["x-frame-options"] == "DENY"
        expected = "no-cache" if page.startswith("/static/") else "no-store"
        assert headers["cache-control"] == expected, page
        assert "server" not in headers


def test_a_fault_of_ours_says_nothing_and_carries_the_headers(make_site):
    def broken():
        raise RuntimeError("s3cret detail")

    site = make_site(checks=broken)
    answer = site.visitor().get("/ready")
    assert answer.status_code == 500
    assert answer.json() == {"error": "Something went wrong here. It has been logged."}
    assert answer.headers["content-security-policy"]
    assert site.counters["cloud_web_requests{5xx}"] == 1


def test_pages_hold_no_script_no_style_and_nothing_from_elsewhere(site):
    visitor = site.signed_in("root", Role.ADMINISTRATOR)
    for way in WAYS:
        if way.method != "GET" or way.path in ("/events", "/metrics") or "{" in way.path:
            continue
        text = visitor.get(way.path).text
        assert not re.search(r"<script(?![^>]* src=\"/static/)", text), way.path
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text), way.path
        assert not re.search(r"(src|href|action)=\"(?!/)", text.replace('href="#main"', "")), way.path


def test_a_request_for_another_name_is_refused(site):
    visitor = site.signed_in()
    others = ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "[::2]", "[::1", "192.0.2.7")
    for host in others:
        answer = visitor.get("/api/board", headers={"host": host})
        assert answer.status_code == 421, host
        assert "devices" not in answer.text
    assert site.counters["cloud_web_refused{host}"] == len(others)


def test_names_of_this_server_are_served(make_site):
    site = make_site(WebSettings(hosts=("Monitor.ward.example",)))
    port = site.server.port
    for host in ("localhost", f"LOCALHOST:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", "monitor.ward.example:443"):
        assert site.visitor().get("/health", headers={"host": host}).status_code == 200, host
    assert host_name("Monitor.Ward.Example.:443") == "monitor.ward.example"


def raw(site, text):
    """The answer to a request that a well-behaved client cannot send."""
    with socket.create_connection((site.server.host, site.server.port), timeout=10) as line:
        line.sendall(text)
        parts = []
        while part := line.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_two_host_headers_are_refused(site):
    answer = raw(site, b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    assert answer.split(b"\r\n")[0] in (b"HTTP/1.1 400 Bad Request", b"HTTP/1.1 421 Misdirected Request")


def test_bodies_heads_and_addresses_are_bounded(site):
    visitor = site.visitor()
    token = visitor.csrf("/sign-in")
    long = visitor.post("/sign-in", data={"csrf": token, "name": "x" * 20_000, "password": "y"})
    assert long.status_code == 413
    assert long.headers["content-security-policy"]
    assert site.visitor().get("/sign-in?next=/" + "x" * 5000).status_code == 414
    assert b" 400 " in raw(site, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 40_000)[:20]  # a head without end
    chunked = (
        b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + b"4000\r\n" + b"x" * 0x4000 + b"\r\n" * 1
        + b"4000\r\n" + b"x" * 0x4000 + b"\r\n0\r\n\r\n"
    )  # fmt: skip
    assert b" 413 " in raw(site, chunked)[:20]


def test_forms_that_are_none_are_refused(site):
    visitor = site.visitor()
    token = visitor.csrf("/sign-in")
    as_json = visitor.post("/sign-in", json={"csrf": token})
    assert as_json.status_code == 415
    kind = {"content-type": "application/x-www-form-urlencoded"}
    for body in (b"\xff\xfe=1", b"&".join(b"a%d=1" % n for n in range(40)), f"csrf={token}&csrf={token}".encode()):
        assert visitor.post("/sign-in", content=body, headers=kind).status_code == 400
    assert visitor.put("/sign-in").status_code == 405


def test_forms_are_bound_to_whoever_asked_for_them(site):
    site.add("nurse")
    one, other = site.visitor(), site.visitor()
    token = one.csrf("/sign-in")
    other.get("/sign-in")
    good = {"name": "nurse", "password": PASSWORD}
    assert other.post("/sign-in", data={"csrf": token, **good}).status_code == 403  # somebody else's
    assert one.post("/sign-in", data=good).status_code == 403  # none
    for header in ({"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        assert one.post("/sign-in", data={"csrf": token, **good}, headers=header).status_code == 403
    assert one.post("/sign-in", data={"csrf": token, **good}, headers={"origin": site.origin}).status_code == 303
    assert site.counters["cloud_web_refused{form}"] == 5


def test_every_form_of_a_session_demands_its_token(site):
    visitor = site.signed_in("root", Role.ADMINISTRATOR)
    other = site.signed_in("second", Role.ADMINISTRATOR).csrf("/users")
    before = site.store.audit.head()
    forms = [way for way in WAYS if way.method == "POST" and way.needs]
    for way in forms:
        for token in ("", "x", other):
            answer = visitor.post(address(way), data={"csrf": token, "name": "x", "role": "viewer", "do": "disable"})
            assert answer.status_code == 403, way.path
    assert len(forms) == 6
    assert site.store.audit.head() == before


def test_metrics_are_for_loopback_or_for_the_token(make_site):
    site = make_site(WebSettings(hosts=("ward.example",), metrics_token="s3cret-token"))
    visitor = site.visitor()
    here = visitor.get("/metrics")
    assert here.status_code == 200
    assert "# TYPE vitalgate_cloud_web_requests_total counter" in here.text
    through_a_name = {"host": "ward.example"}
    assert visitor.get("/metrics", headers=through_a_name).status_code == 401
    wrong = {"authorization": "Bearer s3cret-tokex"}
    assert visitor.get("/metrics", headers=through_a_name | wrong).status_code == 401
    right = {"authorization": "Bearer s3cret-token"}
    assert visitor.get("/metrics", headers=through_a_name | right).status_code == 200


def test_what_follows_sign_in_stays_on_this_site():
    for bad in ("//evil.example", "https://evil.example", "/\\evil.example", "javascript:x", "", "x", "/a\nb", "/ä"):
        assert local_path(bad) == "/", bad
    assert local_path("/devices/urn%3Adev") == "/devices/urn%3Adev"


def test_a_stranger_is_brought_back_after_signing_in(site):
    site.add("nurse")
    visitor = site.visitor()
    away = visitor.get("/gaps").headers["location"]
    assert away == "/sign-in?next=/gaps"
    assert 'name="next" value="/gaps"' in visitor.get(away).text
    assert visitor.fill(away, "/sign-in", name="nurse", password=PASSWORD, next="/gaps").headers["location"] == "/gaps"
