"""Signing in and out: passwords, one-time links, lock-out, the first administrator, sessions and their cookies."""

import datetime
import ipaddress
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from website import PASSWORD, Visitor

from vitalgate.cloud.roles import Role
from vitalgate.cloud.users import FIRST_LOCK, FREE_FAILURES
from vitalgate.cloud.web.app import create_app
from vitalgate.cloud.web.server import ServeError, Tls, serve
from vitalgate.cloud.web.settings import WebSettings
from vitalgate.cloud.web.throttle import MAX_ADDRESSES, Throttle

BRISK = WebSettings(sign_ins_at_once=1000.0)


def cookie_of(answer, name):
    return next(text for text in answer.headers.get_list("set-cookie") if text.startswith(f"{name}="))


def test_a_password_opens_the_board(site):
    site.add("nurse")
    visitor = site.visitor()
    answer = visitor.sign_in("nurse")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = cookie_of(answer, "vitalgate").lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie  # over loopback HTTP a browser would not send it
    assert "max-age" not in cookie  # gone with the browser
    assert 'id="board"' in visitor.get("/").text


def test_wrong_name_wrong_password_and_disabled_look_the_same(make_site):
    site = make_site(BRISK)
    site.add("root", Role.ADMINISTRATOR)
    gone = site.add("gone")
    site.users.change(gone.id, disabled=True)
    pages = set()
    for name, password in (("nobody", PASSWORD), ("root", "wrong wrong wrong"), ("gone", PASSWORD)):
        visitor = site.visitor()
        answer = visitor.sign_in(name, password)
        assert answer.status_code == 401
        assert "vitalgate" not in visitor.cookies
        pages.add(answer.text.replace(visitor.csrf("/sign-in"), ""))
    assert len(pages) == 1
    assert "Name or password is wrong." in pages.pop()


def test_an_account_locks_and_opens_again(make_site, clock):
    site = make_site(BRISK)
    site.add("nurse")
    visitor = site.visitor()
    for _ in range(FREE_FAILURES - 1):
        assert visitor.sign_in("nurse", "wrong wrong wrong").status_code == 401
    locked = visitor.sign_in("nurse", "wrong wrong wrong")
    assert (locked.status_code, locked.headers["retry-after"]) == (429, str(round(FIRST_LOCK)))
    assert visitor.sign_in("nurse").status_code == 429  # the right one, too early
    clock.pass_(FIRST_LOCK)
    assert visitor.sign_in("nurse").status_code == 303


def test_an_address_may_try_only_so_often(make_site, clock):
    site = make_site(WebSettings(sign_ins_per_minute=6.0, sign_ins_at_once=3.0, clock=clock))
    site.add("nurse")
    visitor = site.visitor()
    answers = [visitor.sign_in(f"nobody{number}", "x").status_code for number in range(5)]
    assert answers == [401, 401, 401, 429, 429]
    refused = visitor.sign_in("nurse")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "10")
    assert visitor.fill("/link", token="x" * 43).status_code == 429  # one allowance for every way in
    clock.pass_(10)
    assert visitor.sign_in("nurse").status_code == 303
    assert site.counters["cloud_web_refused{rate}"] == 4


def test_the_throttle_forgets_but_stays_bounded():
    throttle = Throttle(per_minute=6, at_once=2)
    crowd = [throttle.admits(f"192.0.2.{number}", 0.0) for number in range(3 * MAX_ADDRESSES)]
    assert sum(crowd) == 20  # the common allowance
    assert len(throttle._addresses) == MAX_ADDRESSES


def test_a_link_is_used_up_by_the_form_and_not_by_looking(site):
    user = site.add("nurse")
    token = site.users.create_link(user.id)
    for _ in range(3):
        assert site.visitor().get("/link").status_code == 200  # what a previewer does
    visitor = site.visitor()
    answer = visitor.fill("/link", token=token)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert visitor.get("/").status_code == 200
    again = site.visitor().fill("/link", token=token)
    assert again.status_code == 401
    assert "has been used" in again.text


def test_a_bad_link_is_refused(site):
    visitor = site.visitor()
    for token in ("", "x", "x" * 43, "\0" * 43, "é" * 43):
        assert visitor.fill("/link", token=token).status_code == 401, token
        assert "vitalgate" not in visitor.cookies


def test_the_first_administrator_sets_a_password_before_anything_else(site):
    visitor = site.visitor()
    answer = visitor.fill("/link", token=site.users.first_link())
    assert answer.headers["location"] == "/password"
    for page in ("/", "/users", "/security"):
        assert visitor.get(page).headers["location"] == "/password"
    assert visitor.get("/api/board").status_code == 403
    assert visitor.get("/events").status_code == 403
    short = visitor.fill("/password", password="short", again="short")
    assert (short.status_code, "12 to 256 characters" in short.text) == (422, True)
    differ = visitor.fill("/password", password=PASSWORD, again=PASSWORD + "x")
    assert "differ" in differ.text
    old = visitor.cookies["vitalgate"]
    assert visitor.fill("/password", password=PASSWORD, again=PASSWORD).headers["location"] == "/"
    assert visitor.cookies["vitalgate"] != old
    assert visitor.get("/users").status_code == 200
    assert site.sessions.get(old) is None
    assert site.users.first_link() is None
    assert site.visitor().sign_in("administrator").status_code == 303


def test_a_password_is_changed_with_the_current_one(make_site):
    site = make_site(BRISK)
    site.add("nurse")
    visitor, elsewhere = site.visitor(), site.visitor()
    for each in (visitor, elsewhere):
        each.sign_in("nurse")
    new = "another good password"
    assert visitor.fill("/password", current="wrong", password=new, again=new).status_code == 422
    assert elsewhere.get("/").status_code == 200
    assert visitor.fill("/password", current=PASSWORD, password=new, again=new).status_code == 303
    assert visitor.get("/").status_code == 200
    assert elsewhere.get("/").status_code == 303  # its session has ended
    assert site.visitor().sign_in("nurse").status_code == 401


def test_signing_out_ends_the_session_and_not_only_the_cookie(site):
    site.add("nurse")
    visitor = site.visitor()
    visitor.sign_in("nurse")
    token = visitor.cookies["vitalgate"]
    assert visitor.fill("/", "/sign-out").headers["location"] == "/sign-in"
    thief = site.visitor()
    thief.cookies.set("vitalgate", token)
    assert thief.get("/").status_code == 303


def test_signing_in_makes_a_fresh_session(site):
    site.add("nurse")
    visitor = site.visitor()
    planted = "planted" * 6 + "x"
    visitor.cookies.set("vitalgate", planted, domain="127.0.0.1")
    visitor.sign_in("nurse")
    first = visitor.cookies["vitalgate"]
    assert first != planted
    other = site.users.create_link(site.add("other").id)
    visitor.fill("/link", token=other)  # while signed in: the old session does not stay behind
    assert site.sessions.get(first) is None


def test_a_session_ends_by_silence_and_by_age(site, clock):
    visitor = site.signed_in()
    for _ in range(20):
        clock.pass_(site.sessions.limits.idle - 61)
        assert visitor.get("/gaps").status_code == 200
    clock.pass_(site.sessions.limits.idle)
    assert visitor.get("/gaps").status_code == 303
    visitor = site.signed_in()
    for _ in range(24):
        clock.pass_(1700)
        visitor.get("/gaps")
    clock.pass_(site.sessions.limits.absolute - 24 * 1700)
    assert visitor.get("/gaps").status_code == 303


def test_a_disabled_user_is_out_at_once(site):
    site.add("root", Role.ADMINISTRATOR)
    visitor = site.signed_in("nurse")
    assert visitor.get("/").status_code == 200
    site.users.change(site.users.find("nurse").id, disabled=True)
    assert visitor.get("/").status_code == 303


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate for monitor.example and 127.0.0.1, with its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "monitor.example")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("monitor.example"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    plain = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    return Tls(folder / "cert.pem", folder / "key.pem")


def test_over_tls_cookies_are_bound_to_it(site, certificate):
    app = create_app(site.app.state.web.services, WebSettings(secure=True))
    server = serve(app, "127.0.0.1", 0, certificate)
    try:
        assert server.origin.startswith("https://")
        trust = ssl.create_default_context(cafile=str(certificate.certificate))
        with Visitor(server.origin, verify=trust) as visitor:
            site.add("nurse")
            answer = visitor.sign_in("nurse")
            assert answer.status_code == 303
            cookie = cookie_of(answer, "__Host-vitalgate").lower()
            assert "secure" in cookie
            assert "path=/" in cookie
            assert "domain" not in cookie
            assert visitor.get("/").status_code == 200
            assert visitor.get("/").headers["strict-transport-security"] == "max-age=31536000"
            named = {"host": f"monitor.example:{server.port}"}
            assert visitor.get("/health", headers=named).status_code == 200  # the certificate's own name
            assert visitor.get("/health", headers={"host": "other.example"}).status_code == 421
    finally:
        server.stop()


def test_other_addresses_than_loopback_need_tls(site, certificate):
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.raises(ServeError, match="over TLS only"):
            serve(site.app, host)
    with pytest.raises(ServeError, match="not an IP address"):
        serve(site.app, "monitor.example")
    with pytest.raises(ServeError, match="another idea of TLS"):
        serve(site.app, "127.0.0.1", 0, certificate)
    with pytest.raises(ServeError, match="cannot listen"):
        serve(site.app, "127.0.0.1", site.server.port)
    wrong = Tls(certificate.key, certificate.certificate)
    with pytest.raises(ServeError, match="cannot be used"):
        serve(create_app(site.app.state.web.services, WebSettings(secure=True)), "127.0.0.1", 0, wrong)


def test_a_store_that_cannot_be_written_is_said_and_not_thrown(site, store):
    site.add("nurse")
    visitor = site.visitor()
    token = visitor.csrf("/sign-in")
    pool = store.database.engine.pool
    held = [pool.connect() for _ in range(4)]  # as a file system that turned read-only would have it
    for each in held:
        each.dbapi_connection.execute("PRAGMA query_only = 1")
    for each in held:
        each.close()
    with store.database.writing() as writer:  # which has a connection of its own
        writer.exec_driver_sql("PRAGMA query_only = 1")
    answer = visitor.post("/sign-in", data={"csrf": token, "name": "nurse", "password": PASSWORD})
    assert answer.status_code == 503
    assert "store cannot be written" in answer.text
    assert answer.headers["retry-after"] == "5"
