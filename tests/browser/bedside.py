"""A ward in one process: simulated devices play recordings, their codecs decode them, the live board shows them.

The same simulators, codecs, identities and board as in the product; what is left out is the way between them.
"""

import threading
import time

from vitalgate.cloud.live import LiveBoard
from vitalgate.counters import Counters
from vitalgate.devices.contract import Faults, Frame
from vitalgate.devices.registry import KINDS
from vitalgate.vitals.observation import Status


class Bed:
    """One simulated device. ``lag`` collects that many seconds of frames before they are published together."""

    def __init__(self, board, slug, device, *, label="", security="coap-oscore", gateway="ward-3", lag=0.0, start=None,
                 patient="", location="", mark=Status.DEMO, seed=1):  # fmt: skip
        self.board, self.device, self.security, self.gateway, self.lag = board, device, security, gateway, lag
        self.patient, self.location, self.mark = patient, location, mark
        kind = KINDS[slug]
        self.engine = kind.make_engine(time.time, Counters())
        self.start = time.monotonic() if start is None else start
        self.simulator = kind.make_simulator(self.start, time.time, Faults(), seed)
        self.simulator.connection_made(self.start)
        self.engine.connection_made(device, self.start)
        self.silent = False
        self.due = self.start + lag
        self.waiting = []
        if label:
            board.name(device, label)

    def turn(self, now):
        """Let the device speak up to monotonic time ``now``, and publish what it said."""
        while (due := self.simulator.next_timeout()) is not None and due <= now:
            self.simulator.handle_timeout(due)
            self.engine.receive_data(self.simulator.data_to_send(due), self.device, due)
        if self.silent:
            self.waiting.clear()
        while (event := self.engine.next_event()) is not None:
            if isinstance(event, Frame) and not self.silent:
                self.waiting += [
                    row.bind(self.device, self.patient, self.location, self.mark) for row in event.observations
                ]
        if self.waiting and now >= self.due:
            self.due = now + self.lag
            self.board.publish(self.gateway, self.security, self.device, self.waiting, time.time())
            self.waiting = []


class Ward:
    """Beds that are turned by a thread until the ward closes."""

    def __init__(self, board=None):
        self.board = board or LiveBoard()
        self.beds = []
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def add(self, slug, device, **how):
        bed = Bed(self.board, slug, device, **how)
        self.beds.append(bed)
        return bed

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._closing.set()
        self._thread.join(5)

    def _run(self):
        while not self._closing.wait(0.02):
            now = time.monotonic()
            for bed in tuple(self.beds):
                bed.turn(now)
