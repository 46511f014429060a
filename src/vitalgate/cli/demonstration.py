"""The demonstration: a cloud, a gateway and simulated devices on loopback, and an account at the end.

Nothing is assumed: what was lost is what the spool committed and the store does not hold, what was doubled is what the
store holds more often, by device and raw-frame hash; device gaps are what simulators said and no spool committed.
"""

import asyncio
import contextlib
import json
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from vitalgate.cloud.enrolment import create_code
from vitalgate.cloud.runtime import open_store
from vitalgate.cloud.settings import CloudSettings
from vitalgate.cloud.store.errors import StoreError
from vitalgate.cloud.store.latency import LatencySummary
from vitalgate.cloud.store.read import Totals
from vitalgate.cloud.store.store import Store
from vitalgate.cloud.users import Users
from vitalgate.cloud.web.admin import sign_in_address
from vitalgate.devices.contract import Faults, Transport
from vitalgate.devices.registry import KINDS
from vitalgate.devices.simulate import PtyLine, SimulatorRunner
from vitalgate.gateway.bindings import BindingFile, DeviceBinding
from vitalgate.gateway.code import EnrolmentCode
from vitalgate.gateway.configuration import load
from vitalgate.gateway.enrolment import enrolment
from vitalgate.gateway.home import BINDINGS, Home, Running, running
from vitalgate.gateway.keyexchange import exchange_keys
from vitalgate.gateway.runtime import LEDGER
from vitalgate.gateway.settings import GatewaySettings
from vitalgate.gateway.vault import GatewayVault
from vitalgate.net.stacks import STACKS
from vitalgate.vitals.urn import example

START_SECONDS: Final = 30.0
DRAIN_SECONDS: Final = 20.0
STOP_SECONDS: Final = 15.0
TICK: Final = 1.0
SWITCH_ON: Final = 0.2
"""Seconds between a device's start and its first word, on a line that the gateway has open."""


class DemonstrationError(RuntimeError):
    """A part did not start or died; the text names it and its log."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What flows, once a second: seconds run, totals of the store, and the latency so far."""

    seconds: float
    totals: Totals
    latency: LatencySummary


def free_port(kind: socket.SocketKind) -> int:
    """A port of loopback that nobody uses now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Process:
    """One of our programs; its standard error goes to a file."""

    def __init__(self, name: str, log: Path) -> None:
        self.name, self._log = name, log
        self._arguments: tuple[str, ...] = ()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *arguments: str) -> None:
        self._arguments = arguments
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "vitalgate", *arguments, stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE, stderr=log, start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """Its process, 0 before there was one."""
        return self._process.pid if self._process else 0

    def check(self) -> None:
        """Raises `DemonstrationError` when it is gone."""
        if self._process is None or self._process.returncode is not None:
            tail = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
            raise DemonstrationError(f"the {self.name} stopped by itself; its log {self._log} ends: {' | '.join(tail)}")

    async def kill_and_restart(self) -> None:
        """End it as a crash does, at once and without a word, and start it again."""
        self.check()
        assert self._process is not None
        self._process.kill()
        await self._process.wait()
        await self.start(*self._arguments)

    async def stop(self) -> dict[str, Any]:
        """End it politely and take its document; kill it when it does not end."""
        process = self._process
        if process is None:
            return {}
        self._process = None
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        try:
            output, _ = await asyncio.wait_for(process.communicate(), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            output, _ = await process.communicate()
        try:
            found: dict[str, Any] = json.loads(output)
        except ValueError:
            return {}
        return found


def _announced(process: _Process, state: Path) -> Running | None:
    found = running(state)
    return found if found and found.pid == process.pid else None


class Demonstration:
    """Set up, run, account, clean up. ``folder`` is kept when it was given, else a temporary one that is removed.
    ``route``, given the cloud's UDP port of loopback, returns the port by which the gateway is to reach it."""

    def __init__(
        self,
        stack: str,
        *,
        folder: Path | None = None,
        dashboard_port: int = 0,
        seed: int = 1,
        route: Callable[[int], int] = int,
    ) -> None:
        self.stack = stack
        self._keep = folder is not None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="vitalgate-demo-"))
        self._dashboard_port = dashboard_port
        self._seed = seed
        self._route = route
        self._cloud = _Process("cloud", self.folder / "cloud.log")
        self._gateway = _Process("gateway", self.folder / "gateway.log")
        self._store: Store | None = None
        self._devices: dict[str, tuple[str, SimulatorRunner, asyncio.Task[Any]]] = {}
        self._states: tuple[tuple[_Process, Path], ...] = ()
        self._started = 0.0
        self.dashboard = ""
        self.link = ""

    async def start(self) -> None:
        """Everything up, devices speaking. Raises `DemonstrationError` and the documented errors of the parts."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if (self.folder / "cloud").exists():
            raise DemonstrationError(f"{self.folder} holds a demonstration already: name an empty folder")
        cloud_file, gateway_file, ports = self._write_configurations()
        await self._cloud.start("cloud", "run", "--config", str(cloud_file), "--json")
        cloud = load(cloud_file, CloudSettings)
        now = await self._until(self._cloud, lambda: running(cloud.storage.state))
        home = Home(cloud.storage, cloud.master_key)
        self._store = open_store(home)
        self.dashboard = now.listeners["web"]
        users = Users(self._store.database, self._store.audit)
        token = users.first_link()
        self.link = sign_in_address(self.dashboard, token) if token else self.dashboard
        await self._enrol(load(gateway_file, GatewaySettings), ports)
        # Plugged in before the gateway looks for them: what a device says before that nobody could hear.
        lines = {where: PtyLine(Path(where)) for _, kind, where in ports if KINDS[kind].transport is Transport.SERIAL}
        await self._gateway.start("gateway", "run", "--config", str(gateway_file), "--json")
        settings = load(gateway_file, GatewaySettings)
        self._states = ((self._cloud, cloud.storage.state), (self._gateway, settings.storage.state))
        await self._up()
        self._started = time.monotonic()
        for urn, kind, where in ports:
            self._play(urn, kind, where, lines.get(where))

    async def run(self, stop: asyncio.Event, seconds: float | None, tell: Callable[[Progress], None]) -> None:
        """Until ``stop`` or for ``seconds``; ``tell`` hears once a second how it goes."""
        end = None if seconds is None else self._started + seconds
        while not stop.is_set() and (end is None or time.monotonic() < end):
            wait = TICK if end is None else min(TICK, max(0.0, end - time.monotonic()))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), wait)
            self._cloud.check()
            self._gateway.check()
            for _, _, task in self._devices.values():
                if task.done():
                    task.result()  # a simulator's own fault ends the demonstration
            with contextlib.suppress(StoreError):
                self._name_devices()
                tell(self._progress())

    async def crash(self, part: str) -> None:
        """Kill the 'cloud' or the 'gateway' outright and start it again."""
        await {"cloud": self._cloud, "gateway": self._gateway}[part].kill_and_restart()

    def gaps(self) -> list[tuple[str, str]]:
        """(device, cause) of every device gap that the store holds."""
        assert self._store is not None
        return [(gap.device, gap.cause) for gap in self._store.read.gaps() if gap.kind == "device"]

    async def finish(self) -> dict[str, Any]:
        """Stop the devices, let the spool drain, stop everything, and account."""
        await self._up()
        seconds = time.monotonic() - self._started
        for _, runner, _ in self._devices.values():
            runner.switch_off()
        await self._drained()
        for _, _, task in self._devices.values():
            task.cancel()
        await asyncio.gather(*(task for _, _, task in self._devices.values()), return_exceptions=True)
        gateway = await self._gateway.stop()
        await self._cloud.stop()
        return self._account(gateway, seconds)

    async def clean_up(self) -> None:
        """End what still runs; remove the temporary folder."""
        for _, _, task in self._devices.values():
            task.cancel()
        await self._gateway.stop()
        await self._cloud.stop()
        if self._store is not None:
            self._store.close()
        if not self._keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    # setting up

    def _write_configurations(self) -> tuple[Path, Path, list[tuple[str, str, str]]]:
        coap = free_port(socket.SOCK_DGRAM)
        ports: list[tuple[str, str, str]] = []
        tables = []
        for number, kind in enumerate(KINDS.values(), 1):
            urn = str(example("demo", f"{kind.slug}-{number}"))
            if kind.transport is Transport.SERIAL:
                where = str(self.folder / f"tty-{kind.slug}")
                tables.append(f'[[device]]\nkind = "{kind.slug}"\nport = "{where}"\n')
            else:
                where = f"127.0.0.1:{free_port(socket.SOCK_STREAM)}"
                tables.append(f'[[device]]\nkind = "{kind.slug}"\nlisten = "{where}"\n')
            ports.append((urn, kind.slug, where))
        page = f"127.0.0.1:{self._dashboard_port}"
        stacks = f'["{self.stack}"]' if STACKS[self.stack].protects else f'["coap-oscore", "{self.stack}"]'
        cloud = self._write(
            "cloud",
            f'[coap]\nlisten = "127.0.0.1:{coap}"\nstacks = {stacks}\n[dashboard]\nlisten = "{page}"\n'
            "demand_password = false\n",
        )
        cloud_port = self._route(coap)
        uplink = f'[uplink]\ncloud = "127.0.0.1:{cloud_port}"\nstack = "{self.stack}"\n[web]\nlisten = "127.0.0.1:0"\n'
        gateway = self._write("gateway", uplink + "".join(tables), head="ledger = true\n")
        return cloud, gateway, ports

    def _write(self, name: str, tables: str, head: str = "") -> Path:
        folder = self.folder / name
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / f"{name}.toml"
        path.write_text(
            f'schema = 1\n{head}[storage]\ndata = "data"\nstate = "state"\n[master_key]\nfile = "keys/master.key"\n'
            f'[log]\nfile = "{name}.jsonl"\n{tables}',
            encoding="utf-8",
        )
        return path

    async def _enrol(self, settings: GatewaySettings, ports: list[tuple[str, str, str]]) -> None:
        """The gateway with a one-time code, over the network as anywhere; the devices at the gateway."""
        assert self._store is not None
        code = create_code(self._store.enrolment("demonstration"), time.time(), gateway="demo-gateway")
        home = Home(settings.storage, settings.master_key)
        vault = GatewayVault(home.keys, home.session_keys)
        with home.sequences() as sequences:
            established = await exchange_keys(
                settings.uplink.cloud, enrolment(vault, EnrolmentCode.from_text(code.text)), START_SECONDS
            )
            vault.adopt(established, sequences)
        bindings = BindingFile(home.data / BINDINGS, home.keys)
        for urn, kind, where in ports:
            port = f"tcp:{where}" if KINDS[kind].transport is Transport.TCP_LISTEN else where
            bindings.put(
                DeviceBinding(urn, kind, port, demo=True, label=f"Demo {KINDS[kind].title}", enrolled_at=time.time())
            )

    def _play(self, urn: str, kind: str, where: str, line: PtyLine | None) -> None:
        simulator = KINDS[kind].make_simulator(time.monotonic() + SWITCH_ON, time.time, Faults(), self._seed)
        runner = SimulatorRunner(simulator, self.folder / f"{kind}.journal")
        host, _, port = where.rpartition(":")
        playing = runner.run(line=line, connect=None if line else (host, int(port)), seconds=None)
        self._devices[urn] = (kind, runner, asyncio.create_task(playing))

    async def _up(self) -> None:
        """Wait until both programs have announced themselves, after a crash the new processes."""
        for process, state in self._states:
            await self._until(process, partial(_announced, process, state))

    async def _until(self, process: _Process, ready: Callable[[], Any]) -> Any:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            process.check()
            found = ready()
            if found is not None:
                return found
            await asyncio.sleep(0.05)
        raise DemonstrationError(f"the {process.name} did not start in {START_SECONDS:.0f} s; see its log")

    # watching and accounting

    def _name_devices(self) -> None:
        """Give people's names to devices as the store comes to know them."""
        assert self._store is not None
        for device in self._store.read.devices():
            if not device.label and device.urn in self._devices:
                title = KINDS[self._devices[device.urn][0]].title.partition(" (")[0]
                self._store.name_device(device.urn, title, actor="demonstration")

    def _progress(self) -> Progress:
        assert self._store is not None
        return Progress(time.monotonic() - self._started, self._store.read.totals(), self._store.read.latency())

    async def _drained(self) -> None:
        """Wait until the spool is empty and the store has stopped growing. A gateway whose cloud was killed may have to
        find out first."""
        assert self._store is not None
        before, quiet, end = -1, 0, time.monotonic() + DRAIN_SECONDS
        while quiet < 4 and time.monotonic() < end:
            await asyncio.sleep(0.25)
            entries = self._store.read.totals().entries
            quiet = quiet + 1 if entries == before and not await self._spooled() else 0
            before = entries

    async def _spooled(self) -> bool:
        """Whether anything waits in the gateway's spool, as its metrics say."""
        found = running(self._states[1][1])
        if found is None:
            return True
        address = urlsplit(found.listeners["metrics"])
        try:
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
        except OSError:
            return True
        with contextlib.closing(writer):
            writer.write(f"GET /metrics HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n\r\n".encode())
            return b"\nvitalgate_spool_entries 0\n" not in await reader.read(-1)

    def _account(self, gateway: dict[str, Any], seconds: float) -> dict[str, Any]:
        assert self._store is not None
        read = self._store.read
        ledger = json.loads((self.folder / "gateway" / "data" / LEDGER).read_text(encoding="ascii"))
        committed = {urn: Counter(counts) for urn, counts in ledger["entries"].items()}
        stored = {urn: Counter({k.hex(): n for k, n in c.items()}) for urn, c in read.frame_hashes().items() if urn}
        urns = committed.keys() | stored.keys()
        nothing: Counter[str] = Counter()
        lost = sum((committed.get(urn, nothing) - stored.get(urn, nothing)).total() for urn in urns)
        doubled = sum((stored.get(urn, nothing) - committed.get(urn, nothing)).total() for urn in urns)
        unheard = 0
        for urn, (kind, _, _) in self._devices.items():
            said = Counter((self.folder / f"{kind}.journal").read_text(encoding="ascii").split())
            unheard += (said - Counter(ledger["frames"].get(urn, {}))).total()
        totals, latency = read.totals(), read.latency()
        counters = Counter(gateway.get("counters", {}))
        return {
            "security": STACKS[self.stack].security,
            "stack": self.stack,
            "devices": len(self._devices),
            "observations_decoded": sum(n for key, n in counters.items() if key.startswith("device_observations{")),
            "observations_stored": totals.observations,
            "waveform_samples_decoded": sum(n for key, n in counters.items() if key.startswith("device_samples{")),
            "waveform_samples_stored": totals.samples,
            "lost": lost,
            "duplicated": doubled,
            "device_gaps": unheard,
            "uplink_bytes": gateway.get("uplink_bytes", 0),
            "uplink_datagrams": gateway.get("uplink_datagrams", 0),
            "latency_ms": {
                "p50": round(latency.p50 * 1000, 3),
                "p95": round(latency.p95 * 1000, 3),
                "p99": round(latency.p99 * 1000, 3),
                "max": round(latency.maximum * 1000, 3),
            },
            "seconds": round(seconds, 3),
            "dashboard": self.dashboard,
        }
