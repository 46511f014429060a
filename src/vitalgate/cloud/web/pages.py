"""What a signed-in user reads: dashboard, one device, gaps, quarantine, security."""

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from vitalgate.cloud.roles import Permission
from vitalgate.cloud.store.errors import StoreError
from vitalgate.cloud.store.store import MAX_LABEL
from vitalgate.cloud.web.access import Call, Web
from vitalgate.cloud.web.events import Json, seen, view_of
from vitalgate.cloud.web.settings import Control, Level
from vitalgate.cloud.web.wording import protection
from vitalgate.vitals.metrics import METRICS
from vitalgate.vitals.observation import Observation, TrafficClass

RECENT_ENTRIES = 60
RECENT_VALUES = 80
GAPS_SHOWN = 500


def dashboard(web: Web, call: Call) -> Response:
    """The board; scripts fill it from the event stream."""
    return web.render(web, call, "dashboard.html")


def device_on_board(web: Web, call: Call, urn: str) -> Json | None:
    """What the board shows of a device to this user."""
    board = seen(web.services.board.snapshot(), view_of(call.signed_in.user))
    return next((row for row in board["devices"] if row["device"] == urn), None)


def _title(observation: Observation) -> str:
    metric = METRICS.get(observation.metric)
    return metric.short if metric else observation.label or f"MDC {observation.metric}"


def device(web: Web, call: Call) -> Response:
    """One device: who it is, its recent values, its gaps."""
    urn = call.request.path_params["urn"]
    shown = device_on_board(web, call, urn)
    known = next((row for row in web.services.store.read.devices() if row.urn == urn), None)
    if shown is None and known is None:
        raise HTTPException(404, "There is no such device.")
    entries = web.services.store.read.latest(urn, RECENT_ENTRIES)
    values = [
        {"observation": observation, "title": _title(observation), "received_at": entry.received_at}
        for entry in entries
        for observation in entry.observations
    ][:RECENT_VALUES]
    alarms = [row for row in entries if row.traffic_class is TrafficClass.ALARM]
    gaps = [row for row in web.services.store.read.gaps(limit=GAPS_SHOWN) if row.device == urn]
    label = known.label if known else shown["label"] if shown else ""
    return web.render(
        web,
        call,
        "device.html",
        urn=urn,
        label=label,
        shown=shown,
        values=values,
        alarms=len(alarms),
        gaps=gaps,
        patients=call.signed_in.user.may(Permission.VIEW_PATIENTS),
        longest=MAX_LABEL,
    )


def name_device(web: Web, call: Call) -> Response:
    """Give a device the label that people read."""
    urn = call.request.path_params["urn"]
    label = call.form.get("label", "").strip()
    try:
        web.services.store.name_device(urn, label, actor=call.signed_in.user.name)
    except StoreError as error:
        raise HTTPException(422, str(error)) from error
    web.services.board.name(urn, label)
    return RedirectResponse(call.request.url.path, 303)


def gaps(web: Web, call: Call) -> Response:
    """Every gap, newest first."""
    rows = web.services.store.read.gaps(limit=GAPS_SHOWN)
    labels = {row.urn: row.label for row in web.services.store.read.devices()}
    return web.render(web, call, "gaps.html", gaps=rows, labels=labels, most=GAPS_SHOWN)


def quarantine(web: Web, call: Call) -> Response:
    """Devices that speak at a gateway but are not enrolled there."""
    return web.render(web, call, "quarantine.html", rows=web.services.store.read.quarantine())


def own_controls(web: Web) -> list[Control]:
    """What the pages know of their own protection."""
    administrators = [user for user in web.services.users.all() if user.role.value == "administrator"]
    bare = [user.name for user in administrators if not user.has_password and not user.disabled]
    limits = web.services.sessions.limits
    tls = Control("TLS for these pages", Level.GOOD, "Pages are served over TLS, cookies are bound to it.")
    if not web.settings.secure:
        tls = Control("TLS for these pages", Level.WARN, "Off: pages are served on this machine's loopback only.")
    found = [
        tls,
        Control(
            "Sign-in",
            Level.GOOD,
            f"Required for every page. A session ends after {limits.idle / 60:.0f} min without use and "
            f"{limits.absolute / 3600:.0f} h in any case.",
        ),
        Control(
            "Content security policy",
            Level.GOOD,
            "Scripts and styles of this server only; no content from other hosts.",
        ),
    ]
    if bare:
        found.append(Control("Administrator password", Level.WARN, "An administrator has yet to set a password."))
    number, chain = web.services.store.audit.head()
    words = (
        f"{number} rows, each chained to the one before. Head {chain.hex()[:16]}: note it outside from time to time."
    )
    found.append(Control("Audit trail", Level.GOOD, words))
    return found


def gateway_controls(web: Web) -> list[Json]:
    """Each gateway's link, with its protection in words."""
    board = web.services.board.snapshot()
    return [row | {"protection": protection(row["security"])} for row in board["gateways"]]


def security(web: Web, call: Call) -> Response:
    """What is on, what is off, which addresses listen, how old keys are."""
    state = web.services.security()
    return web.render(
        web,
        call,
        "security.html",
        controls=[*own_controls(web), *state.controls],
        gateways=gateway_controls(web),
        listeners=state.listeners,
        keys=state.keys,
        now=web.services.board.snapshot()["time"],
    )
