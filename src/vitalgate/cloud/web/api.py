"""Read-only JSON for signed-in programs and scripts, and what machines ask: health, readiness, metrics."""

import hmac
from dataclasses import asdict
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from vitalgate.cloud.web.access import Call, Web, is_loopback
from vitalgate.cloud.web.events import EventStream, seen, to_json, view_of
from vitalgate.cloud.web.pages import GAPS_SHOWN, device_on_board, gateway_controls, own_controls
from vitalgate.net.exposition import CONTENT_TYPE, exposition


def answer(value: Any, status: int = 200) -> Response:
    """JSON, safe to be sniffed as anything."""
    return Response(to_json(value), status, media_type="application/json")


def board(web: Web, call: Call) -> Response:
    """`LiveBoard.snapshot`, as far as the user may see it."""
    return answer(seen(web.services.board.snapshot(), view_of(call.signed_in.user)))


def devices(web: Web, call: Call) -> Response:
    """The devices on the board, without their waveforms."""
    rows = seen(web.services.board.snapshot(), view_of(call.signed_in.user))["devices"]
    return answer({"devices": [{key: value for key, value in row.items() if key != "waves"} for row in rows]})


def device(web: Web, call: Call) -> Response:
    """One device on the board, with the last seconds of its waveforms."""
    row = device_on_board(web, call, call.request.path_params["urn"])
    if row is None:
        raise HTTPException(404, "There is no such device.")
    return answer(row)


def gaps(web: Web, call: Call) -> Response:
    """The newest gaps of the store; epochs are text, since they have 64 bits."""
    rows = web.services.store.read.gaps(limit=GAPS_SHOWN)
    return answer({"gaps": [asdict(row) | {"epoch": str(row.epoch)} for row in rows]})


def quarantine(web: Web, call: Call) -> Response:
    """The devices that are not enrolled."""
    return answer({"quarantine": [asdict(row) for row in web.services.store.read.quarantine()]})


def security(web: Web, call: Call) -> Response:
    """What the security page shows."""
    state = web.services.security()
    controls = [
        {"name": row.name, "level": row.level.value, "words": row.words}
        for row in (*own_controls(web), *state.controls)
    ]
    return answer(
        {
            "controls": controls,
            "gateways": [row | {"protection": asdict(row["protection"])} for row in gateway_controls(web)],
            "listeners": [asdict(row) for row in state.listeners],
            "keys": [asdict(row) for row in state.keys],
        }
    )


def session(web: Web, call: Call) -> Response:
    """Who is signed in, until when, and whether there is room for one more screen."""
    mine = call.signed_in
    return answer(
        {
            "user": mine.user.name,
            "role": mine.user.role.value,
            "expires_at": mine.expires_at,
            "streams_free": web.hub.has_room(mine),
        }
    )


def events(web: Web, call: Call) -> EventStream:
    """The event stream, from the board's version in ``Last-Event-ID`` or ``since`` on, else from the whole board."""
    mine = call.signed_in
    told = call.request.headers.get("last-event-id") or call.request.query_params.get("since", "")
    since = int(told) if told.isascii() and told.isdigit() and len(told) < 20 else -1

    async def alive() -> bool:
        fresh = await web.session_of(call.request)
        return fresh is not None and view_of(fresh.user) == view_of(mine.user)

    return EventStream(web.hub, mine, view_of(mine.user), since, alive)


def health(web: Web, call: Call) -> Response:
    """The process answers."""
    return answer({"status": "ok"})


def ready(web: Web, call: Call) -> Response:
    """200 while every check holds, else 503; says which, and nothing else."""
    checks = {check.name: check.ok for check in web.services.checks()}
    good = all(checks.values())
    return answer({"status": "ready" if good else "not ready", "checks": checks}, 200 if good else 503)


def metrics(web: Web, call: Call) -> Response:
    """Counters and gauges for Prometheus: over loopback, or with the token as a bearer."""
    wanted = web.settings.metrics_token
    given = call.request.headers.get("authorization", "")
    bearer = bool(wanted) and hmac.compare_digest(given.encode(), f"Bearer {wanted}".encode())
    if not bearer and not is_loopback(call.request):
        raise HTTPException(
            401, "Metrics are for loopback, or for holders of the token.", {"WWW-Authenticate": "Bearer"}
        )
    text = exposition((*web.services.counters, web.counters), web.services.gauges())
    return Response(text, media_type=CONTENT_TYPE)
