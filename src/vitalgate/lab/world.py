"""A whole world in virtual time: simulated devices, one gateway, one cloud, and the network between them.

Everything is the product's own: codecs, spool and store on real files, key stores, enrolment, OSCORE. Only sockets and
clocks are the virtual network's, and every random number comes from its seed, so that one seed gives one history. What
happens to real installations can be done to it: links cut, processes killed between or within their commits, clocks
stepped, files deleted or put back from a backup, datagrams captured and sent again. `World.account` then says what
became of everything that was promised.
"""

import contextlib
import functools
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vitalgate.cloud.enrolment import create_code
from vitalgate.cloud.identity import load_cloud_identity
from vitalgate.cloud.node import CloudNode
from vitalgate.cloud.store.read import EpochAccount, GapRow
from vitalgate.coap.endpoint import Endpoint
from vitalgate.counters import Counters
from vitalgate.devices.contract import Faults
from vitalgate.devices.registry import KINDS
from vitalgate.engine import DatagramEngine, Randomness
from vitalgate.gateway.bindings import BindingTable
from vitalgate.gateway.code import EnrolmentCode
from vitalgate.gateway.engine import GatewayEngine, GatewayLimits
from vitalgate.gateway.enrolment import EnrolmentRun, KeysEstablished, enrolment
from vitalgate.gateway.home import KEYS, SEQUENCES, SPOOL
from vitalgate.gateway.link import Link
from vitalgate.gateway.secrets import Keystore, MasterKey
from vitalgate.gateway.storage import SpoolBounds
from vitalgate.gateway.uplink import UplinkParameters
from vitalgate.gateway.vault import GatewayVault
from vitalgate.lab.account import Account, tally, untold
from vitalgate.lab.attached import AttachedDevice
from vitalgate.lab.hosting import History, Hosted
from vitalgate.lab.recorded import POINTS, Book, Killed, RecordedSpool, RecordedStore
from vitalgate.net.stacks import STACKS
from vitalgate.net.virtual import Address, VirtualNetwork
from vitalgate.net.virtual import Link as LinkModel
from vitalgate.oscore.sequence import FileSequenceStore
from vitalgate.vitals.urn import example

GATEWAY, CLOUD = "gateway", "cloud"
GATEWAY_NAME: Final = "lab-gateway"
DATABASE, MARK = "cloud.db", "spool.mark"
ENROL_SECONDS: Final = 3600.0
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - files in memory, where the system has them; else the usual place


class WorldError(RuntimeError):
    """The world cannot go on as asked: the text says why."""


@dataclass(slots=True)
class _Place:
    """One host's folders (``data`` is what backups hold), and how often it was started."""

    data: Path
    state: Path
    master: MasterKey
    starts: int = 0
    hosted: Hosted | None = None


@dataclass(slots=True)
class _Fuse:
    """Kill ``host`` when ``point`` was passed ``left`` more times."""

    host: str
    left: int
    down: float


class World:
    """Made running: cloud up, gateway enrolled and up, devices speaking. Use it as a context manager, or `close` it.

    ``kinds`` are slugs of `KINDS`, one device each; ``link`` is the model of both directions between gateway and cloud.
    ``folder`` is where the files lie (None: a temporary folder, in memory where the system has that).
    """

    def __init__(
        self,
        seed: int = 1,
        *,
        kinds: tuple[str, ...] | None = None,
        stack: str = "coap-oscore",
        link: LinkModel | None = None,
        folder: Path | None = None,
        bounds: SpoolBounds | None = None,
        limits: GatewayLimits | None = None,
        uplink: UplinkParameters | None = None,
        faults: Faults | None = None,
        ledger: bool = False,
    ) -> None:
        self._temporary = None
        if folder is None:
            where = str(_MEMORY) if _MEMORY.is_dir() else None
            self._temporary = tempfile.TemporaryDirectory(prefix="vitalgate-lab-", dir=where)
            folder = Path(self._temporary.name)
        self.folder = folder
        self.stack = stack
        self.stacks = (stack,) if STACKS[stack].protects else ("coap-oscore", stack)
        """What the cloud accepts from its next start."""
        self.network = VirtualNetwork(seed)
        self._history = History()
        self.network.captured = self._history
        if link is not None:
            self.network.default_link = link
        self.counters = {GATEWAY: Counters(), CLOUD: Counters()}
        self.events: list[tuple[float, object]] = []
        """What the gateway's engine told, with the virtual time."""
        self.book = Book()
        self._bounds, self._limits, self._uplink, self._ledger = bounds, limits, uplink, ledger
        self._fuses: dict[str, _Fuse] = {}
        self._backups = self._enrolments = 0
        self._places = {host: self._place(host) for host in (GATEWAY, CLOUD)}
        self.store: RecordedStore | None = None
        self.spool: RecordedSpool | None = None
        self.engine: GatewayEngine | None = None
        self.node: CloudNode | None = None
        self._sequences: dict[str, FileSequenceStore] = {}
        self.start_cloud()
        self.enrol()
        self.devices = [
            AttachedDevice(
                self.network, KINDS[slug], str(example("lab", f"{slug}-{number}")), number=number, seed=seed + number,
                faults=faults or Faults(), gateway_wall=self.network.wall(GATEWAY), on_due=self._device_due,
            )
            for number, slug in enumerate(KINDS if kinds is None else kinds, 1)
        ]  # fmt: skip
        self._two_way = [device for device in self.devices if device.kind.two_way]
        self.start_gateway()

    def __enter__(self) -> "World":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def now(self) -> float:
        """Virtual time in seconds."""
        return self.network.now

    def close(self) -> None:
        """End everything; a temporary folder is removed."""
        for host in (GATEWAY, CLOUD):
            self.kill(host)
        if self._temporary is not None:
            self._temporary.cleanup()

    # time

    def run(self, seconds: float) -> None:
        """Let virtual time pass."""
        self.network.run(self.network.now + seconds)

    def finish(self, *, within: float = 600.0) -> float:
        """End what devices say and wait until everything is delivered; the virtual seconds that took.

        Two-way devices go on until all they said is answered. Raises `WorldError` when it takes longer than ``within``.
        """
        began = self.now
        while True:
            for device in self.devices:
                if not device.simulator.waiting():
                    device.stop()
            spool, waits = self.spool, any(device.speaks for device in self.devices)
            if not waits and spool is not None:
                status = spool.status()
                if not status.entries and not status.buffered and not spool.must_commit():
                    return self.now - began
            if self.now - began > within:
                raise WorldError(f"not delivered within {within:.0f} s")
            self.run(0.25)

    # starting and killing

    def start_cloud(self) -> None:
        """Start the cloud on what its folders hold."""
        place, tag = self._started(CLOUD)
        with self._mortal(CLOUD):
            keys = self._keystore(place, place.data, f"{tag} keys")
            sequences = self._open_sequences(CLOUD)
            self.store = store = RecordedStore(
                place.data / DATABASE, keys, self._passing,
                wall=self.network.wall(CLOUD), randomness=self._random(f"{tag} store"),
            )  # fmt: skip
            self.node = node = CloudNode(
                store=store,
                enrolment=store.enrolment("lab"),
                identity=load_cloud_identity(keys, self._random(f"{tag} identity")),
                sequences=sequences,
                stacks=self.stacks,
                counters=self.counters[CLOUD],
                randomness=self._random(f"{tag} node"),
                wall=self.network.wall(CLOUD),
            )
            node.start(self.now)
            self._host(CLOUD, node)

    def start_gateway(self) -> None:
        """Start the gateway on what its folders hold; its serial lines are open at once."""
        place, tag = self._started(GATEWAY)
        with self._mortal(GATEWAY):
            wall, counters = self.network.wall(GATEWAY), self.counters[GATEWAY]
            vault, keys = self._vault(place, tag)
            sequences = self._open_sequences(GATEWAY)
            self.spool = spool = RecordedSpool(
                place.data / SPOOL, keys, self.book, self._passing, mark=place.state / MARK, bounds=self._bounds,
                counters=counters, wall=wall, randomness=self._random(f"{tag} spool"), ledger=self._ledger,
            )  # fmt: skip
            link = Link(
                spool, vault, sequences, (GATEWAY, CLOUD), stack=self.stack, name=GATEWAY_NAME, uplink=self._uplink,
                counters=counters, randomness=self._random(f"{tag} link"), wall=wall,
            )  # fmt: skip
            bindings = BindingTable(device.binding for device in self.devices)
            self.engine = engine = GatewayEngine(
                spool, bindings, uplink=link, limits=self._limits, counters=counters, wall=wall
            )
            for device in self.devices:
                device.attach(engine)
            self._host(GATEWAY, engine, self._gateway_turn)

    def kill(self, host: str) -> None:
        """End the process on ``host`` as kill -9 does; nothing where it does not run."""
        place = self._places[host]
        if place.hosted is not None:
            place.hosted.die()
            place.hosted = None
            self.network.remove_host(host)
        sequences = self._sequences.pop(host, None)
        if sequences is not None:
            sequences.close()  # a dead process holds no lock
        if host == CLOUD:
            if self.store is not None:
                self.store.kill()
            self.store = self.node = None
            return
        for device in self.devices:
            device.detach()
        if self.spool is not None:
            self.spool.kill()
        self.spool = self.engine = None

    def kill_at(self, point: str, passes: int = 1, *, down: float = 1.0) -> None:
        """Kill the process that passes ``point`` (of `POINTS`) the ``passes``-th time from now; it starts again after
        ``down`` seconds."""
        host = GATEWAY if point.startswith("spool") else CLOUD
        if point not in POINTS or passes < 1:
            raise ValueError(f"there is no point {point!r}, or it is passed {passes} times")
        self._fuses[point] = _Fuse(host, passes, down)

    def restart(self, host: str, *, down: float = 0.0) -> None:
        """Kill ``host`` and start it again after ``down`` seconds of virtual time."""
        self.kill(host)
        if down:
            self.network.at(self.now + down, lambda: self._start(host))
        else:
            self._start(host)

    def stop_gateway(self) -> None:
        """End the gateway politely: what is buffered is committed and the shutdown marked as clean."""
        if self.spool is not None:
            self.spool.close()
        self.kill(GATEWAY)

    def _start(self, host: str) -> None:
        if self._places[host].hosted is None:
            (self.start_gateway if host == GATEWAY else self.start_cloud)()

    # what happens to links, clocks and files

    def partition(self, *, up: bool = False) -> None:
        """Cut (or with ``up`` mend) the link between gateway and cloud, both ways."""
        self.network.partition(GATEWAY, CLOUD, up=up)

    def step_clock(self, host: str, seconds: float) -> None:
        """Set the wall clock of ``host``, its devices' too where it is the gateway's."""
        self.network.step_clock(host, seconds)

    def backup(self, host: str) -> Path:
        """Copy the host's data folder as it is now, running or not, and return the copy. State is in no backup."""
        self._backups += 1
        copy = self.folder / f"backup-{self._backups}"
        shutil.copytree(self._places[host].data, copy, ignore=shutil.ignore_patterns("*.lock", "*-shm"))
        return copy

    def restore(self, host: str, backup: Path, pattern: str = "*") -> None:
        """Put a backup's files of ``pattern`` in place of those that are there; the process must not run."""
        self.delete(host, pattern)
        for file in backup.glob(pattern):
            shutil.copy2(file, self._places[host].data / file.name)

    def delete(self, host: str, pattern: str) -> None:
        """Delete files of the host's data folder; the process must not run."""
        if self._places[host].hosted is not None:
            raise WorldError(f"{host} runs: kill it first")
        for file in self._places[host].data.glob(pattern):
            file.unlink()

    # datagrams

    def capture(self) -> list[tuple[float, Address, bytes]]:
        """Keep everything that is sent from now on; the list grows."""
        self._history.keeps = True
        return self._history

    def replay(self, captured: list[tuple[float, Address, bytes]], *, every: float = 0.001) -> None:
        """Deliver what was captured once more, in its order, whatever the links do now; takes that much time."""
        self._history.keeps = False
        for number, (_, (source, target), data) in enumerate(list(captured)):
            self.network.at(self.now + number * every, functools.partial(self.inject, source, target, data))
        self.run(len(captured) * every)

    def inject(self, source: str, target: str, data: bytes) -> None:
        """Hand ``target`` a datagram that seems to come from ``source``, now."""
        hosted = self._places[target].hosted
        if hosted is not None:
            hosted.receive_datagram(data, (target, source), self.now)
            self.network.touch(target)

    # the account

    def account(self) -> Account:
        """What became of everything promised so far. The cloud must run."""
        store = self._running_store()
        read = store.read
        stored = read.frame_hashes()
        committed = self.book.entries()
        said = {device.urn: device.said for device in self.devices}
        found = tally(committed, stored, said, self.book.frames())
        totals = read.totals()
        return Account(
            lost=found.lost,
            duplicated=found.duplicated,
            unheard=found.unheard,
            untold=sum(len(times) for times in self.untold().values()),
            dropped=totals.dropped,
            missing=sum(epoch.missing for epoch in read.accounts()),
            unanswered=sum(device.simulator.waiting() for device in self.devices),
            committed=sum(counts.total() for counts in committed.values()),
            stored=sum(counts.total() for counts in stored.values()),
            observations=totals.observations,
            samples=totals.samples,
            datagrams=self._history.datagrams,
            bytes=self._history.bytes,
            history=self._history.name(),
        )

    def untold(self) -> dict[str, list[float]]:
        """By one-way device, the wall times of what it said unheard without a gap that tells of it."""
        spans: dict[str, list[tuple[float, float]]] = {}
        for gap in self.gaps("device"):
            spans.setdefault(gap.device, []).append((gap.start, gap.end))
        return {
            device.urn: times
            for device in self.devices
            if not device.kind.two_way
            and (times := untold(device.said_at, self.book.heard_at(device.urn), spans.get(device.urn, ())))
        }

    def gaps(self, kind: str = "") -> list[GapRow]:
        """The gaps the store knows, oldest first; of one ``kind`` ('dropped', 'device') or all."""
        rows = self._running_store().read.gaps(limit=1_000_000)
        return [row for row in reversed(rows) if kind in ("", row.kind)]

    def epochs(self) -> list[EpochAccount]:
        """The store's account of every epoch, oldest first."""
        return self._running_store().read.accounts()

    def enrol(self) -> None:
        """Enrol the gateway, which must not run, with a new one-time code and over the network as it stands. Raises
        `WorldError` when that leads to no keys."""
        if self._places[GATEWAY].hosted is not None:
            raise WorldError("the gateway runs: kill it first")
        self._enrolments += 1
        tag, wall = f"enrolment {self._enrolments}", self.network.wall(GATEWAY)
        code = create_code(
            self._running_store().enrolment("lab"), self.network.wall(CLOUD)(),
            gateway=GATEWAY_NAME, replaces=self._enrolments > 1, randomness=self._random(f"{tag} code"),
        )  # fmt: skip
        vault, _ = self._vault(self._places[GATEWAY], tag)
        begins = enrolment(vault, EnrolmentCode.from_text(code.text))
        endpoint = Endpoint(randomness=self._random(f"{tag} endpoint"), wall=wall)
        run = EnrolmentRun(endpoint, (GATEWAY, CLOUD), begins, randomness=self._random(f"{tag} run"))
        run.start(self.now)
        self.network.add_host(GATEWAY, run)
        until, event = self.now + ENROL_SECONDS, None
        while event is None and self.now < until:
            self.run(0.5)
            event = run.next_event()
        self.network.remove_host(GATEWAY)
        if not isinstance(event, KeysEstablished):
            raise WorldError(f"the gateway was not enrolled: {event}")
        with FileSequenceStore(self._places[GATEWAY].state / SEQUENCES) as sequences:
            vault.adopt(event.established, sequences)

    def vault(self) -> GatewayVault:
        """The gateway's vault as a command beside the running gateway opens it."""
        place = self._places[GATEWAY]
        return self._vault(place, f"command at {self.now}")[0]

    def _running_store(self) -> RecordedStore:
        if self.store is None:
            raise WorldError("the cloud does not run")
        return self.store

    # within

    def _place(self, host: str) -> _Place:
        data, state = self.folder / host / "data", self.folder / host / "state"
        for folder in (data, state / SEQUENCES):
            folder.mkdir(parents=True, mode=0o700)
        return _Place(data, state, MasterKey(self._random(f"{host} master")(32), "the lab"))

    def _random(self, name: str) -> Randomness:
        return self.network.randomness(name)

    def _started(self, host: str) -> tuple[_Place, str]:
        """Note a start; its name is part of every randomness, since a process never draws the same numbers again."""
        place = self._places[host]
        if place.hosted is not None:
            raise WorldError(f"{host} runs already")
        place.starts += 1
        return place, f"{host} {place.starts}"

    def _keystore(self, place: _Place, folder: Path, name: str) -> Keystore:
        wall = self.network.wall(CLOUD if place is self._places[CLOUD] else GATEWAY)
        return Keystore.open(folder / KEYS, place.master, wall=wall, randomness=self._random(name))

    def _vault(self, place: _Place, tag: str) -> tuple[GatewayVault, Keystore]:
        keys = self._keystore(place, place.data, f"{tag} keys")
        session = self._keystore(place, place.state, f"{tag} session keys")
        wall = self.network.wall(GATEWAY)
        return GatewayVault(keys, session, randomness=self._random(f"{tag} vault"), wall=wall), keys

    def _open_sequences(self, host: str) -> FileSequenceStore:
        opened = self._sequences[host] = FileSequenceStore(self._places[host].state / SEQUENCES)
        return opened

    def _host(self, host: str, engine: DatagramEngine, on_turn: Callable[[float], None] | None = None) -> None:
        hosted = self._places[host].hosted = Hosted(engine, lambda: self.kill(host))
        self.network.add_host(host, hosted, on_turn)

    @contextlib.contextmanager
    def _mortal(self, host: str) -> Iterator[None]:
        """What runs here is the process on ``host``, and ends when that is killed."""
        try:
            yield
        except Killed:
            self.kill(host)

    def _passing(self, point: str) -> None:
        fuse = self._fuses.get(point)
        if fuse is None:
            return
        fuse.left -= 1
        if not fuse.left:
            del self._fuses[point]
            self.network.at(self.now + fuse.down, lambda: self._start(fuse.host))
            raise Killed(point)

    def _device_due(self, device: AttachedDevice) -> None:
        try:
            device.exchange(self.now)
        except Killed:
            self.kill(GATEWAY)
        self.network.touch(GATEWAY)

    def _gateway_turn(self, now: float) -> None:
        """What the gateway's runtime does after every call: answers to devices, events."""
        try:
            for device in self._two_way:
                device.exchange(now)
        except Killed:
            self.kill(GATEWAY)
            return
        engine = self.engine
        while engine is not None and (event := engine.next_event()) is not None:
            self.events.append((now, event))


def causes(gaps: list[GapRow]) -> Counter[tuple[str, str]]:
    """How many gaps of each (device, cause)."""
    return Counter((gap.device, gap.cause) for gap in gaps)
