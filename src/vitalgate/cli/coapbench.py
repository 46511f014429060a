"""The CoAP benchmark: bare echo, aiocoap, libcoap and ours under the same load in one run.

Server and load generator are processes pinned to different cores (where there are two); peers run at their defaults
with logging at ERROR, one at a time under load, in interleaved rounds whose medians are given. Beside requests a second
stands the time that a server was on its core for one request, which other work on the machine disturbs less.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

LIBCOAP: Final = "coap-server-notls"
READY_WITHIN: Final = 15.0
PING: Final = b"\x40\x00\x12\x34"


class BenchError(Exception):
    """A server did not start; the text says which."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A server under test. ``weight``: its share of the requests that a fast one gets, so that rounds end in time.
    ``coap`` False: it knows nothing but datagrams. Empty paths: it has no such resource."""

    name: str
    weight: float = 1.0
    coap: bool = True
    large: str = "large"
    observed: str = "example_data"
    uploads: bool = False


PEERS: Final = (
    Peer("echo", coap=False),
    Peer("aiocoap", weight=0.1),
    Peer("libcoap", large="example_data", uploads=True),
    Peer("vitalgate"),
)


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured: requests a socket for a fast server, and so on."""

    rounds: int
    closed_32: int
    closed_1: int
    flood_seconds: float
    transfers: int
    updates: int
    observers: int
    memory: int


FULL: Final = Size(7, 2000, 10_000, 1.0, 8, 200, 32, 100_000)
QUICK: Final = Size(3, 400, 800, 0.15, 1, 20, 16, 6_400)
SMOKE: Final = Size(1, 100, 100, 0.02, 1, 3, 4, 640)
"""For the test that it runs at all."""


def available(peer: Peer) -> bool:
    """False where what the peer needs is not installed."""
    if peer.name == "libcoap":
        return shutil.which(LIBCOAP) is not None
    return peer.name != "aiocoap" or importlib.util.find_spec("aiocoap") is not None


@dataclass(frozen=True, slots=True)
class _Server:
    peer: Peer
    port: int
    process: subprocess.Popen[bytes]

    def on_core(self) -> float:
        """Seconds that its threads have been on a core."""
        total = 0
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def resident(self) -> int:
        """Bytes of memory it holds."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")


@contextlib.contextmanager
def _serving(peer: Peer, core: int) -> Iterator[_Server]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if peer.name == "libcoap":
        command = [LIBCOAP, "-v", "3", "-A", "127.0.0.1", "-p", str(port)]
    else:
        command = [sys.executable, "-m", "vitalgate.cli.coappeers", peer.name, str(port), str(core)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603  # ours
    try:
        if peer.name == "libcoap":
            os.sched_setaffinity(process.pid, {core})
        _await_ready(peer, port, process)
        yield _Server(peer, port, process)
    finally:
        process.kill()
        process.wait()


def _await_ready(peer: Peer, port: int, process: subprocess.Popen[bytes]) -> None:
    # A CoAP ping: answered with a Reset by whoever speaks CoAP, with itself by the echo.
    end = time.monotonic() + READY_WITHIN
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.05)
        sock.connect(("127.0.0.1", port))
        while time.monotonic() < end and process.poll() is None:
            try:
                sock.send(PING)
                if sock.recv(100):
                    return
            except TimeoutError:
                continue
            except ConnectionRefusedError:
                time.sleep(0.02)
    raise BenchError(f"{peer.name} does not answer")


class _Bench:
    def __init__(self, size: Size) -> None:
        self.size = size
        cores = sorted(os.sched_getaffinity(0))
        self.server_core, self.load_core = cores[0], cores[-1]
        self.rates: dict[str, dict[str, list[float]]] = {}
        self.on_core: dict[str, dict[str, list[float]]] = {}
        self.generator: list[float] = []

    def load(self, server: _Server, kind: str, path: str, sockets: int, amount: float) -> dict[str, float]:
        command = [
            sys.executable, "-m", "vitalgate.cli.coapload", kind, "--core", str(self.load_core),
            "--port", str(server.port), "--path", path, "--sockets", str(sockets), "--amount", str(amount),
        ]  # fmt: skip
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)  # noqa: S603  # this interpreter
        found: dict[str, float] = json.loads(done.stdout)
        return found

    def measure(self, name: str, server: _Server, kind: str, path: str, sockets: int, amount: float) -> None:
        """One figure more for ``name``: what was answered a second, and its time on the core."""
        before = server.on_core()
        result = self.load(server, kind, path, sockets, amount)
        if not result.get("count"):
            return
        peer = server.peer.name
        self.rates.setdefault(name, {}).setdefault(peer, []).append(result["count"] / result["seconds"])
        self.on_core.setdefault(name, {}).setdefault(peer, []).append((server.on_core() - before) / result["count"])
        if peer == "echo" and "generator_us" in result and name == "closed_32":
            self.generator.append(result["generator_us"])

    def round(self, server: _Server) -> None:
        size, peer = self.size, server.peer
        self.measure("closed_32", server, "closed", "time", 32, max(20, size.closed_32 * peer.weight))
        self.measure("closed_1", server, "closed", "time", 1, max(20, size.closed_1 * peer.weight))
        if not peer.coap:
            return
        self.measure("flood", server, "flood", "time", 32, size.flood_seconds)
        if peer.observed:
            updates = max(3, size.updates * peer.weight)
            self.measure("observe_fan_out", server, "fan_out", peer.observed, size.observers, updates)
        if peer.large:
            if peer.uploads:
                self.load(server, "upload", peer.large, 1, 5120)
            self.measure("blockwise_5k_64", server, "blocks", peer.large, 8, max(1, size.transfers * peer.weight))

    def growth(self, server: _Server) -> int:
        """Bytes of memory grown in 100,000 exchanges, after some to warm up."""
        count = int(max(640, self.size.memory * (1 if self.size is FULL else server.peer.weight)))
        self.load(server, "closed", "time", 32, 20)
        before = server.resident()
        self.load(server, "closed", "time", 32, count // 32)
        return round((server.resident() - before) * 100_000 / count)

    def medians(self, name: str) -> dict[str, float | None]:
        found = self.rates.get(name, {})
        return {peer.name: round(statistics.median(found[peer.name])) if peer.name in found else None for peer in PEERS}


def bench_coap(size: Size = FULL) -> dict[str, Any]:
    """Run it. Raises `BenchError` where a server that is installed does not start."""
    bench = _Bench(size)
    growth: dict[str, int | None] = {peer.name: None for peer in PEERS}
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(_serving(peer, bench.server_core)) for peer in PEERS if available(peer)]
        for server in servers:
            if server.peer.coap:
                growth[server.peer.name] = bench.growth(server)
        for number in range(size.rounds):
            # Each round begins with another server, so that none is always the one after a pause.
            for at in range(len(servers)):
                bench.round(servers[(number + at) % len(servers)])
    kinds = ("closed_32", "closed_1", "flood", "observe_fan_out", "blockwise_5k_64")
    result: dict[str, Any] = {kind: bench.medians(kind) for kind in kinds}
    for other in ("aiocoap", "libcoap", "echo"):
        for suffix, kind in (("", "closed_32"), ("_1", "closed_1")):
            ours, theirs = result[kind]["vitalgate"], result[kind][other]
            result[f"ratio_to_{other}{suffix}"] = round(ours / theirs, 3) if ours and theirs else None
    result["server_us_per_request"] = {
        peer: round(statistics.median(values) * 1e6, 2) for peer, values in bench.on_core.get("closed_32", {}).items()
    }
    result["generator_us_per_request"] = round(statistics.median(bench.generator), 2) if bench.generator else None
    result["memory_growth_per_100000"] = growth
    result["cores"] = {"server": bench.server_core, "load": bench.load_core}
    result["rounds"] = size.rounds
    return result
