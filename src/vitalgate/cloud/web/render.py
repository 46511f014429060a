"""Pages from templates: everything is escaped, nothing is undefined in silence."""

import datetime
from typing import Any, Final

import jinja2
from markupsafe import Markup
from starlette.responses import HTMLResponse

from vitalgate.cloud.roles import Permission
from vitalgate.cloud.web.access import Call, Web
from vitalgate.cloud.web.wording import PROTECTIONS, protection
from vitalgate.vitals.observation import Samples, Status

DISCLAIMER: Final = "Information only – not a primary alarm system"

_NAVIGATION: Final = (
    ("/", "Dashboard", Permission.VIEW_BOARD),
    ("/gaps", "Gaps", Permission.VIEW_BOARD),
    ("/quarantine", "Quarantine", Permission.VIEW_TECHNICAL),
    ("/security", "Security", Permission.VIEW_TECHNICAL),
    ("/users", "Users", Permission.MANAGE_USERS),
    ("/audit", "Audit", Permission.VIEW_AUDIT),
)


def moment(seconds: float | None, *, age: bool = False) -> Markup:
    """A `time` element: UTC in the page, which a script turns into the reader's zone (with its age where asked)."""
    if seconds is None or not 0 <= seconds < 253402300800:  # the year 10000
        return Markup("–")
    at = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    machine = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    data = Markup(" data-age") if age else Markup("")
    return Markup('<time datetime="{}"{}>{} UTC</time>').format(machine, data, at.strftime("%Y-%m-%d %H:%M:%S"))


def lasting(seconds: float) -> str:
    """A stretch of time in words: '0.8 s', '12 s', '3 min 5 s', '2 h 4 min', '4 d 1 h'."""
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    for size, unit, smaller, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            rest = int(seconds % size // smaller)
            return f"{int(seconds // size)} {unit}" + (f" {rest} {small_unit}" if rest else "")
    return f"{int(seconds)} s"


def status_words(status: Status) -> str:
    """The flags of a status, in words."""
    return ", ".join((flag.name or "").lower().replace("_", " ") for flag in status)


def value_words(value: object) -> str:
    """A value as a table shows it."""
    if value is None:
        return "no value"
    if isinstance(value, Samples):
        return f"{len(value)} samples at {value.rate} /s"
    return str(value)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vitalgate.cloud.web", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"moment": moment, "lasting": lasting, "value": value_words, "status": status_words}
    environment.globals |= {"disclaimer": DISCLAIMER, "protection": protection, "protections": PROTECTIONS.values()}
    return environment


_ENVIRONMENT: Final = _environment()


def render(web: Web, call: Call, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
    """A page. Every template knows ``user`` (or None), ``csrf``, ``navigation``, ``path``, ``may``."""
    session = call.session
    allowed = set() if session is None else {row.value for row in Permission if session.user.may(row)}
    page = _ENVIRONMENT.get_template(template).render(
        user=session.user if session else None,
        csrf=web.form_token(call) if session or call.visitor else "",
        navigation=[(path, words) for path, words, needs in _NAVIGATION if needs.value in allowed],
        path=call.request.url.path,
        may=allowed,
        **context,
    )
    return HTMLResponse(page, status)


def render_error(status: int, words: str) -> str:
    """The page of a refusal; it says nothing of the request."""
    return _ENVIRONMENT.get_template("error.html").render(
        user=None, csrf="", navigation=[], path="", may=set(), status=status, words=words
    )
