"""`vitalgate bench NAME`."""

from typing import Annotated

import typer

from vitalgate.cli.coapbench import FULL, QUICK, BenchError, bench_coap
from vitalgate.cli.espbench import bench_esp
from vitalgate.cli.ingestbench import bench_ingest
from vitalgate.cli.output import JsonFlag, document, errors, fail, say

app = typer.Typer(
    help="Benchmarks, beside the floor they stand on, in one run.", no_args_is_help=True, add_completion=False
)


@app.command("ingest")
def ingest(
    quick: Annotated[bool, typer.Option("--quick", help="End within a minute.")] = False,
    json: JsonFlag = False,
) -> None:
    """Observations from decoded to committed through the whole secured path, beside bare sqlite3."""
    with errors.status("measuring"):
        result = bench_ingest(observations=20_000 if quick else 100_000, rounds=3 if quick else 5)
    if json:
        document(result)
        return
    for name, value in result.items():
        say(f"{name:<28} {value}")


@app.command("coap")
def coap(
    quick: Annotated[bool, typer.Option("--quick", help="End within a minute.")] = False,
    json: JsonFlag = False,
) -> None:
    """CoAP requests a second: bare echo, aiocoap, libcoap and ours, each on one core, under the same load."""
    try:
        with errors.status("measuring"):
            result = bench_coap(QUICK if quick else FULL)
    except BenchError as error:
        fail(str(error))
    if json:
        document(result)
        return
    for name, value in result.items():
        shown = ", ".join(f"{key} {each}" for key, each in value.items()) if isinstance(value, dict) else value
        say(f"{name:<28} {shown}")


@app.command("esp")
def esp(
    quick: Annotated[bool, typer.Option("--quick", help="End within a minute.")] = False,
    json: JsonFlag = False,
) -> None:
    """ESP packets built and opened a second by the transforms alone, beside the bare AEAD call."""
    with errors.status("measuring"):
        result = bench_esp(rounds=40 if quick else 100, number=400 if quick else 1000)
    if json:
        document(result)
        return
    for name, sizes in result["suites"].items():
        for size, found in sizes.items():
            say(f"{name:<32} {size:>5}  " + ", ".join(f"{key} {value}" for key, value in found.items()))
    say(f"ratio_to_aead {result['ratio_to_aead']}")
