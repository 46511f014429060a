"""`vitalgate device simulate KIND`, `vitalgate device kinds`."""

import asyncio
import contextlib
import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from vitalgate.cli.output import JsonFlag, document, fail, note, say, wrong
from vitalgate.devices.contract import Faults, Transport
from vitalgate.devices.recordings import RecordingError
from vitalgate.devices.registry import KINDS
from vitalgate.devices.simulate import PtyLine, SimulatorReport, SimulatorRunner

app = typer.Typer(
    help="Legacy devices: which are understood, and simulators of them.", no_args_is_help=True, add_completion=False
)


@app.command("kinds")
def kinds(json: JsonFlag = False) -> None:
    """List the device protocols that are understood."""
    rows = [
        {"kind": row.slug, "title": row.title, "transport": row.transport.value, "two_way": row.two_way}
        for row in KINDS.values()
    ]
    if json:
        document({"kinds": rows})
        return
    for row in rows:
        say(f"{row['kind']:<10} {row['title']} ({row['transport']}, {'two-way' if row['two_way'] else 'one-way'})")


FAULTS = ", ".join(Faults.__dataclass_fields__)


def _faults(text: str) -> Faults:
    values: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        name, equals, number = part.partition("=")
        if name not in Faults.__dataclass_fields__ or not equals:
            wrong(f"--faults: {part!r} is none of {FAULTS}; write for example drop=0.001,garbage=0.05")
        try:
            values[name] = float(number)
        except ValueError:
            wrong(f"--faults: {part!r}: {number!r} is not a number")
        if not 0 <= values[name] <= (3600 if name == "stall_seconds" else 1):
            wrong(f"--faults: {part!r}: a probability lies from 0 to 1")
    return Faults(**values)


@app.command("simulate")
def simulate(
    kind: Annotated[str, typer.Argument(help="A row of `vitalgate device kinds`.")],
    link: Annotated[Path | None, typer.Option(help="Serial devices: where to put the link to the terminal.")] = None,
    connect: Annotated[str, typer.Option(help="Networked devices: HOST:PORT of the gateway's listener.")] = "",
    seconds: Annotated[float | None, typer.Option(min=0.1, help="How long; until interrupted when left out.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is random in the simulation.")] = 1,
    faults: Annotated[str, typer.Option(help=f"Faults as NAME=VALUE,...: {FAULTS}.")] = "",
    journal: Annotated[Path | None, typer.Option(help="Append the hash of every frame said to this file.")] = None,
    json: JsonFlag = False,
) -> None:
    """Play real recordings in a device's own wire protocol. Demonstration data, never a patient's."""
    row = KINDS.get(kind)
    if row is None:
        wrong(f"{kind!r} is none of {', '.join(KINDS)}; see `vitalgate device kinds`")
    host, _, port = connect.rpartition(":")
    if row.transport is Transport.SERIAL and (link is None or connect):
        wrong(f"{kind} is a serial device: give --link PATH (and no --connect)")
    if row.transport is Transport.TCP_LISTEN and (not host or not port.isdigit() or link is not None):
        wrong(f"{kind} dials the gateway: give --connect HOST:PORT (and no --link)")
    try:
        simulator = row.make_simulator(time.monotonic(), time.time, _faults(faults), seed)
    except RecordingError as error:
        fail(str(error))
    note(f"{row.title}: demonstration data from recordings, on {link or connect}")

    async def play() -> SimulatorReport:
        runner = SimulatorRunner(simulator, journal)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        started = time.monotonic()
        playing = asyncio.create_task(
            runner.run(
                line=PtyLine(link) if link else None,
                connect=None if link else (host.strip("[]"), int(port)),
                seconds=seconds,
            )
        )
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({playing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if playing.done():
            return playing.result()
        playing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await playing
        return SimulatorReport(runner.frames, time.monotonic() - started)

    try:
        report = asyncio.run(play())
    except OSError as error:
        # the link, or the journal
        remedy = "" if isinstance(error, FileExistsError) else "; is the folder there and writable?"
        fail(f"{error.filename or link or connect}: {error.strerror or error}{remedy}")
    if json:
        document({"kind": kind, "frames": report.frames, "seconds": round(report.seconds, 3)})
    else:
        say(f"{kind}: {report.frames} frames in {report.seconds:.1f} s")
