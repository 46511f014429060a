"""What administrators do: users and the audit trail."""

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from vitalgate.cloud.roles import Role
from vitalgate.cloud.users import LINK_LIFETIME, User, UserError
from vitalgate.cloud.web.access import Call, Web

AUDIT_PAGE = 100


def users(web: Web, call: Call) -> Response:
    """Every user, and forms to add and change them."""
    return _users(web, call)


def _users(web: Web, call: Call, *, fault: str = "", link: str = "", holder: str = "", status: int = 200) -> Response:
    return web.render(
        web,
        call,
        "users.html",
        status=status,
        users=web.services.users.all(),
        roles=list(Role),
        fault=fault,
        link=link,
        holder=holder,
        minutes=round(LINK_LIFETIME / 60),
    )


def _role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError as error:
        raise HTTPException(422, "There is no such role.") from error


def add_user(web: Web, call: Call) -> Response:
    """A new user, with a one-time link to hand over; the password is the user's own to choose."""
    actor = call.signed_in.user.name
    try:
        user = web.services.users.create(call.form.get("name", ""), _role(call.form.get("role", "")), actor=actor)
        token = web.services.users.create_link(user.id, actor=actor)
    except UserError as error:
        return _users(web, call, fault=str(error), status=422)
    return _users(web, call, link=_address(call, token), holder=user.name)


def _address(call: Call, token: str) -> str:
    return sign_in_address(f"{call.request.url.scheme}://{call.request.url.netloc}", token)


def sign_in_address(base: str, token: str) -> str:
    """The one-time link as it is given to a person: ``base`` is the pages' origin, ``token`` a link's token."""
    return f"{base.rstrip('/')}/link#{token}"


def _target(web: Web, call: Call) -> User:
    number: int = call.request.path_params["user"]
    user = web.services.users.get(number) if number < 1 << 63 else None
    if user is None:
        raise HTTPException(404, "There is no such user.")
    return user


def change_user(web: Web, call: Call) -> Response:
    """Change a role, disable or enable, or make a new one-time link; ``do`` says which."""
    user = _target(web, call)
    actor = call.signed_in.user.name
    wanted = call.form.get("do", "")
    try:
        if wanted == "role":
            web.services.users.change(user.id, role=_role(call.form.get("role", "")), actor=actor)
        elif wanted in ("disable", "enable"):
            web.services.users.change(user.id, disabled=wanted == "disable", actor=actor)
        elif wanted == "link":
            token = web.services.users.create_link(user.id, actor=actor)
            return _users(web, call, link=_address(call, token), holder=user.name)
        else:
            raise HTTPException(422, "It is not clear what to change.")
    except UserError as error:
        return _users(web, call, fault=str(error), status=422)
    return RedirectResponse("/users", 303)


def audit(web: Web, call: Call) -> Response:
    """The trail, newest first, a page at a time."""
    text = call.request.query_params.get("before", "")
    before = int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None
    rows = web.services.store.audit.rows(limit=AUDIT_PAGE, before=before)
    older = rows[-1].number if len(rows) == AUDIT_PAGE and rows[-1].number > 1 else None
    return web.render(web, call, "audit.html", rows=rows, older=older, report=None)


def verify_audit(web: Web, call: Call) -> Response:
    """Walk the whole chain and say what was found."""
    report = web.services.store.audit.verify()
    rows = web.services.store.audit.rows(limit=AUDIT_PAGE)
    older = rows[-1].number if len(rows) == AUDIT_PAGE and rows[-1].number > 1 else None
    return web.render(web, call, "audit.html", rows=rows, older=older, report=report)
