"""Signing in and out, one-time links, one's own password."""

from typing import Any

from starlette.responses import RedirectResponse, Response

from vitalgate.cloud.passwords import MIN_PASSWORD, PasswordError
from vitalgate.cloud.users import Refusal, User, UserError
from vitalgate.cloud.web.access import Call, Web, local_path


def sign_in_page(web: Web, call: Call) -> Response:
    """The form for name and password."""
    if call.session is not None:
        return RedirectResponse("/", 303)
    return _form(web, call, local_path(call.request.query_params.get("next", "/")))


def _form(web: Web, call: Call, target: str, fault: str = "", status: int = 200) -> Response:
    return web.render(web, call, "signin.html", status=status, target=target, fault=fault)


def sign_in(web: Web, call: Call) -> Response:
    """Try name and password. The answer is the same for a wrong name, a wrong password and a disabled user."""
    target = local_path(call.form.get("next", "/"))
    outcome = web.services.users.authenticate(call.form.get("name", ""), call.form.get("password", ""))
    if outcome.user is not None:
        return _enter(web, call, outcome.user, target)
    if outcome.refusal is Refusal.LOCKED or outcome.retry_after > 0:
        wait = max(1, round(outcome.retry_after))
        words = f"Too many wrong passwords. Wait {wait} s before the next try."
        response = _form(web, call, target, words, 429)
        response.headers["retry-after"] = str(wait)
        return response
    return _form(web, call, target, "Name or password is wrong.", 401)


def link_page(web: Web, call: Call) -> Response:
    """The page a one-time link leads to. Opening it uses nothing up: the token stands behind the '#', which no
    program that merely previews links sends, and only the form's button redeems it."""
    return web.render(web, call, "link.html", fault="")


def link(web: Web, call: Call) -> Response:
    """Redeem a one-time link."""
    user = web.services.users.redeem(call.form.get("token", ""))
    if user is None:
        words = "This link has been used, has run out or is not ours. Ask for a new one."
        return web.render(web, call, "link.html", status=401, fault=words)
    return _enter(web, call, user, "/")


def _enter(web: Web, call: Call, user: User, target: str) -> Response:
    if call.session is not None:
        web.services.sessions.end(call.session)
    session = web.services.sessions.create(user)
    if not user.has_password and web.settings.demand_password:
        target = "/password"
    response = RedirectResponse(target, 303)
    web.start_session(response, session)
    return response


def sign_out(web: Web, call: Call) -> Response:
    """End the session."""
    web.services.sessions.end(call.signed_in)
    response = RedirectResponse("/sign-in", 303)
    web.forget(response, web.session_cookie)
    response.headers["clear-site-data"] = '"cache", "storage"'
    return response


def password_page(web: Web, call: Call) -> Response:
    """The form for one's own password; the first thing a new administrator sees."""
    return _password(web, call)


def _password(web: Web, call: Call, fault: str = "") -> Response:
    context: dict[str, Any] = {"fault": fault, "least": MIN_PASSWORD, "first": not call.signed_in.user.has_password}
    return web.render(web, call, "password.html", status=422 if fault else 200, **context)


def set_password(web: Web, call: Call) -> Response:
    """Set one's own password. Who has one must say it; every other session of the user ends."""
    user = call.signed_in.user
    wanted = call.form.get("password", "")
    if wanted != call.form.get("again", ""):
        return _password(web, call, "The two new passwords differ.")
    if user.has_password:
        outcome = web.services.users.authenticate(user.name, call.form.get("current", ""))
        if outcome.user is None:
            return _password(web, call, "The current password is wrong, or too many tries were made.")
    try:
        web.services.users.set_password(user.id, wanted, actor=user.name)
    except (PasswordError, UserError) as error:
        return _password(web, call, str(error))
    fresh = web.services.users.get(user.id)
    assert fresh is not None
    response = RedirectResponse("/", 303)
    web.start_session(response, web.services.sessions.create(fresh))  # the old one ended with the old password
    return response
