"""`vitalgate demo`: everything at once on loopback, without root."""

import asyncio
import enum
import signal
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from vitalgate.cli.common import said_in_words
from vitalgate.cli.demonstration import Demonstration, DemonstrationError, Progress
from vitalgate.cli.output import FAILED, JsonFlag, document, errors, fail, note, say, warn, wrong
from vitalgate.devices.recordings import RecordingError
from vitalgate.gateway.keyexchange import KeyExchangeError
from vitalgate.net.stacks import DEFAULT_OF, STACKS, dtls_slug

app = typer.Typer(add_completion=False)


class Security(enum.StrEnum):
    """Values of `--security`."""

    NOSEC = "nosec"
    OSCORE = "oscore"
    DTLS = "dtls"


class DtlsVersion(enum.StrEnum):
    """Values of `--dtls-version`."""

    V12 = "1.2"
    V13 = "1.3"


class DtlsMode(enum.StrEnum):
    """Values of `--dtls-mode`."""

    RPK = "rpk"
    PSK = "psk"


def _line(progress: Progress) -> str:
    totals, latency = progress.totals, progress.latency
    rate = totals.observations / progress.seconds if progress.seconds else 0.0
    p95 = f"{latency.p95 * 1000:.0f} ms" if latency.count else "-"  # the store writes latencies down every few seconds
    return (
        f"{progress.seconds:6.0f} s   {totals.observations:>8} observations ({rate:.0f}/s)   "
        f"{totals.samples:>9} samples   p95 {p95}   gaps {totals.device_gaps}"
    )


def _table(result: dict[str, Any]) -> Table:
    table = Table(title="vitalgate demo", show_header=False)
    for name, value in result.items():
        text = ", ".join(f"{key} {number:g}" for key, number in value.items()) if isinstance(value, dict) else value
        table.add_row(name.replace("_", " "), str(text))
    return table


def _slug(security: Security, version: DtlsVersion | None, mode: DtlsMode | None, stack: str) -> str:
    """The stack that is meant."""
    if version is not None or mode is not None:
        if stack or security is not Security.DTLS:
            wrong("--dtls-version and --dtls-mode go with --security dtls alone")
        return dtls_slug((version or DtlsVersion.V13).value, (mode or DtlsMode.RPK).value)
    slug = stack or DEFAULT_OF[security.value]
    if slug not in STACKS:
        wrong(f"--stack: {slug!r} is none of {', '.join(STACKS)}")
    return slug


@app.command()
def demo(
    security: Annotated[Security, typer.Option(help="How the way to the cloud is protected.")] = Security.OSCORE,
    dtls_version: Annotated[DtlsVersion | None, typer.Option(help="Of --security dtls; 1.3 when left out.")] = None,
    dtls_mode: Annotated[
        DtlsMode | None,
        typer.Option(help="How both ends show who they are under --security dtls: raw public keys when left out."),
    ] = None,
    stack: Annotated[str, typer.Option(help="A protection stack by its slug, instead of --security.")] = "",
    seconds: Annotated[float | None, typer.Option(min=1, help="How long; until interrupted when left out.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Keep everything here (else a temporary folder).")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The dashboard's port; free one when 0.")] = 0,
    seed: Annotated[int, typer.Option(help="Of everything random in the simulated devices.")] = 1,
    json: JsonFlag = False,
) -> None:
    """Cloud, gateway and three simulated devices that replay real recordings, with a live dashboard."""
    slug = _slug(security, dtls_version, dtls_mode, stack)
    if not STACKS[slug].protects:
        warn(f"{STACKS[slug].title}. {STACKS[slug].words}. Never use this with patients.")

    async def play() -> dict[str, Any]:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        demonstration = Demonstration(slug, folder=folder, dashboard_port=port, seed=seed)
        try:
            with errors.status("starting cloud, gateway and devices"):
                await demonstration.start()
            note(f"dashboard: {demonstration.link}   (one use; then the session holds)")
            note(f"protection: {STACKS[slug].title}. All data is demonstration data from recordings.")
            note("Information only: not a primary alarm system. Ctrl-C ends the demo with a summary.")
            if errors.is_terminal:
                with Live("", console=errors, refresh_per_second=4, transient=True) as live:
                    await demonstration.run(stop, seconds, lambda progress: live.update(_line(progress)))
            else:
                await demonstration.run(stop, seconds, lambda progress: note(_line(progress)))
            with errors.status("letting the spool drain, counting"):
                return await demonstration.finish()
        finally:
            await demonstration.clean_up()

    with said_in_words():
        try:
            result = asyncio.run(play())
        except (DemonstrationError, KeyExchangeError, RecordingError) as error:
            fail(str(error))
    if json:
        document(result)
    else:
        errors.print(_table(result))
        say(f"lost {result['lost']}, duplicated {result['duplicated']}, device gaps {result['device_gaps']}")
    if result["lost"] or result["duplicated"]:
        raise typer.Exit(FAILED)
