"""The simulator of devices that only speak: plays a loop of frames on a schedule, with faults on the line."""

import random
from collections.abc import Sequence

from vitalgate.devices.contract import Faults, Simulator
from vitalgate.vitals.observation import frame_hash

MAX_PENDING = 65536
"""Bytes that wait for the line; what is due beyond them is lost, as on any serial output."""
MAX_HASHES = 1_000_000
GARBAGE_MOST = 64


class Playback:
    """A `Simulator` that says ``frames`` in a loop, one every ``period`` seconds from ``start`` on.

    The first is complete at ``start + period``: what it says happened in that period. A seed chooses the place in the
    loop where to begin (0: at its beginning) and the faults. The schedule depends on nothing that the gateway does;
    what is due while the line is closed is said, and lost.

    Raises `ValueError` for an empty loop.
    """

    def __init__(self, frames: Sequence[bytes], period: float, start: float, faults: Faults, seed: int) -> None:
        if not frames:
            raise ValueError("a loop has at least one frame")
        self._frames = frames
        self._period = period
        self._start = start
        self._faults = faults
        self._random = random.Random(seed)
        self._first = seed * 37 % len(frames)
        self._said = 0
        self._open = False
        self._pending = bytearray()
        self._hashes: list[bytes] = []
        self._silent_until: float | None = None

    def connection_made(self, now: float) -> None:
        """The line to the gateway is open."""
        self._open = True

    def connection_lost(self, now: float) -> None:
        """The line closed; what waited for it is lost."""
        self._open = False
        self._pending.clear()

    def receive_data(self, data: bytes, now: float) -> None:
        """Nothing: this device does not listen."""

    def data_to_send(self, now: float) -> bytes:
        """Take what is due on the line."""
        data = bytes(self._pending)
        self._pending.clear()
        return data

    def next_timeout(self) -> float | None:
        """When the next frame is due."""
        return self._start + (self._said + 1) * self._period

    def handle_timeout(self, now: float) -> None:
        """Say every frame that is due by ``now``."""
        while (due := self._start + (self._said + 1) * self._period) <= now:
            number = self._said
            self._said += 1
            raw = self.frame(self._frames[(self._first + number) % len(self._frames)], number)
            if len(self._hashes) < MAX_HASHES:
                self._hashes.append(frame_hash(raw))
            if self._open:
                heard = self._on_the_line(raw, due)
                if len(self._pending) + len(heard) <= MAX_PENDING:
                    self._pending += heard

    def sent_frames(self) -> list[bytes]:
        """Take the hashes of the frames said since the last call, as they were before any fault."""
        hashes, self._hashes = self._hashes, []
        return hashes

    def waiting(self) -> int:
        """0: nobody answers this device."""
        return 0

    def frame(self, looped: bytes, number: int) -> bytes:
        """The frame to say for the loop's ``looped`` as the ``number``-th one (from 0); the same unless overridden."""
        return looped

    def _on_the_line(self, raw: bytes, due: float) -> bytes:
        """What of ``raw`` reaches the gateway."""
        faults, chance = self._faults, self._random.random
        if self._silent_until is not None:
            if due < self._silent_until:
                return b""
            self._silent_until = None
        if faults.drop or faults.flip:
            damaged = bytearray()
            for byte in raw:
                if faults.drop and chance() < faults.drop:
                    continue
                flipped = faults.flip and chance() < faults.flip
                damaged.append(byte ^ 1 << self._random.randrange(8) if flipped else byte)
            raw = bytes(damaged)
        if faults.garbage and chance() < faults.garbage:
            raw = self._random.randbytes(self._random.randint(1, GARBAGE_MOST)) + raw
        if faults.stall and chance() < faults.stall:
            self._silent_until = due + faults.stall_seconds
            raw = raw[: self._random.randrange(len(raw))] if raw else raw
        return raw


_contract: type[Simulator] = Playback  # the registry makes simulators by name, so the type checker looks here
