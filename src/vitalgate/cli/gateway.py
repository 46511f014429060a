"""`vitalgate gateway init|run`."""

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer

from vitalgate.cli.common import ConfigOption, gateway_settings, open_home, said_in_words, write_template
from vitalgate.cli.output import JsonFlag, document, note, warn
from vitalgate.gateway import logs
from vitalgate.gateway.runtime import GatewayRuntime
from vitalgate.net.stacks import STACKS

app = typer.Typer(
    help="The gateway: listens to devices, keeps what they say, delivers it.",
    no_args_is_help=True,
    add_completion=False,
)

TEMPLATE = """\
# vitalgate gateway. Check with: vitalgate config check {name}
schema = 1

[storage]
data = "data"     # spool, identity, bindings; back this up
state = "state"   # send counters and session keys; never put this into a backup

[master_key]
file = "keys/master.key"   # made at the first start; keep a copy apart from the data

[uplink]
cloud = "127.0.0.1:5683"
stack = "coap-oscore"

[web]
listen = "127.0.0.1:9600"   # /metrics and /ready

# One table a port that a device is attached to; see `vitalgate device kinds`.
# [[device]]
# kind = "ivy450c"
# port = "/dev/ttyUSB0"
#
# [[device]]
# kind = "hl7"
# listen = "127.0.0.1:2575"
# allow = ["127.0.0.1/32"]   # who may dial it
"""


@app.command("init")
def init(folder: Annotated[Path, typer.Argument(help="Folder for gateway.toml, data, state, key.")]) -> None:
    """Write a configuration to start from."""
    path = folder / "gateway.toml"
    write_template(path, TEMPLATE, f"vitalgate enroll gateway --config {path} --code @FILE")


@app.command("run")
def run(config: ConfigOption, json: JsonFlag = False) -> None:
    """Run until interrupted."""
    settings = gateway_settings(config)
    logs.configure(settings.log.level, settings.log.file)
    stack = STACKS[settings.uplink.stack]
    if not stack.protects:
        warn(f"{stack.title}. {stack.words}")

    async def serve() -> dict[str, object]:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        runtime = GatewayRuntime(settings, open_home(settings.storage, settings.master_key))
        try:
            await runtime.start()
            note(f"delivering to {settings.uplink.cloud[0]}:{settings.uplink.cloud[1]} by {stack.slug}")
            for name, address in runtime.listeners.items():
                note(f"{name}: {address}")
            await stop.wait()
        finally:
            await runtime.stop()
        return runtime.status()

    with said_in_words():
        status = asyncio.run(serve())
    if json:
        document(status)
