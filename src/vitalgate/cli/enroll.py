"""`vitalgate enroll gateway|device|list|remove`."""

import asyncio
import os
import time
from typing import Annotated

import typer

from vitalgate.cli.common import ConfigOption, gateway_settings, open_home, said_in_words
from vitalgate.cli.output import JsonFlag, document, fail, say, wrong
from vitalgate.cli.secret import SecretArgumentError, read_secret
from vitalgate.devices.contract import Transport
from vitalgate.devices.registry import KINDS
from vitalgate.gateway.bindings import BindingError, BindingFile, DeviceBinding
from vitalgate.gateway.code import CodeError, EnrolmentCode
from vitalgate.gateway.enrolment import enrolment
from vitalgate.gateway.home import BINDINGS, Home
from vitalgate.gateway.identity import fingerprint_text
from vitalgate.gateway.keyexchange import KeyExchangeError, exchange_keys
from vitalgate.gateway.settings import GatewaySettings
from vitalgate.gateway.vault import GatewayVault
from vitalgate.vitals.urn import UrnError, from_eui, parse

app = typer.Typer(help="Give gateways and devices an identity.", no_args_is_help=True, add_completion=False)


@app.command("gateway")
def gateway(
    config: ConfigOption,
    code: Annotated[str, typer.Option(help="The one-time code from `vitalgate cloud code`: @FILE or env:NAME.")],
    seconds: Annotated[float, typer.Option(min=1, help="How long to try.")] = 60.0,
    json: JsonFlag = False,
) -> None:
    """Enrol this gateway at the cloud that its configuration names. Its private key is made here and never leaves."""
    settings = gateway_settings(config)
    try:
        parsed = EnrolmentCode.from_text(read_secret(code))
    except (SecretArgumentError, CodeError) as error:
        wrong(f"--code: {error}")
    with said_in_words():
        home = open_home(settings.storage, settings.master_key)
        vault = GatewayVault(home.keys, home.session_keys)
        with home.sequences() as sequences:
            try:
                established = asyncio.run(exchange_keys(settings.uplink.cloud, enrolment(vault, parsed), seconds))
            except KeyExchangeError as error:
                fail(str(error))
            vault.adopt(established, sequences)
    identity, cloud = fingerprint_text(vault.identity().public), fingerprint_text(established.cloud)
    if json:
        document({"gateway": established.gateway, "identity": identity, "cloud": cloud})
        return
    say(f"enrolled as {established.gateway}")
    say(f"this gateway's key {identity}; the cloud's key {cloud} (pinned)")


def _bindings(settings: GatewaySettings) -> BindingFile:
    home: Home = open_home(settings.storage, settings.master_key)
    return BindingFile(home.data / BINDINGS, home.keys)


def _own_name() -> str:
    """A URN for a device without one: a random EUI-64 marked as locally administered (RFC 9039 section 4.1)."""
    eui = bytearray(os.urandom(8))
    eui[0] = eui[0] & 0xFC | 0x02
    return str(from_eui(bytes(eui)))


@app.command("device")
def device(
    config: ConfigOption,
    kind: Annotated[str, typer.Option(help="A row of `vitalgate device kinds`.")],
    port: Annotated[str, typer.Option(help="The serial port, or HOST:PORT of the listener, as in the configuration.")],
    serial: Annotated[str, typer.Option(help="Serial number (or EUI-64) its messages must state.")] = "",
    source: Annotated[list[str] | None, typer.Option(help="Networks it may dial from (repeatable).")] = None,
    urn: Annotated[str, typer.Option(help="Its name, urn:dev:...; made when left out.")] = "",
    label: Annotated[str, typer.Option(help="What people call it.")] = "",
    patient: Annotated[str, typer.Option(help="Reference to the patient it is on: @FILE or env:NAME.")] = "",
    location: Annotated[str, typer.Option(help="Where it stands.")] = "",
    demo: Annotated[bool, typer.Option("--demo", help="Mark everything it says as demonstration data.")] = False,
    json: JsonFlag = False,
) -> None:
    """Bind a port (and a serial number or an address) to an identity. A running gateway takes it up within seconds."""
    settings = gateway_settings(config)
    row = KINDS.get(kind)
    if row is None:
        wrong(f"--kind: {kind!r} is none of {', '.join(KINDS)}")
    if serial and not row.states_serial:
        wrong(f"--serial: a {kind} states no serial number, so one with it would never be heard; leave it out")
    if source and row.transport is Transport.SERIAL:
        wrong(f"--source: a {kind} is on a serial line, which has no addresses; leave it out")
    name = f"tcp:{port}" if row.transport is Transport.TCP_LISTEN and not port.startswith("tcp:") else port
    if not any(entry.kind == kind and entry.name == name for entry in settings.device):
        known = ", ".join(f"{entry.kind} on {entry.name}" for entry in settings.device) or "none"
        wrong(f"--port: the configuration has no {kind} on {name} (it has: {known}); add a [[device]] table for it")
    try:
        binding = DeviceBinding(
            urn=str(parse(urn)) if urn else _own_name(),
            kind=kind,
            port=name,
            serial=serial,
            sources=tuple(source or ()),
            patient=read_secret(patient) if patient else "",
            location=location,
            demo=demo,
            label=label,
            enrolled_at=time.time(),
        )
        with said_in_words():
            _bindings(settings).put(binding)
    except SecretArgumentError as error:
        wrong(f"--patient: {error}")
    except (UrnError, BindingError) as error:
        wrong(str(error))
    if json:
        document({"device": binding.urn, "kind": kind, "port": name})
    else:
        say(f"enrolled {binding.urn} ({kind} on {name})")


@app.command("list")
def list_devices(config: ConfigOption, json: JsonFlag = False) -> None:
    """The devices that are enrolled here."""
    settings = gateway_settings(config)
    with said_in_words():
        found = list(_bindings(settings).table)
    if json:
        fields = ("kind", "port", "serial", "sources", "label", "demo")
        document({"devices": [{"device": b.urn} | {name: getattr(b, name) for name in fields} for b in found]})
        return
    for b in found:
        narrowed = " ".join((b.serial, *b.sources)).strip() or "-"
        mark = "  (demonstration)" if b.demo else ""
        say(f"{b.urn:<34} {b.kind:<10} {b.port:<28} {narrowed:<22} {b.label}{mark}")


@app.command("remove")
def remove(
    config: ConfigOption,
    urn: Annotated[str, typer.Argument(help="The device's name, as `enroll list` shows it.")],
    json: JsonFlag = False,
) -> None:
    """Unbind a device: what it says from now on is quarantined."""
    settings = gateway_settings(config)
    with said_in_words():
        if not _bindings(settings).remove(urn):
            wrong(f"no device {urn!r} is enrolled here; see `vitalgate enroll list`")
    if json:
        document({"removed": urn})
    else:
        say(f"removed {urn}")
