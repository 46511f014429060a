"""`vitalgate doctor`: why is something silent, and what would help."""

import os
import socket
import ssl
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from vitalgate.cli.common import cloud_settings, gateway_settings, open_home
from vitalgate.cli.keys import is_cloud
from vitalgate.cli.output import FAILED, JsonFlag, document, say
from vitalgate.cloud.identity import load_cloud_identity
from vitalgate.cloud.settings import CloudSettings
from vitalgate.devices.contract import Transport
from vitalgate.devices.registry import KINDS
from vitalgate.gateway.bindings import BindingFile
from vitalgate.gateway.home import BINDINGS, Home, HomeError, Running, running
from vitalgate.gateway.identity import fingerprint_text
from vitalgate.gateway.secrets import SecretsError
from vitalgate.gateway.settings import Device, GatewaySettings
from vitalgate.gateway.vault import GatewayVault, VaultError
from vitalgate.net.stacks import STACKS
from vitalgate.net.udp import AddressError, resolve

app = typer.Typer(add_completion=False)

SECONDS = 3.0
"""How long a page of our own process may take."""

PLACE = "FILE.toml"
"""Stands in a remedy for the configuration that doctor was given."""

SILENT = {
    Transport.SERIAL: "is it on, set to send, the cable a null modem?",
    Transport.TCP_LISTEN: "is it on, set to dial this address and port, its own address within `allow`?",
}
"""What to look at where a device has sent nothing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. ``state``: 'good', 'warning' or 'bad'; ``remedy`` says what to do unless it is good."""

    what: str
    state: str
    found: str
    remedy: str = ""


def _direct() -> urllib.request.OpenerDirector:
    """Asks this machine itself: through no proxy that the environment names, and whatever name its certificate has.

    Nothing secret is sent or believed; all that comes back is whether the program is ready, and its metrics.
    """
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls))


def _page(address: str) -> tuple[int, str]:
    """(HTTP status, body) of a page of our own process on this machine; (0, reason) when it does not answer."""
    try:
        with _direct().open(address, timeout=SECONDS) as answer:
            return answer.status, answer.read(1_000_000).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read(4096).decode("utf-8", "replace")
    except OSError as error:
        return 0, str(error)


def _metrics(text: str) -> dict[str, float]:
    """Lines of the exposition as name{labels} -> value, without the prefix."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("vitalgate_"):
            name, _, value = line.removeprefix("vitalgate_").rpartition(" ")
            found[name] = float(value)
    return found


def _process(now: Running | None, what: str) -> Finding:
    if now is None:
        return Finding(what, "bad", "is not running", f"start it: vitalgate {what} run --config {PLACE}")
    return Finding(what, "good", f"runs as process {now.pid}")


def _clock() -> Finding:
    year = time.gmtime().tm_year
    if not 2024 <= year <= 2100:
        return Finding("clock", "bad", f"says {year}", "set the system's clock; observations are dated by it")
    return Finding("clock", "good", time.strftime("%Y-%m-%d %H:%M:%S %Z"))


def _port(device: Device) -> Finding:
    what = f"port {device.name}"
    if device.port is None:
        return Finding(what, "good", f"listens for {device.kind} when the gateway runs")
    try:
        mode = os.stat(device.port).st_mode
    except OSError as error:
        return Finding(what, "bad", error.strerror or str(error), "plug the adapter in, or correct `port`")
    if not stat.S_ISCHR(mode):
        return Finding(what, "bad", "is not a terminal device", "name the serial port, for example /dev/ttyUSB0")
    if not os.access(device.port, os.R_OK | os.W_OK):
        return Finding(what, "bad", "may not be opened by this user", "add the user to the group dialout")
    line = KINDS[device.kind].serial
    assert line is not None, "serial kinds have line settings"
    return Finding(what, "good", f"there; {device.kind} at {line.baud} {line.bits}{line.parity}{line.stop}")


def _devices(settings: GatewaySettings, home: Home) -> Iterator[Finding]:
    bound = {(binding.port, binding.kind) for binding in BindingFile(home.data / BINDINGS, home.keys).table}
    if not settings.device:
        yield Finding("devices", "warning", "no [[device]] is configured", "add one; see `vitalgate device kinds`")
    for device in settings.device:
        yield _port(device)
        if (device.name, device.kind) not in bound:
            port = device.name if KINDS[device.kind].transport is Transport.SERIAL else device.name[4:]
            yield Finding(
                f"device on {device.name}",
                "bad",
                "is not enrolled: what it says is quarantined",
                f"vitalgate enroll device --kind {device.kind} --port {port} --config {PLACE}",
            )


def _traffic(metrics: dict[str, float], settings: GatewaySettings) -> Iterator[Finding]:
    """What the running gateway counted, read for signs of trouble."""
    for device in settings.device:
        frames = metrics.get(f'device_frames_total{{kind="{device.kind}"}}', 0)
        noise = sum(v for k, v in metrics.items() if k.startswith("device_bytes_discarded_total") and device.kind in k)
        if not frames and noise:
            yield Finding(
                f"{device.kind}", "bad", f"{noise:.0f} bytes and not one frame", "check baud rate, parity and cable"
            )
        elif not frames:
            yield Finding(f"{device.kind}", "bad", "not a byte yet", SILENT[KINDS[device.kind].transport])
        else:
            yield Finding(f"{device.kind}", "good", f"{frames:.0f} frames, {noise:.0f} bytes discarded")
    waiting, limit = metrics.get("spool_bytes", 0), metrics.get("spool_max_bytes", 1)
    if waiting > 0.8 * limit:
        yield Finding("spool", "bad", f"{waiting / limit:.0%} full", "see why the cloud takes nothing")


def _gateway(settings: GatewaySettings) -> Iterator[Finding]:
    stack = STACKS[settings.uplink.stack]
    if not stack.protects:
        yield Finding("protection", "bad", stack.words, 'set uplink.stack = "coap-oscore"')
    home = open_home(settings.storage, settings.master_key)
    yield Finding("secrets", "good", f"open; master key from {home.master.source}")
    enrolled = GatewayVault(home.keys, home.session_keys).enrolment()
    if enrolled is None:
        yield Finding("identity", "bad", "not enrolled", f"vitalgate enroll gateway --config {PLACE} --code @FILE")
    else:
        yield Finding("identity", "good", f"{enrolled.gateway}; cloud {fingerprint_text(enrolled.cloud)}")
    try:
        family, _ = resolve(*settings.uplink.cloud)
        yield Finding("cloud's address", "good", f"{settings.uplink.cloud[0]} ({socket.AddressFamily(family).name})")
    except AddressError as error:
        yield Finding("cloud's address", "bad", str(error), "correct uplink.cloud")
    yield from _devices(settings, home)
    now = running(settings.storage.state)
    yield _process(now, "gateway")
    if now is None:
        return
    if "metrics" not in now.listeners:
        yield Finding("status", "warning", "web.listen is not set", "set it, so that doctor can look inside")
        return
    address = now.listeners["metrics"]
    status, body = _page(address.replace("/metrics", "/ready"))
    remedy = "is the cloud up and reachable, this gateway not revoked, the disk not full?"
    yield Finding("ready", "good" if status == 200 else "bad", body.strip(), "" if status == 200 else remedy)
    status, body = _page(address)
    if status == 200:
        yield from _traffic(_metrics(body), settings)


def _cloud(settings: CloudSettings) -> Iterator[Finding]:
    if settings.coap.allows_unprotected:
        yield Finding("protection", "bad", "unprotected deliveries are accepted", 'set coap.stacks = ["coap-oscore"]')
    home = open_home(settings.storage, settings.master_key)
    yield Finding("secrets", "good", f"open; master key from {home.master.source}")
    yield Finding("identity", "good", fingerprint_text(load_cloud_identity(home.keys).key.public))
    now = running(settings.storage.state)
    yield _process(now, "cloud")
    if now is not None:
        status, body = _page(now.listeners.get("web", "") + "/ready")
        yield Finding("ready", "good" if status == 200 else "bad", body.strip(), "" if status == 200 else "see the log")


MARKS = {"good": "ok  ", "warning": "warn", "bad": "BAD "}


@app.command()
def doctor(
    config: Annotated[Path, typer.Option("--config", "-c", help="A gateway's or a cloud's configuration.")],
    json: JsonFlag = False,
) -> None:
    """Look at configuration, secrets, ports, enrolment, the running process and its link; say what helps."""
    findings: list[Finding] = [_clock()]
    try:
        looked = _cloud(cloud_settings(config)) if is_cloud(config) else _gateway(gateway_settings(config))
        for finding in looked:
            findings.append(replace(finding, remedy=finding.remedy.replace(PLACE, str(config))))
    except (HomeError, SecretsError, VaultError) as error:
        findings.append(Finding("secrets", "bad", str(error), "nothing else can be looked at without them"))
    healthy = all(finding.state != "bad" for finding in findings)
    if json:
        document({"healthy": healthy, "findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            say(f"{MARKS[finding.state]} {finding.what}: {finding.found}")
            if finding.remedy:
                say(f"       → {finding.remedy}")
    if not healthy:
        raise typer.Exit(FAILED)
