"""Administration: users, roles, one-time links, the audit trail."""

import html
import re
import sqlite3

import pytest

from vitalgate.cloud.roles import Role


@pytest.fixture
def root(site):
    return site.signed_in("root", Role.ADMINISTRATOR)


def link_in(page):
    return html.unescape(re.search(r'id="new-link" readonly value="([^"]+)"', page)[1])


def test_a_new_user_comes_in_by_a_link_that_is_shown_once(site, root):
    answer = root.fill("/users", name="Nurse Ann", role="clinician")
    link = link_in(answer.text)
    assert link.startswith(site.origin + "/link#")
    assert "new-link" not in root.get("/users").text
    visitor = site.visitor()
    assert visitor.fill("/link", token=link.partition("#")[2]).headers["location"] == "/password"
    assert site.users.find("nurse ann").role is Role.CLINICIAN


def test_what_cannot_be_is_said(site, root):
    assert "is a user" in root.fill("/users", name="Root", role="viewer").text
    assert root.fill("/users", name="", role="viewer").status_code == 422
    assert root.fill("/users", name="x", role="king").status_code == 422
    me = site.users.find("root").id
    stays = root.fill("/users", f"/users/{me}", do="disable")
    assert (stays.status_code, "the last administrator stays" in stays.text) == (422, True)
    assert root.fill("/users", f"/users/{me}", do="explode").status_code == 422
    assert root.fill("/users", "/users/999", do="disable").status_code == 404
    assert root.fill("/users", "/users/9223372036854775807", do="link").status_code == 404
    assert root.fill("/users", "/users/99999999999999999999999", do="link").status_code == 404


def test_roles_change_and_users_are_disabled_and_enabled(site, root):
    user = site.add("nurse", Role.VIEWER)
    page = f"/users/{user.id}"
    assert root.fill("/users", page, do="role", role="technician").status_code == 303
    assert site.users.get(user.id).role is Role.TECHNICIAN
    root.fill("/users", page, do="disable")
    assert site.visitor().sign_in("nurse").status_code == 401
    root.fill("/users", page, do="enable")
    assert site.visitor().sign_in("nurse").status_code == 303
    assert link_in(root.fill("/users", page, do="link").text)
    deeds = [(row.action, row.actor) for row in site.store.audit.rows() if row.subject == "nurse"]
    assert deeds[0] == ("link_created", "root")
    assert deeds.count(("user_changed", "root")) == 3


def test_the_trail_is_read_in_pages_and_checked(site, root):
    for number in range(120):
        site.users.create(f"user{number}", Role.VIEWER, actor="<i>root</i>")
    first = root.get("/audit").text
    assert "user119" in first
    assert "user10<" not in first
    assert "&lt;i&gt;root" in first
    older = re.search(r'href="/audit\?before=(\d+)"', first)[1]
    assert "user10<" in root.get(f"/audit?before={older}").text
    for nonsense in ("x", "-1", "٣", "9" * 30, ""):
        assert root.get("/audit", params={"before": nonsense}).text == first
    assert "The chain is whole" in root.fill("/audit").text


def test_a_changed_trail_is_called_so(site, root, location):
    site.add("nurse")
    with sqlite3.connect(location) as file:
        file.execute("DROP TRIGGER audit_no_update")
        file.execute("UPDATE audit SET action = 'signed_in' WHERE number = 1")
    answer = root.fill("/audit").text
    assert "tampered with: row 1 was changed" in answer
