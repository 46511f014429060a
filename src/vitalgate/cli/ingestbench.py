"""The ingest benchmark: observations from decoded to committed, through spool, SenML, CoAP, OSCORE and store.

Everything of the product is there but sockets: the gateway's and the cloud's engines hand each other datagrams in one
process and thread, both databases lie on disk with ``synchronous=FULL``. Beside it, in the same rounds, bare sqlite3
inserts rows of the same size in batches of the same size into a file set the same way.
"""

import sqlite3
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vitalgate.cloud.enrolment import MemoryEnrolmentStore, create_code
from vitalgate.cloud.identity import CloudIdentity
from vitalgate.cloud.node import CloudNode
from vitalgate.cloud.store.store import Store
from vitalgate.coap.endpoint import Endpoint
from vitalgate.counters import Counters
from vitalgate.devices.contract import Faults, Frame
from vitalgate.devices.registry import KINDS
from vitalgate.gateway.code import EnrolmentCode
from vitalgate.gateway.delivery import pack_entry
from vitalgate.gateway.enrolment import EnrolmentRun, KeysEstablished, enrolment
from vitalgate.gateway.entry import Entry
from vitalgate.gateway.identity import IdentityKey
from vitalgate.gateway.link import Link
from vitalgate.gateway.secrets import FixedKeys
from vitalgate.gateway.splitting import split
from vitalgate.gateway.spool import Spool
from vitalgate.gateway.vault import GatewayVault, MemorySecrets
from vitalgate.oscore.sequence import MemorySequenceStore
from vitalgate.vitals.observation import Status
from vitalgate.vitals.urn import example

GROUP: Final = 64
"""Frames that share one commit of the spool."""
GATEWAY, CLOUD = "gateway", "cloud"


def decoded_frames(kinds: tuple[str, ...], observations: int) -> list[tuple[str, Frame]]:
    """(device, frame) of simulated devices in the order they speak, until there are ``observations``."""
    clock = [0.0]
    sources = []
    for kind in kinds:
        simulator = KINDS[kind].make_simulator(0.0, lambda: 1_790_000_000.0 + clock[0], Faults(), 1)
        engine = KINDS[kind].make_engine(lambda: 1_790_000_000.0 + clock[0], Counters())
        engine.connection_made(kind, 0.0)
        simulator.connection_made(0.0)
        sources.append((str(example("bench", kind)), kind, simulator, engine))
    found: list[tuple[str, Frame]] = []
    count = 0
    while count < observations:
        clock[0] += 1.0
        for urn, kind, simulator, engine in sources:
            simulator.handle_timeout(clock[0])
            engine.receive_data(simulator.data_to_send(clock[0]), kind, clock[0])
            while (event := engine.next_event()) is not None:
                if isinstance(event, Frame):
                    found.append((urn, event))
                    count += len(event.observations)
    return found


@dataclass
class _World:
    """A gateway and a cloud, enrolled, on disk in ``folder``."""

    folder: Path
    commits: list[int] = field(default_factory=list)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.store = Store(self.folder / "cloud.db", FixedKeys(bytes(range(32))))
        codes = MemoryEnrolmentStore()
        self.cloud = CloudNode(
            store=self.store, enrolment=codes, identity=CloudIdentity(IdentityKey.create()),
            sequences=MemorySequenceStore(), stacks=("coap-oscore",),
        )  # fmt: skip
        self.cloud.start(0.0)
        self.pending: list[Entry] = []
        self.cloud.ingest.on_committed = self.pending.extend
        vault, sequences = GatewayVault(MemorySecrets(), MemorySecrets()), MemorySequenceStore()
        code = EnrolmentCode.from_text(create_code(codes, time.time()).text)
        run = EnrolmentRun(Endpoint(), CLOUD, enrolment(vault, code))
        run.start(self.now)
        while (event := run.next_event()) is None:
            self._exchange(run)
        assert isinstance(event, KeysEstablished), event
        vault.adopt(event.established, sequences)
        self.spool = Spool(self.folder / "spool.db", FixedKeys(bytes(32)), pack_entry)
        self.link = Link(self.spool, vault, sequences, CLOUD, stack="coap-oscore")
        self.link.handle_timeout(self.now)
        self.deliver()

    def _exchange(self, engine: EnrolmentRun | Link) -> bool:
        """One way there and back; False when nothing went."""
        self.now += 1e-6
        out = engine.datagrams_to_send(self.now)
        for data, _ in out:
            self.cloud.receive_datagram(data, GATEWAY, self.now)
        for data, _ in self.cloud.datagrams_to_send(self.now):
            engine.receive_datagram(data, CLOUD, self.now)
        return bool(out)

    def deliver(self) -> None:
        """Until the cloud has everything."""
        while self._exchange(self.link):
            if self.pending:
                self.commits.append(len(self.pending))
                self.pending.clear()

    def append(self, frames: list[tuple[str, Frame]]) -> None:
        for urn, frame in frames:
            bound = (observation.bind(urn, "", "", Status.DEMO) for observation in frame.observations)
            self.spool.append(urn, split(bound), frame.hash, frame.received_at)
        assert self.spool.commit(self.now).ok

    def close(self) -> None:
        self.spool.close()
        self.store.close()


def _bare_sqlite(folder: Path, commits: list[int], size: int) -> float:
    """Seconds that bare sqlite3 takes for rows of ``size`` bytes in batches as ``commits`` says."""
    connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(
        "CREATE TABLE entries (id INTEGER PRIMARY KEY, gateway INT, epoch INT, sequence INT, device INT, class INT,"
        " received REAL, time REAL, observations INT, samples INT, content BLOB, UNIQUE (gateway, epoch, sequence))"
    )
    number, content = 0, bytes(size)
    started = time.perf_counter()
    for count in commits:
        rows = [(1, 2, n, 3, 1, 1.79e9, 1.79e9, 5, 400, content) for n in range(number, number + count)]
        number += count
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "INSERT INTO entries (gateway, epoch, sequence, device, class, received, time, observations, samples,"
            " content) VALUES (?,?,?,?,?,?,?,?,?,?)",
            rows,
        )
        connection.execute("COMMIT")
    seconds = time.perf_counter() - started
    connection.close()
    return seconds


def _round(frames: list[tuple[str, Frame]], observations: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="vitalgate-bench-") as name:
        folder = Path(name)
        world = _World(folder)
        world.commits.clear()
        before = world.store.read.totals()
        started = time.perf_counter()
        for at in range(0, len(frames), GROUP):
            world.append(frames[at : at + GROUP])
            world.deliver()
        seconds = time.perf_counter() - started
        totals = world.store.read.totals()
        world.close()
        size = (folder / "cloud.db").stat().st_size
        entries = totals.entries - before.entries
        bare = _bare_sqlite(folder, world.commits, max(1, size // max(1, entries) - 80))
        return {
            "seconds": seconds,
            "stored": totals.observations - before.observations,
            "samples": totals.samples - before.samples,
            "entries": entries,
            "bytes": size,
            "rate": observations / seconds,
            "bare": entries / bare,
            "ratio": bare / seconds,
            "batch": statistics.mean(world.commits),
        }


def bench_ingest(*, observations: int, rounds: int) -> dict[str, Any]:
    """Medians of ``rounds`` rounds: numerics and waveforms together, and numerics alone."""
    mixed = decoded_frames(("ivy450c", "nonin"), observations)
    count = sum(len(frame.observations) for _, frame in mixed)
    results = [_round(mixed, count) for _ in range(rounds)]

    def median(name: str) -> float:
        return statistics.median(result[name] for result in results)

    return {
        "observations_per_s": round(median("rate")),
        "ratio_to_sqlite": round(median("ratio"), 4),
        "bytes_per_observation": round(median("bytes") / median("stored"), 1),
        "entries_per_s": round(median("entries") / median("seconds")),
        "samples_per_s": round(median("samples") / median("seconds")),
        "sqlite_entries_per_s": round(median("bare")),
        "entries_per_commit": round(median("batch"), 1),
        "observations": count,
        "entries": int(median("entries")),
        "rounds": rounds,
        "stack": "coap-oscore",
    }
