"""The gateway as a process: its engine on real lines and a socket, its status for people and machines."""

import asyncio
import json
import os
import time
from collections.abc import Hashable
from typing import Any, Final

from vitalgate.counters import Counters
from vitalgate.devices.registry import KINDS
from vitalgate.gateway import logs
from vitalgate.gateway.bindings import BindingFile
from vitalgate.gateway.delivery import pack_entry
from vitalgate.gateway.engine import (
    ClockStepped,
    DeviceHeard,
    DeviceQuarantined,
    DeviceSilent,
    GatewayEngine,
)
from vitalgate.gateway.files import write_atomic
from vitalgate.gateway.home import BINDINGS, SPOOL, Home
from vitalgate.gateway.link import KeysRefused, KeysRenewed, Link, NotEnrolledError
from vitalgate.gateway.secrets import SecretsError
from vitalgate.gateway.settings import Device, GatewaySettings
from vitalgate.gateway.spool import Spool
from vitalgate.gateway.storage import EntriesDropped, SpoolBounds, SpoolFailing, SpoolOpened, SpoolRecovered
from vitalgate.gateway.uplink import EntryRefused, LinkDown, LinkUp, UplinkParameters
from vitalgate.gateway.vault import GatewayVault, Standing
from vitalgate.net.exposition import CONTENT_TYPE, Gauge, exposition
from vitalgate.net.stacks import STACKS
from vitalgate.net.status import StatusServer
from vitalgate.net.stream import SerialLine, TcpListener
from vitalgate.net.udp import AddressError, UdpDriver, client_socket, resolve

BINDINGS_EVERY: Final = 2.0
"""Seconds between looks at the bindings file, which `enroll device` changes."""
MARK: Final = "spool.mark"
LEDGER: Final = "ledger.json"


class _Port:
    """One configured port: the owner of its lines, passing on what happens to the engine."""

    def __init__(self, runtime: "GatewayRuntime", name: str) -> None:
        self.name = name
        self.writer: SerialLine | TcpListener | None = None
        self.open: set[Hashable] = set()
        self.last_byte: float | None = None
        self._runtime = runtime

    def opened(self, conn: Hashable) -> None:
        self.open.add(conn)
        peer = conn[0] if isinstance(conn, tuple) else ""
        self._runtime.engine.device_connected(self.name, conn, time.monotonic(), peer)
        self._runtime.turn()

    def data(self, conn: Hashable, data: bytes) -> None:
        self.last_byte = time.monotonic()
        self._runtime.engine.device_data(self.name, conn, data, self.last_byte)
        self._runtime.turn()

    def closed(self, conn: Hashable, reason: str) -> None:
        self.open.discard(conn)
        self._runtime.engine.device_disconnected(self.name, conn, time.monotonic())
        self._runtime.log.warning("line closed", port=self.name, reason=reason)
        self._runtime.turn()

    def flush(self, now: float) -> None:
        """Write what the engine has for the port's lines."""
        for conn in list(self.open):
            data = self._runtime.engine.device_data_to_send(self.name, conn, now)
            if not data:
                continue
            if isinstance(self.writer, SerialLine):
                self.writer.write(data)
            elif self.writer is not None:
                self.writer.write(conn, data)


class GatewayRuntime:
    """Starts, runs and stops a gateway inside a running event loop.

    Raises `NotEnrolledError`, `HomeError` when it runs already, `AddressError`, and what spool and key stores document.
    """

    def __init__(self, settings: GatewaySettings, home: Home) -> None:
        self.settings = settings
        self.counters = Counters()
        self.log = logs.get("gateway")
        self.listeners: dict[str, str] = {}
        self._home = home
        self._ports: list[_Port] = []
        self._driver: UdpDriver | None = None
        self._status: StatusServer | None = None
        self._timer: asyncio.TimerHandle | None = None
        _, path = resolve(*settings.uplink.cloud)
        vault = GatewayVault(home.keys, home.session_keys)
        enrolled = vault.enrolment()
        if enrolled is None and STACKS[settings.uplink.stack].protects:
            # before the spool opens: its next opening would tell of a crash that there was not
            raise NotEnrolledError(f"this gateway is {Standing.NOT_ENROLLED.value}")
        self._bindings = BindingFile(home.data / BINDINGS, home.keys)
        self._sequences = home.sequences()
        bounds = SpoolBounds(max_bytes=settings.spool.max_bytes, max_entries=settings.spool.max_entries)
        self._spool = Spool(
            home.data / SPOOL,
            home.keys,
            pack_entry,
            mark=home.state / MARK,
            bounds=bounds,
            counters=self.counters,
            ledger=settings.ledger,
        )
        self._link = Link(
            self._spool,
            vault,
            self._sequences,
            path,
            stack=settings.uplink.stack,
            name=enrolled.gateway if enrolled else "gateway",
            uplink=UplinkParameters(window=settings.uplink.window),
            counters=self.counters,
        )
        self._peer = path
        self.engine = GatewayEngine(self._spool, self._bindings.table, uplink=self._link, counters=self.counters)

    async def start(self) -> None:
        """Open ports and sockets. Raises `AddressError` and what the rooms below document."""
        loop = asyncio.get_running_loop()
        self._driver = UdpDriver(
            self.engine, client_socket(self._peer), on_turn=self._on_turn, counters=self.counters, clock=time.monotonic
        )
        for device in self.settings.device:
            await self._open(device)
        if self.settings.web.listen is not None:
            pages = {
                "/metrics": self._metrics,
                "/ready": self._ready,
                "/health": lambda: (200, "text/plain", "alive\n"),
            }
            self._status = StatusServer(pages)
            host, port = self.settings.web.listen
            try:
                host, port = await self._status.start(host, port)
            except OSError as error:
                raise AddressError(f"web.listen {host}:{port}: {_why(error)}; name another port") from error
            self.listeners["metrics"] = f"http://{host}:{port}/metrics"
        self._timer = loop.call_later(BINDINGS_EVERY, self._look_at_bindings)
        self._home.announce(self.listeners)
        self.log.info("gateway started", stack=self.settings.uplink.stack, ports=len(self._ports))

    async def stop(self) -> None:
        """Close lines, commit what is buffered, mark the shutdown as clean."""
        if self._timer is not None:
            self._timer.cancel()
        for port in self._ports:
            if port.writer is not None:
                port.writer.close()
        await asyncio.sleep(0)  # lets closed lines be told
        if self._driver is not None:
            self._driver.close()
        if self._status is not None:
            self._status.close()
        if self.settings.ledger:
            write_atomic(self._home.data / LEDGER, json.dumps(self.ledger()).encode())
        self._spool.close()
        self._sequences.close()
        self._home.retire()
        self.log.info("gateway stopped")

    def turn(self) -> None:
        """Let the engine's output out after bytes of a device went in."""
        if self._driver is not None:
            self._driver.turn()

    def status(self) -> dict[str, Any]:
        """What `--json` prints and `doctor` reads."""
        spool = self._spool.status()
        return {
            "stack": self.settings.uplink.stack,
            "link_up": self._link.is_up,
            "epoch": f"{spool.epoch:016x}",
            "last_sequence": spool.last_sequence,
            "spool_entries": spool.entries,
            "spool_bytes": spool.bytes,
            "spool_failing": spool.failing,
            "dropped": spool.dropped,
            "refused": spool.refused,
            "uplink_bytes": self._driver.bytes_sent if self._driver else 0,
            "uplink_datagrams": self._driver.datagrams_sent if self._driver else 0,
            "counters": dict(self.counters),
        }

    def ledger(self) -> dict[str, Any]:
        """Where a ledger is kept: by device, what was ever committed, as entries and as frames by frame hash."""
        return {
            name: {urn: {key.hex(): count for key, count in counts.items()} for urn, counts in found.items()}
            for name, found in (("entries", self._spool.ledger()), ("frames", self._spool.frames()))
        }

    async def _open(self, device: Device) -> None:
        kind = KINDS[device.kind]
        name = device.name
        port = _Port(self, name)
        if device.port is not None:
            self.engine.add_port(name, kind, time.monotonic())
            assert kind.serial is not None, "serial kinds have line settings"
            self._ports.append(port)
            port.writer = line = SerialLine(device.port, kind.serial, port, self.counters)
            if line.error:
                self.log.warning("line not open yet", port=name, reason=line.error)
            self.listeners[f"{device.kind} on {name}"] = "serial line"
            return
        assert device.listen is not None, "the settings see to it"
        listener = TcpListener(port, device.allow, counters=self.counters)
        try:
            host, number = await listener.start(*device.listen)
        except OSError as error:
            raise AddressError(f"{device.kind} cannot listen on {name}: {_why(error)}") from error
        self.engine.add_port(name, kind, time.monotonic())
        port.writer = listener
        self._ports.append(port)
        self.listeners[f"{device.kind} on {name}"] = f"{host}:{number}"

    def _on_turn(self, now: float) -> None:
        for port in self._ports:
            port.flush(now)
        while (event := self.engine.next_event()) is not None:
            tell = _SAYINGS.get(type(event))
            if tell is not None:
                tell(self.log, event)

    def _look_at_bindings(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(BINDINGS_EVERY, self._look_at_bindings)
        try:
            changed = self._bindings.refresh()
        except SecretsError as error:
            self.log.error("bindings cannot be read; the former ones stay in force", reason=str(error))
            return
        if changed:
            self.engine.set_bindings(self._bindings.table, time.monotonic())
            self.log.info("bindings changed", devices=len(self._bindings.table))
            self.turn()

    # pages

    def _metrics(self) -> tuple[int, str, str]:
        spool = self._spool.status()
        gauges = [
            Gauge("spool_entries", "Entries that wait in the spool.", spool.entries),
            Gauge("spool_bytes", "Bytes of the spool in use.", spool.bytes),
            Gauge("spool_max_bytes", "Bytes the spool may use.", spool.max_bytes),
            Gauge("uplink_up", "1 when the cloud took what was sent last.", int(self._link.is_up)),
            Gauge("uplink_in_flight", "Deliveries that wait for their answer.", self._link.in_flight),
            Gauge("devices_heard", "Enrolled devices that speak.", self._heard()),
        ]
        return 200, CONTENT_TYPE, exposition([self.counters], gauges)

    def _heard(self) -> int:
        return sum(not watched.silent and watched.ever for watched in self.engine.watched())

    def _ready(self) -> tuple[int, str, str]:
        spool = self._spool.status()
        faults = []
        if not self._link.is_up:
            faults.append("the cloud does not take deliveries")
        if spool.failing:
            faults.append(f"the spool cannot write ({spool.failing})")
        if faults:
            return 503, "text/plain", "; ".join(faults) + "\n"
        return 200, "text/plain", "ready\n"


def _why(error: OSError) -> str:
    """The system's own words: asyncio's are longer and say the address again."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)


def _saying(level: str, text: str, *fields: str) -> Any:
    def tell(log: Any, event: object) -> None:
        getattr(log, level)(text, **{name: _plain(getattr(event, name)) for name in fields})

    return tell


def _plain(value: object) -> object:
    return getattr(value, "value", value)


_SAYINGS: Final = {
    DeviceHeard: _saying("info", "device heard", "urn", "port"),
    DeviceSilent: _saying("warning", "device silent", "urn", "port"),
    DeviceQuarantined: _saying("warning", "device in quarantine", "port", "kind", "reason"),
    ClockStepped: _saying("warning", "the wall clock was stepped", "seconds"),
    SpoolOpened: _saying("info", "spool opened", "cause", "aside"),
    SpoolFailing: _saying("error", "the spool cannot write", "reason"),
    SpoolRecovered: _saying("info", "the spool writes again"),
    EntriesDropped: _saying("error", "entries dropped with a numbered gap", "count", "cause"),
    LinkUp: _saying("info", "the cloud takes deliveries"),
    LinkDown: _saying("warning", "the cloud takes no deliveries", "reason"),
    EntryRefused: _saying("error", "the cloud refused an entry"),
    KeysRenewed: _saying("info", "fresh session credentials in service"),
    KeysRefused: _saying("error", "no fresh session credentials", "reason", "pause"),
}
"""What is logged of each event; fields are names and reasons, never what a patient's device measured."""
