"""`vitalgate coap etsi`: the ETSI CoAP#4 test cases, our client against any server."""

import asyncio
from typing import Annotated, Any

import typer

from vitalgate.cli.output import FAILED, JsonFlag, document, errors, fail, say, wrong
from vitalgate.coap.parameters import Parameters
from vitalgate.coap.uri import UriError, parse_uri
from vitalgate.net.etsi.ours import OurClient
from vitalgate.net.etsi.runner import Outcome, run_cases
from vitalgate.net.etsi.trial import CASES
from vitalgate.net.udp import AddressError


def etsi(
    target: Annotated[str, typer.Option(help="The server: coap://HOST[:PORT].", show_default=False)],
    only: Annotated[str, typer.Option(help="Only these cases: their ids with commas between.")] = "",
    name: Annotated[
        list[str] | None,
        typer.Option(help="What the server calls a resource: RESOURCE=PATH[?QUERY], for example separate=async?2."),
    ] = None,
    ack_timeout: Annotated[
        float, typer.Option(min=0.01, help="ACK_TIMEOUT of the client, and of the server as far as OBS_05 waits.")
    ] = 2.0,
    timeout: Annotated[float, typer.Option(min=0.1, help="Wait so long for a response, in seconds.")] = 30.0,
    wire: Annotated[bool, typer.Option("--wire", help="Show the datagrams of what failed.")] = False,
    json: JsonFlag = False,
) -> None:
    """Run the ETSI CoAP#4 test cases with our client against a server, and judge them by what is on the wire.

    The server must have the resources of the test descriptions, which the cases change and delete. Exit status 1 where
    a case failed.
    """
    try:
        uri = parse_uri(target)
    except UriError as error:
        wrong(str(error))
    if uri.scheme != "coap":
        wrong(f"--target {target!r}: the test cases are for coap")
    chosen = [each.strip().upper() for each in only.split(",") if each.strip()]
    unknown = [each for each in chosen if each not in CASES]
    if unknown:
        wrong(f"--only: {', '.join(unknown)} is no case; they are {', '.join(CASES)}")
    names = {}
    for each in name or ():
        resource, equals, path = each.partition("=")
        if not equals:
            wrong(f"--name {each!r}: write RESOURCE=PATH")
        names[resource] = path.removeprefix("/")
    parameters = Parameters(ack_timeout=ack_timeout)
    try:
        with errors.status("testing"):
            outcomes = asyncio.run(
                run_cases(uri.host, uri.port, lambda: OurClient(parameters, timeout), only=chosen, names=names,
                          parameters=parameters)
            )  # fmt: skip
    except AddressError as error:
        fail(str(error))
    if json:
        document(_summary(target, outcomes))
    else:
        _show(outcomes, wire=wire)
    if any(each.verdict == "fail" for each in outcomes):
        raise typer.Exit(FAILED)


def _summary(target: str, outcomes: list[Outcome]) -> dict[str, Any]:
    count = {verdict: sum(each.verdict == verdict for each in outcomes) for verdict in ("pass", "fail", "left out")}
    return {
        "target": target,
        "passed": count["pass"],
        "failed": count["fail"],
        "left_out": count["left out"],
        "cases": [each.document() for each in outcomes],
    }


def _show(outcomes: list[Outcome], *, wire: bool) -> None:
    for each in outcomes:
        say(f"{each.verdict:<9}{each.case.id}  {each.case.objective} ({each.case.sections})")
        if each.verdict != "fail":
            continue
        for check in each.checks:
            if not check.passed:
                say(f"         failed: {check.text}" + (f"; seen: {check.seen}" if check.seen else ""))
        for line in each.wire if wire else ():
            say(f"         {line}")
    passed = sum(each.verdict == "pass" for each in outcomes)
    say(f"{passed} of {len(outcomes)} passed")
