"""A store on a real file, a wall clock driven by hand, and entries as a gateway's spool makes them."""

import itertools
import os
from decimal import Decimal

import pytest

from vitalgate.cloud.store.store import Store
from vitalgate.gateway.entry import NOTICE_HASH, Entry
from vitalgate.gateway.secrets import FixedKeys
from vitalgate.vitals.observation import Alarm, Observation, Priority, SampleFormat, Samples, Status, TrafficClass

DEVICE = "urn:dev:mac:0024befffe804ff1"
START = 1_795_000_000.0


class Clock:
    """Wall and monotonic time, moved by hand."""

    def __init__(self, at=START):
        self.at = at

    def __call__(self):
        return self.at

    def pass_(self, seconds):
        self.at += seconds


class Spool:
    """Numbers entries as a gateway does: one epoch, sequences from 1."""

    def __init__(self, epoch, clock):
        self.epoch = epoch
        self.clock = clock
        self.numbers = itertools.count(1)

    def numerics(self, device=DEVICE, heart_rate="72.50", **fields):
        sequence = next(self.numbers)
        name = (self.epoch ^ sequence).to_bytes(16, "big")
        common = {
            "gateway_time": self.clock(),
            "frame_hash": name,
            "decoder": "ivy450c/1",
            "status": Status.DEMO,
            "device": device,
            "epoch": self.epoch,
            "sequence": sequence,
        } | fields
        observations = (
            Observation(147842, Decimal(heart_rate), "/min", **common),
            Observation(150456, Decimal("97"), "%", **common),
        )
        return Entry(self.epoch, sequence, TrafficClass.VITAL_PERIODIC, device, name, self.clock(), observations)

    def wave(self, device=DEVICE, data=bytes(range(50)), **fields):
        sequence = next(self.numbers)
        name = (self.epoch ^ sequence).to_bytes(16, "big")
        samples = Samples(Decimal(50), SampleFormat.U8, data, Decimal("0.5"), Decimal(-10), missing=7)
        observation = Observation(
            131330, samples, "mV", self.clock(), name, "ivy450c/1", device=device, epoch=self.epoch, sequence=sequence,
            **fields,
        )  # fmt: skip
        return Entry(self.epoch, sequence, TrafficClass.WAVEFORM_REALTIME, device, name, self.clock(), (observation,))

    def alarm(self, device=DEVICE, text="ASYSTOLE"):
        return self.numerics(device, alarm=Alarm(text, Priority.HIGH))

    def notice(self, notice, device=""):
        return Entry(self.epoch, next(self.numbers), TrafficClass.BULK, device, NOTICE_HASH, self.clock(), (), notice)

    def skip(self, count=1):
        """Number entries that will never come."""
        return [next(self.numbers) for _ in range(count)]


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def keys():
    return FixedKeys(os.urandom(32))


@pytest.fixture
def location(tmp_path):
    return tmp_path / "cloud" / "store.db"


@pytest.fixture
def store(location, keys, clock):
    opened = Store(location, keys, wall=clock)
    yield opened
    opened.close()


@pytest.fixture
def spool(clock):
    return Spool(0xF0E1D2C3B4A59687, clock)
