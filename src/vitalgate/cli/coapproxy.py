"""`vitalgate coap proxy`: forwards to what it is told to allow, and to nothing else."""

import asyncio
import os
import signal
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from vitalgate.cli.output import JsonFlag, document, fail, note, wrong
from vitalgate.coap.parameters import Limits
from vitalgate.coap.proxyevents import ProxyLimits
from vitalgate.coap.proxypolicy import Policy, Rule, RuleError, parse_rule
from vitalgate.coap.proxyrequest import ReverseRoute, RouteError, parse_route
from vitalgate.counters import Counters
from vitalgate.net.coap import is_loopback
from vitalgate.net.coapproxy import CoapProxy
from vitalgate.net.udp import AddressError

if TYPE_CHECKING:
    from vitalgate.net.httpproxy import HttpAsker, HttpFront

Bind = Annotated[str, typer.Option(help="HOST:PORT for CoAP clients; port 0 takes a free one.")]
Http = Annotated[str, typer.Option(help="HOST:PORT for HTTP clients, who ask for /hc/coap://HOST/PATH (RFC 8075).")]
HttpNames = Annotated[
    list[str] | None, typer.Option("--http-name", help="A host name by which HTTP clients know it. Repeatable.")
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        help="SCHEME://HOST[:PORT] (coap, http, https; port * for any), SCHEME://CIDR or CIDR. Repeatable. Loopback, "
        "private and link-local addresses must be named by address or network."
    ),
]
Reverse = Annotated[list[str] | None, typer.Option(help="/PREFIX=URI: serve what is below URI there. Repeatable.")]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify/--no-verify", help="Forward only for addresses that have shown by Echo to be theirs (RFC 9175)."
    ),
]


def address_of(option: str, text: str) -> tuple[str, int]:
    """HOST:PORT of an option. Exit 2 where it is none."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    if not host or not (port.isascii() and port.isdigit() and int(port) < 65536):
        wrong(f"{option} {text!r}: write HOST:PORT, for example 127.0.0.1:5683")
    return host, int(port)


def shown(address: tuple[str, int]) -> str:
    """An address as a URI has it."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def proxy(
    bind: Bind = "127.0.0.1:5683",
    http: Http = "",
    http_name: HttpNames = None,
    allow: Allow = None,
    reverse: Reverse = None,
    verify: Verify = True,
    wait: Annotated[float, typer.Option(min=0.1, help="Seconds until a request is answered 5.04.")] = 100.0,
    forwards: Annotated[int, typer.Option(min=1, help="Requests under way at once; beyond, 5.03.")] = 1024,
    name: Annotated[str, typer.Option(help="What it calls itself in 5.08 and Via; else a random name.")] = "",
    json: JsonFlag = False,
) -> None:
    """Forward requests of CoAP and HTTP clients to the targets that --allow and --reverse name, with a cache.

    Nothing is allowed that is not named: without --allow and --reverse every request is denied (4.03). With --json the
    counters are printed when it ends.
    """
    try:
        rules = [parse_rule(text) for text in allow or ()]
        routes = [parse_route(text) for text in reverse or ()]
    except (RuleError, RouteError) as error:
        wrong(str(error))
    if " " in name:
        wrong("--name: a name without spaces")
    at = address_of("--bind", bind)
    http_at = address_of("--http", http) if http else None
    if (http_at is not None or any(rule.scheme in ("http", "https") for rule in rules)) and find_spec("h11") is None:
        wrong("HTTP needs the package h11, which comes with vitalgate[cloud]")
    counters = Counters()
    limits = ProxyLimits(forwards=forwards, wait=wait)
    try:
        asyncio.run(_serve(at, http_at, http_name or [], rules, routes, limits, counters, name, verify))
    except AddressError as error:
        fail(str(error))
    except KeyboardInterrupt:
        pass  # before the signal handlers were there
    if json:
        document({"counters": dict(sorted(counters.items()))})


async def _serve(
    at: tuple[str, int],
    http_at: tuple[str, int] | None,
    names: list[str],
    rules: list[Rule],
    routes: list[ReverseRoute],
    limits: ProxyLimits,
    counters: Counters,
    name: str,
    verify: bool,
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    name = name or f"vitalgate-{os.urandom(4).hex()}"
    to_http = any(rule.scheme != "coap" for rule in rules) and find_spec("h11") is not None
    front: HttpFront | None = None
    async with CoapProxy(
        Policy(rules), routes=routes, proxy_limits=limits, limits=Limits(deferred=max(4096, limits.forwards)),
        http=_asker(counters, name) if to_http else None, counters=counters, verify_addresses=verify, name=name,
    ) as proxying:  # fmt: skip
        bound = proxying.bind(*at)
        note(f"proxy at coap://{shown(bound)}/")
        if http_at is not None:
            front = _front(proxying, names)
            note(f"proxy at http://{shown(await front.bind(*http_at))}/hc/")
        if not rules and not routes:
            note("nothing is allowed: every request is denied; name targets with --allow or --reverse")
        if not verify and not is_loopback(bound):
            note("anyone can have this proxy send to others in the name of addresses that are not theirs (--no-verify)")
        await stop.wait()
        if front is not None:
            front.close()


def _asker(counters: Counters, name: str) -> "HttpAsker":
    from vitalgate.net.httpproxy import HttpAsker  # noqa: PLC0415  # its package may not be there

    return HttpAsker(counters=counters, name=name)


def _front(proxying: CoapProxy, names: list[str]) -> "HttpFront":
    from vitalgate.net.httpproxy import HttpFront  # noqa: PLC0415  # the same

    return HttpFront(proxying, names=names)
