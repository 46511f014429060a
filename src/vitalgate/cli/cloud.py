"""`vitalgate cloud init|run|code|link`."""

import asyncio
import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from vitalgate.cli.common import ConfigOption, cloud_settings, open_home, said_in_words, write_template
from vitalgate.cli.output import JsonFlag, document, note, say, warn, wrong
from vitalgate.cloud.enrolment import create_code
from vitalgate.cloud.runtime import CloudAddresses, CloudRuntime, open_store
from vitalgate.cloud.users import Users
from vitalgate.cloud.web.admin import sign_in_address
from vitalgate.gateway import logs
from vitalgate.gateway.home import running

app = typer.Typer(
    help="The cloud: takes deliveries, stores them, shows them.", no_args_is_help=True, add_completion=False
)

TEMPLATE = """\
# vitalgate cloud. Check with: vitalgate config check {name}
schema = 1

[storage]
data = "data"     # what must survive; back this up
state = "state"   # send counters; never put this into a backup

[master_key]
file = "keys/master.key"   # made at the first start; keep a copy apart from the data

[coap]
listen = "127.0.0.1:5683"     # where gateways deliver
stacks = ["coap-oscore"]      # accepted protections

[dashboard]
listen = "127.0.0.1:8080"     # any other address needs certificate and private_key
"""


@app.command("init")
def init(folder: Annotated[Path, typer.Argument(help="Folder for cloud.toml, data, state, key.")]) -> None:
    """Write a configuration to start from."""
    path = folder / "cloud.toml"
    write_template(path, TEMPLATE, f"vitalgate cloud run --config {path}")


@app.command("run")
def run(config: ConfigOption, json: JsonFlag = False) -> None:
    """Run until interrupted."""
    settings = cloud_settings(config)
    logs.configure(settings.log.level, settings.log.file)

    async def serve() -> CloudAddresses:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        runtime = CloudRuntime(settings, open_home(settings.storage, settings.master_key))
        try:
            addresses = runtime.start()
            if settings.coap.allows_unprotected:
                warn("UNPROTECTED deliveries are accepted: anyone on the way can read, change and invent readings")
            note(f"deliveries: coap://{addresses.coap[0]}:{addresses.coap[1]}   dashboard: {addresses.dashboard}")
            if addresses.first_link:
                note(f"first sign-in (one use): {addresses.first_link}")
            note("information only: not a primary alarm system")
            await stop.wait()
        finally:
            runtime.stop()
        return addresses

    with said_in_words():
        addresses = asyncio.run(serve())
    if json:
        document({"coap": f"{addresses.coap[0]}:{addresses.coap[1]}", "dashboard": addresses.dashboard})


@app.command("code")
def code(
    config: ConfigOption,
    gateway: Annotated[str, typer.Option(help="Name the gateway gets; chosen by the cloud when left out.")] = "",
    replaces: Annotated[bool, typer.Option("--replaces", help="May take the name over from an enrolled one.")] = False,
    minutes: Annotated[float, typer.Option(min=1, max=1440, help="How long the code can be used.")] = 15,
    json: JsonFlag = False,
) -> None:
    """Make a one-time code for `vitalgate enroll gateway`."""
    settings = cloud_settings(config)
    with said_in_words():
        store = open_store(open_home(settings.storage, settings.master_key))
        try:
            made = create_code(
                store.enrolment("command line"), time.time(), gateway=gateway, replaces=replaces, life=minutes * 60
            )
        finally:
            store.close()
    if json:
        document({"code": made.text, "id": made.code_id, "gateway": made.gateway, "expires_at": made.expires_at})
        return
    say(made.text)
    note(f"good once, for {minutes:.0f} minutes: vitalgate enroll gateway --config gateway.toml --code @FILE")


@app.command("link")
def link(
    config: ConfigOption,
    user: Annotated[str, typer.Option(help="Whose link; the first administrator's when left out.")] = "",
    json: JsonFlag = False,
) -> None:
    """Make a one-time sign-in link for the dashboard."""
    settings = cloud_settings(config)
    with said_in_words():
        store = open_store(open_home(settings.storage, settings.master_key))
        try:
            users = Users(store.database, store.audit)
            if user:
                found = users.find(user)
                if found is None:
                    wrong(f"no user is called {user!r}")
                token: str | None = users.create_link(found.id, actor="command line")
            else:
                token = users.first_link()
        finally:
            store.close()
    if token is None:
        wrong("the first administrator has a password: name a user with --user")
    now = running(settings.storage.state)
    origin = now.listeners.get("web", "") if now else ""
    if not origin:
        host, port = settings.dashboard.listen
        origin = f"{'https' if settings.dashboard.certificate else 'http'}://{host}:{port}"
    address = sign_in_address(origin, token)
    if json:
        document({"link": address})
    else:
        say(address)
