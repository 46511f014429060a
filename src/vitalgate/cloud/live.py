"""The board of the present: what the dashboard shows now, in memory, safe to read from any thread.

Ingest publishes to it after each commit; it is filled from the store at start. Every change raises ``version``, so a
viewer takes one :meth:`LiveBoard.snapshot` and then :meth:`LiveBoard.changes_since` the version it knows. Versions
start from the wall clock in microseconds, so a viewer that outlives a restart of the cloud is given a whole snapshot.

Both calls return the same JSON-ready shape (times are seconds since 1970 UTC, values are text with the digits the
device sent, samples are numbers in the metric's unit or null where there was no signal)::

    {"version": int, "full": bool, "time": float, "devices": [DEVICE], "gateways": [GATEWAY],
     "quarantine": [QUARANTINE], "gaps": [GAP]}
    DEVICE = {"device": URN, "label", "decoder", "gateway", "security", "patient", "location", "last_heard": float,
              "last_time": float | null, "stale_after": float, "marks": ["stale" | "lost" | "gap" | "demo" | "test"],
              "alarms": [{"key", "text", "priority": 0..3, "time"}], "numerics": [NUMERIC], "waves": [WAVE]}
    NUMERIC = {"key", "metric": int, "name", "short", "group", "unit", "value": text | null, "text": text | null,
               "status": [text], "time": float, "alarm": {"text", "priority"} | null}
    WAVE = {"key", "metric", "name", "short", "group", "unit", "rate": float, "low": float, "high": float,
            "time": float, "index": int, "samples": [float | null]}
    GATEWAY = {"gateway", "security", "last_heard", "marks": ["lost" | "revoked"]}
    QUARANTINE = {"gateway", "kind", "port", "serial", "frames", "first", "last"}
    GAP = {"device", "gateway", "kind", "cause", "start", "end", "count"}

In changes (``full`` false) ``devices`` holds only devices that changed, with only the numerics that changed and only
the new samples; ``index`` counts samples from the board's start, so a viewer sees at once when it missed some.
``quarantine`` and ``gaps`` are null where nothing changed, else whole.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from vitalgate.cloud.live_rows import (
    DeviceRow,
    GatewayRow,
    Json,
    NumericRow,
    WaveRow,
    numeric_json,
    observation_key,
    wave_json,
)
from vitalgate.devices.registry import KINDS
from vitalgate.engine import Wall
from vitalgate.vitals.observation import Observation, Samples, Status

MAX_RATE = 100_000.0
"""Samples a second: a stretch that claims more is not drawn."""


@dataclass(frozen=True, slots=True)
class BoardLimits:
    """How much the board holds; what is beyond a limit is left out and counted in :attr:`LiveBoard.left_out`."""

    devices: int = 1024
    devices_of_gateway: int = 512
    gateways: int = 256
    numerics: int = 64
    waves: int = 8
    wave_seconds: float = 12.0
    wave_samples: int = 12_000
    gaps: int = 64
    quarantine: int = 128
    stale_after: float = 10.0
    lost_after: float = 20.0
    gap_mark: float = 300.0
    """Seconds for which a gap marks its device."""


class LiveBoard:
    """The board. Writers are ingest (:meth:`publish`, :meth:`heard`, ...), readers the dashboard's threads.

    ``wall`` gives seconds since 1970, ``clock`` monotonic seconds (ages are judged by it, so that a stepped wall clock
    makes nothing look fresh or stale). ``idle_after(decoder)`` gives the silence after which a device counts as stale;
    by default what the registry of device kinds says.
    """

    def __init__(
        self,
        *,
        limits: BoardLimits | None = None,
        wall: Wall = time.time,
        clock: Callable[[], float] = time.monotonic,
        idle_after: Callable[[str], float] | None = None,
    ) -> None:
        self._limits = limits or BoardLimits()
        self._wall = wall
        self._clock = clock
        self._idle_after = idle_after or self._patience
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []
        self._first = self._version = int(wall() * 1_000_000)
        self._devices: dict[str, DeviceRow] = {}
        self._gateways: dict[str, GatewayRow] = {}
        self._quarantine: dict[tuple[str, str, str, str], Json] = {}
        self._quarantine_version = self._version
        self._gaps: deque[Json] = deque(maxlen=self._limits.gaps)
        self._gaps_version = self._version
        self.left_out = 0
        """Observations, devices or reports that found no room on the board (they are stored all the same)."""

    @property
    def version(self) -> int:
        """The version of the newest change."""
        return self._version

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` after each change, in the thread that made it; returns what ends the subscription.

        A listener must return at once and be callable from any thread, for example
        ``lambda: loop.call_soon_threadsafe(event.set)``.
        """
        with self._lock:
            self._listeners.append(listener)

        def cancel() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return cancel

    # what the cloud writes

    def heard(self, gateway: str, security: str, at: float | None = None) -> None:
        """A gateway's link spoke under ``security`` (a slug of `vitalgate.net.stacks`), at wall time ``at`` or now."""
        with self._lock:
            self._version += 1
            self._hear(gateway, security, self._wall() if at is None else at)
        self._tell()

    def publish(
        self, gateway: str, security: str, device: str, observations: Iterable[Observation], received_at: float
    ) -> None:
        """Show committed observations of one device; older ones than shown are left to the store."""
        with self._lock:
            self._version += 1
            self._hear(gateway, security, received_at)
            row = self._device(device, gateway)
            if row is None:
                return
            row.version = self._version
            row.gateway = gateway
            row.last_heard = max(row.last_heard, received_at)
            row.heard = max(row.heard, self._monotonic(received_at))
            for observation in observations:
                self._show(row, observation)
        self._tell()

    def name(self, device: str, label: str) -> None:
        """Give a device the label that people read."""
        with self._lock:
            row = self._device(device)
            if row is None:
                return
            self._version += 1
            row.label = label
            row.version = self._version
        self._tell()

    def add_gap(self, gateway: str, device: str, kind: str, cause: str, start: float, end: float, count: int) -> None:
        """Show a gap: ``kind`` is 'device' (the device spoke unheard) or 'dropped' (``count`` numbered entries)."""
        gap: Json = {"device": device, "gateway": gateway, "kind": kind, "cause": cause}
        gap |= {"start": start, "end": end, "count": count}
        with self._lock:
            self._version += 1
            self._gaps.append(gap)
            self._gaps_version = self._version
            row = self._devices.get(device)
            if row is not None:
                row.gap_until = self._monotonic(end) + self._limits.gap_mark
                row.version = self._version
        self._tell()

    def quarantined(
        self,
        gateway: str,
        *,
        kind: str,
        port: str,
        serial: str,
        frames: int,
        first: float,
        last: float,
    ) -> None:
        """Show a device that speaks at a gateway but is not enrolled there."""
        key = (gateway, kind, port, serial)
        with self._lock:
            if key not in self._quarantine and len(self._quarantine) >= self._limits.quarantine:
                oldest = min(self._quarantine, key=lambda k: self._quarantine[k]["last"])
                del self._quarantine[oldest]
                self.left_out += 1
            self._version += 1
            self._quarantine_version = self._version
            self._quarantine[key] = {
                "gateway": gateway,
                "kind": kind,
                "port": port,
                "serial": serial,
                "frames": frames,
                "first": first,
                "last": last,
            }
        self._tell()

    def release(self, gateway: str, *, kind: str, port: str, serial: str) -> None:
        """Take a device off the quarantine list (it was enrolled)."""
        with self._lock:
            if self._quarantine.pop((gateway, kind, port, serial), None) is None:
                return
            self._version += 1
            self._quarantine_version = self._version
        self._tell()

    def release_until(self, gateway: str, until: float) -> None:
        """Take off the quarantine list what a gateway reported up to ``until``, when it started anew."""
        with self._lock:
            past = [key for key, row in self._quarantine.items() if key[0] == gateway and row["last"] <= until]
            if not past:
                return
            for key in past:
                del self._quarantine[key]
            self._version += 1
            self._quarantine_version = self._version
        self._tell()

    def revoke(self, gateway: str, revoked: bool = True) -> None:
        """Show that a gateway's identity is revoked (or is again in force)."""
        with self._lock:
            row = self._gateway(gateway)
            if row is None:
                return
            self._version += 1
            row.revoked = revoked
            row.version = self._version
        self._tell()

    # what viewers read

    def snapshot(self) -> Json:
        """The whole board."""
        with self._lock:
            return self._read(-1)

    def changes_since(self, version: int) -> Json:
        """What changed after ``version``; the whole board (``full`` true) where that version is not this board's."""
        with self._lock:
            return self._read(version if self._first <= version <= self._version else -1)

    # under the lock

    def _patience(self, decoder: str) -> float:
        kind = KINDS.get(decoder.partition("/")[0])
        return self._limits.stale_after if kind is None else kind.idle_after

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    def _monotonic(self, wall: float) -> float:
        return self._clock() - max(0.0, self._wall() - wall)

    def _gateway(self, name: str) -> GatewayRow | None:
        row = self._gateways.get(name)
        if row is None:
            if len(self._gateways) >= self._limits.gateways:
                self.left_out += 1
                return None
            row = self._gateways[name] = GatewayRow(name)
        return row

    def _hear(self, gateway: str, security: str, at: float) -> None:
        row = self._gateway(gateway)
        if row is None:
            return
        if security != row.security:
            for device in self._devices.values():
                if device.gateway == gateway:
                    device.version = self._version
        row.security = security
        row.version = self._version
        row.last_heard = max(row.last_heard, at)
        row.heard = max(row.heard, self._monotonic(at))

    def _device(self, urn: str, gateway: str = "") -> DeviceRow | None:
        row = self._devices.get(urn)
        if row is None:
            theirs = sum(row.gateway == gateway for row in self._devices.values()) if gateway else 0
            if len(self._devices) >= self._limits.devices or theirs >= self._limits.devices_of_gateway:
                self.left_out += 1
                return None
            row = self._devices[urn] = DeviceRow(urn)
        return row

    def _show(self, row: DeviceRow, observation: Observation) -> None:
        at = observation.gateway_time
        if row.last_time is None or at >= row.last_time:
            row.last_time = at
            row.patient, row.location = observation.patient, observation.location
            row.demo = Status.DEMO in observation.status
            row.test = Status.TEST in observation.status
            if observation.decoder != row.decoder:
                row.decoder = observation.decoder
                row.stale_after = self._idle_after(observation.decoder)
        key = observation_key(observation)
        shown = row.alarms.get(key)
        if shown is None or at >= shown.gateway_time:
            if observation.alarm is not None:
                if shown is not None or len(row.alarms) < self._limits.numerics:
                    row.alarms[key] = observation
            elif shown is not None:
                del row.alarms[key]
        if isinstance(observation.value, Samples):
            self._extend(row, key, observation, observation.value)
            return
        known = row.numerics.get(key)
        if known is None:
            if len(row.numerics) >= self._limits.numerics:
                self.left_out += 1
                return
            row.numerics[key] = NumericRow(self._version, observation)
        elif at >= known.observation.gateway_time:
            known.version = self._version
            known.observation = observation

    def _extend(self, row: DeviceRow, key: str, observation: Observation, samples: Samples) -> None:
        rate = float(samples.rate)
        if not 0 < rate <= MAX_RATE:
            self.left_out += 1
            return
        wave = row.waves.get(key)
        limit = min(self._limits.wave_samples, int(self._limits.wave_seconds * rate) + 1)
        if wave is None or wave.rate != rate:
            if wave is None and len(row.waves) >= self._limits.waves:
                self.left_out += 1
                return
            index = wave.index if wave is not None else 0
            wave = row.waves[key] = WaveRow(observation, rate, index)
        elif observation.gateway_time < wave.observation.gateway_time:
            return  # arrived late: kept in the store, but the sweep has passed
        else:
            silence = observation.gateway_time - wave.observation.gateway_time - len(samples) / rate
            if silence > 0.5 + len(samples) / rate:  # more than jitter: show that there was nothing
                wave.append(self._version, None, min(limit, int(silence * rate)), limit)
            wave.observation = observation
        wave.append(self._version, samples, len(samples), limit)

    def _refresh(self) -> None:
        """Bring marks that depend on time up to date; a mark that changed is a change like any other."""
        now = self._clock()
        for gateway in self._gateways.values():
            lost = now - gateway.heard > self._limits.lost_after
            marks = tuple(word for word, on in (("lost", lost), ("revoked", gateway.revoked)) if on)
            if marks != gateway.marks:
                self._version += 1
                gateway.marks, gateway.version = marks, self._version
        for row in self._devices.values():
            home = self._gateways.get(row.gateway)
            age = self._wall() - row.last_time if row.last_time is not None else 0.0
            on_board = (
                ("stale", max(now - row.heard, age) > row.stale_after),  # silent, or only old data comes
                ("lost", home is not None and "lost" in home.marks),
                ("gap", now < row.gap_until),
                ("demo", row.demo),
                ("test", row.test),
            )
            marks = tuple(word for word, on in on_board if on)
            if marks != row.marks:
                self._version += 1
                row.marks, row.version = marks, self._version

    def _read(self, since: int) -> Json:
        self._refresh()
        full = since < 0
        return {
            "version": self._version,
            "full": full,
            "time": self._wall(),
            "devices": [self._device_json(row, since) for row in self._devices.values() if row.version > since],
            "gateways": [
                {
                    "gateway": row.gateway,
                    "security": row.security,
                    "last_heard": row.last_heard,
                    "marks": list(row.marks),
                }
                for row in self._gateways.values()
                if row.version > since
            ],
            "quarantine": list(self._quarantine.values()) if self._quarantine_version > since else None,
            "gaps": list(self._gaps) if self._gaps_version > since else None,
        }

    def _device_json(self, row: DeviceRow, since: int) -> Json:
        home = self._gateways.get(row.gateway)
        waves = (wave_json(wave, since) for wave in row.waves.values())
        return {
            "device": row.device,
            "label": row.label,
            "decoder": row.decoder,
            "gateway": row.gateway,
            "security": home.security if home else "",
            "patient": row.patient,
            "location": row.location,
            "last_heard": row.last_heard,
            "last_time": row.last_time,
            "stale_after": row.stale_after,
            "marks": list(row.marks),
            "alarms": [
                {
                    "key": key,
                    "text": shown.alarm.text,
                    "priority": int(shown.alarm.priority),
                    "time": shown.gateway_time,
                }
                for key, shown in row.alarms.items()
                if shown.alarm is not None
            ],
            "numerics": [numeric_json(known.observation) for known in row.numerics.values() if known.version > since],
            "waves": [shape for shape in waves if shape is not None],
        }
