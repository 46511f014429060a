"""A simulated bedside monitor that reports a result message (ORU^R01, IHE PCD-01) a second over MLLP.

Real: the ECG (`recordings.ecg`, at 250 Hz, its baseline removed as a monitor does) and heart and pulse rate, counted
from its beats. Modelled, since no package holds a recording: saturation with one fall below its limit in each loop
(alarmed), respiration rate, temperature, and a cuff measurement a minute.

Every message is marked as training data (MSH-11 ``T``). The monitor names itself by an EUI-64, made from the seed with
the bit of locally given addresses set, in MSH-3 and OBX-18.

As monitors that store and forward do, it keeps what was not acknowledged, and sends it again unaltered:

============================  ========================================================================================
After                         It
============================  ========================================================================================
AA                            forgets the message
AE                            waits 1 s, then sends again everything unanswered, in its order
AR                            does the same, at most 3 times a message: damage on the line looks like this too
10 s without an answer        sends again everything unanswered
a lost connection             sends again everything unanswered, once it is open again
one hour (3600 messages)      gives the oldest up, and counts it in ``given_up``
============================  ========================================================================================

At most `WINDOW` messages are under way at a time. MLLP has no checksum: what faults on the line alter within a value
nobody can see.
"""

import functools
import math
import random
from collections import deque
from dataclasses import dataclass
from typing import Final

from vitalgate.devices import recordings
from vitalgate.devices.contract import Faults, Simulator
from vitalgate.devices.hl7.er7 import Er7Error, parse, time_text
from vitalgate.devices.hl7.mllp import Block, Deframer, frame
from vitalgate.devices.playback import MAX_HASHES, Playback
from vitalgate.engine import Wall
from vitalgate.vitals.observation import frame_hash

PERIOD: Final = 1.0
ECG_RATE: Final = 250
QUEUE: Final = 3600
WINDOW: Final = 16
PATIENCE: Final = 10.0
"""Seconds it waits for an answer."""
PAUSE: Final = 1.0
"""Seconds it waits after AE or AR."""
REJECTIONS: Final = 3
TRANSIT: Final = 0.2
"""Seconds from the R wave to the pulse at the finger."""
DESATURATION: Final = (180.0, 225.0)
"""When in the loop the saturation falls, and when it begins to recover, in s."""
MAX_ANSWER: Final = 4096

_MDS: Final = "69965^MDC_DEV_MON_PHYSIO_MULTI_PARAM_MDS^MDC"
_BEATS: Final = "264864^MDC_DIM_BEAT_PER_MIN^MDC"
_BREATHS: Final = "264928^MDC_DIM_RESP_PER_MIN^MDC"
_PERCENT: Final = "262688^MDC_DIM_PERCENT^MDC"
_MMHG: Final = "266016^MDC_DIM_MMHG^MDC"
_CELSIUS: Final = "268192^MDC_DIM_DEGC^MDC"
_MILLIVOLT: Final = "266418^MDC_DIM_MILLI_VOLT^MDC"
_HERTZ: Final = "264608^MDC_DIM_HZ^MDC"
_PROFILE: Final = "IHE_PCD_ORU_R01^IHE PCD^1.3.6.1.4.1.19376.1.6.1.1.1^ISO"
_CUFF_TIME: Final = b"\0"
"""Stands in the loop for the time of the last cuff measurement."""


@dataclass(frozen=True, slots=True)
class _Unsaid:
    """A message that nobody acknowledged yet."""

    control_id: str
    block: bytes


@dataclass(slots=True)
class _UnderWay:
    """A message that was sent."""

    unsaid: _Unsaid
    sent_at: float


class Hl7Simulator(Playback):
    """The monitor: one message a second; raises `RecordingError` where recordings are not installed."""

    def __init__(self, start: float, wall: Wall, faults: Faults, seed: int) -> None:
        super().__init__(bodies(), PERIOD, start, faults, seed)
        self._wall = wall
        self._eui = f"0200{seed & (1 << 48) - 1:012X}"
        self._bed = seed
        self._series = f"{max(0, int(wall() * 1000)):X}"
        self._waiting: deque[_Unsaid] = deque()
        self._under_way: dict[str, _UnderWay] = {}
        self._rejections: dict[str, int] = {}
        self._answers = Deframer(MAX_ANSWER)
        self._resume: float | None = None
        self.acknowledged = 0
        self.given_up = 0
        self.rejected = 0

    def connection_made(self, now: float) -> None:
        """The connection is open; the next deadline, at once, sends what waits."""
        super().connection_made(now)
        self._answers = Deframer(MAX_ANSWER)
        self._resume = now

    def connection_lost(self, now: float) -> None:
        """The connection closed; what was under way is sent again."""
        super().connection_lost(now)
        self._again()
        self._resume = None

    def receive_data(self, data: bytes, now: float) -> None:
        """Hear the gateway's acknowledgements."""
        for found in self._answers.feed(data):
            if isinstance(found, Block):
                self._answer(found.message, now)
        self._send(now)

    def next_timeout(self) -> float | None:
        """The next message, or a message's patience, or the end of a pause."""
        due = [self._start + (self._said + 1) * self._period]
        if self._resume is not None:
            due.append(self._resume)
        elif self._under_way:
            due.append(self._oldest_sent() + PATIENCE)
        return min(due)

    def handle_timeout(self, now: float) -> None:
        """Make the messages that are due by ``now``, and send what may be sent."""
        while (due := self._start + (self._said + 1) * self._period) <= now:
            self._produce(self._wall() - (now - due))
        if self._resume is not None:
            if self._resume <= now:
                self._resume = None
                self._again()
        elif self._under_way and self._oldest_sent() + PATIENCE <= now:
            self._again()
        self._send(now)

    def waiting(self) -> int:
        """How many messages are not acknowledged."""
        return len(self._waiting) + len(self._under_way)

    def _produce(self, at: float) -> None:
        number = self._said
        self._said += 1
        control_id = f"{self._series}{number:07d}"
        raw = self._message(self._frames[(self._first + number) % len(self._frames)], number, control_id, at)
        if len(self._hashes) < MAX_HASHES:
            self._hashes.append(frame_hash(raw))
        if self.waiting() >= QUEUE:
            self.given_up += 1
            if self._under_way:
                self._forget(next(iter(self._under_way)))
            else:
                self._rejections.pop(self._waiting.popleft().control_id, None)
        self._waiting.append(_Unsaid(control_id, frame(raw)))

    def _message(self, body: bytes, number: int, control_id: str, at: float) -> bytes:
        """The message that ends at wall time ``at``; ``body`` is its part of the loop."""
        now, begin = time_text(at), time_text(at - PERIOD)
        # A cuff measurement stands at each whole minute of the loop.
        cuff = time_text(at - (self._first + number) % len(self._frames) % 60)
        source = f"VITALGATE SIM^{self._eui}^EUI-64"
        order = f"{control_id}^{source}"
        head = (
            f"MSH|^~\\&|{source}|VITALGATE|||{now}||ORU^R01^ORU_R01|{control_id}|T|2.6|||NE|AL||UNICODE UTF-8|||"
            f"{_PROFILE}\r"
            f"PID|||SIM-{self._bed:04d}^^^VITALGATE^PI||SIMULATED^PATIENT^^^^^L\r"
            f"PV1||I|SIMULATION^1^{self._bed}\r"
            f"OBR|1|{order}|{order}|182777000^monitoring of patient^SCT|||{begin}|{now}\r"
            f"OBX|1||{_MDS}|1.0.0.0|||||||X|||||||{self._eui}^VITALGATE SIM\r"
        )
        return head.encode("ascii") + body.replace(_CUFF_TIME, cuff.encode("ascii"))

    def _answer(self, raw: bytes, now: float) -> None:
        try:
            segment = parse(raw).first("MSA")
        except Er7Error:
            return
        if segment is None:
            return
        code, control_id = segment.text(1), segment.text(2)
        if control_id not in self._under_way:
            return  # an answer to a message that was sent again, or to one the line had damaged
        if code == "AA":
            self._forget(control_id)
            self.acknowledged += 1
        elif code in ("AE", "AR"):
            if code == "AR":
                self._rejections[control_id] = self._rejections.get(control_id, 0) + 1
                if self._rejections[control_id] >= REJECTIONS:
                    self._forget(control_id)
                    self.rejected += 1
                    return
            if self._resume is None:
                self._resume = now + PAUSE

    def _forget(self, control_id: str) -> None:
        del self._under_way[control_id]
        self._rejections.pop(control_id, None)

    def _oldest_sent(self) -> float:
        return next(iter(self._under_way.values())).sent_at

    def _again(self) -> None:
        """What is under way waits again, before everything newer."""
        self._waiting.extendleft(one.unsaid for one in reversed(self._under_way.values()))
        self._under_way.clear()

    def _send(self, now: float) -> None:
        if not self._open or self._resume is not None:
            return
        while self._waiting and len(self._under_way) < WINDOW:
            unsaid = self._waiting.popleft()
            self._under_way[unsaid.control_id] = _UnderWay(unsaid, now)
            self._pending += self._on_the_line(unsaid.block, now)


@functools.cache
def bodies() -> tuple[bytes, ...]:
    """The loop: the OBX segments behind the MDS, one message a second, as long as the ECG lasts."""
    np = recordings.numpy()
    ecg = recordings.ecg()
    seconds = int(ecg.seconds) // 60 * 60
    beats = recordings.beats(ecg)
    beats = beats[beats < seconds - 0.3]
    wave = recordings.resample(ecg, ECG_RATE)[: seconds * ECG_RATE]
    width = 2 * ECG_RATE + 1
    wave = wave - np.convolve(np.pad(wave, ECG_RATE, mode="edge"), np.full(width, 1 / width), mode="valid")
    wave = np.round(wave, 3) + 0.0  # no negative zeros
    chance = random.Random(26)  # the model's own: the loop is the same for every seed
    made = []
    cuff: tuple[int, int, int, int] = (0, 0, 0, 0)
    for second in range(seconds):
        end = second + 1.0
        heart = recordings.rate_per_minute(beats, end, seconds, 8) or 0
        pulse = recordings.rate_per_minute(beats + TRANSIT, end, seconds, 4) or 0
        if second % 60 == 0:
            systolic, diastolic = 118 + chance.randint(-6, 8), 76 + chance.randint(-4, 5)
            cuff = (systolic, diastolic, round(diastolic + (systolic - diastolic) / 3), heart)
        samples = "^".join(f"{value:.3f}" for value in wave[second * ECG_RATE : (second + 1) * ECG_RATE])
        made.append(_body(heart, pulse, _saturation(end), _breaths(end), _temperature(end, seconds), cuff, samples))
    return tuple(made)


def _saturation(now: float) -> int:
    """SpO2 in percent: about 97, and one fall to 88 in a loop."""
    begin, end = DESATURATION
    depth = min(max((now - begin) / 30.0, 0.0), max((end + 20.0 - now) / 20.0, 0.0), 1.0)
    return round(97.3 + 0.8 * math.sin(now / 17.0) - 9.0 * depth)


def _breaths(now: float) -> int:
    return round(15.0 + 2.0 * math.sin(now / 23.0))


def _temperature(now: float, seconds: int) -> str:
    return f"{36.8 + 0.2 * math.sin(2 * math.pi * now / seconds):.1f}"


def _flag(value: float, low: float, high: float) -> str:
    """OBX-8 of a value by its limits: an active alarm of medium priority, or nothing."""
    return "" if low <= value <= high else f"{'L' if value < low else 'H'}~PM~ALACT"


def _body(
    heart: int, pulse: int, saturation: int, breaths: int, temperature: str, cuff: tuple[int, ...], samples: str
) -> bytes:
    """One second's OBX segments, from the second on (the first, the MDS, bears the device's own number)."""
    cuff_time = _CUFF_TIME.decode()
    rows = (
        ("", "69798^MDC_DEV_ECG_VMD^MDC", "1.1.0.0", "", "", "", "", ""),
        ("", "69799^MDC_DEV_ECG_CHAN^MDC", "1.1.1.0", "", "", "", "", ""),
        ("NM", "147842^MDC_ECG_HEART_RATE^MDC", "1.1.1.1", f"{heart}", _BEATS, "40-140", _flag(heart, 40, 140), ""),
        ("NA", "131330^MDC_ECG_ELEC_POTL_II^MDC", "1.1.1.1001", samples, _MILLIVOLT, "", "", ""),
        ("NM", "0^MDC_ATTR_SAMP_RATE^MDC", "1.1.1.1001.1", f"{ECG_RATE}", _HERTZ, "", "", ""),
        ("NR", "0^MDC_ATTR_DATA_RANGE^MDC", "1.1.1.1001.2", "-10^10", _MILLIVOLT, "", "", ""),
        ("NM", "151562^MDC_RESP_RATE^MDC", "1.1.1.2", f"{breaths}", _BREATHS, "8-30", _flag(breaths, 8, 30), ""),
        ("", "69642^MDC_DEV_ANALY_SAT_O2_VMD^MDC", "1.2.0.0", "", "", "", "", ""),
        ("", "69643^MDC_DEV_ANALY_SAT_O2_CHAN^MDC", "1.2.1.0", "", "", "", "", ""),
        (
            "NM", "150456^MDC_PULS_OXIM_SAT_O2^MDC", "1.2.1.1", f"{saturation}", _PERCENT, "90-100",
            _flag(saturation, 90, 100), "",
        ),
        ("NM", "149530^MDC_PULS_OXIM_PULS_RATE^MDC", "1.2.1.2", f"{pulse}", _BEATS, "", "", ""),
        ("", "70686^MDC_DEV_PRESS_BLD_NONINV_VMD^MDC", "1.3.0.0", "", "", "", "", ""),
        ("", "70687^MDC_DEV_PRESS_BLD_NONINV_CHAN^MDC", "1.3.1.0", "", "", "", "", ""),
        ("NM", "150021^MDC_PRESS_BLD_NONINV_SYS^MDC", "1.3.1.1", f"{cuff[0]}", _MMHG, "90-160", "", cuff_time),
        ("NM", "150022^MDC_PRESS_BLD_NONINV_DIA^MDC", "1.3.1.2", f"{cuff[1]}", _MMHG, "50-100", "", cuff_time),
        ("NM", "150023^MDC_PRESS_BLD_NONINV_MEAN^MDC", "1.3.1.3", f"{cuff[2]}", _MMHG, "60-120", "", cuff_time),
        ("NM", "149546^MDC_PULS_RATE_NON_INV^MDC", "1.3.1.4", f"{cuff[3]}", _BEATS, "", "", cuff_time),
        ("", "69902^MDC_DEV_METER_TEMP_VMD^MDC", "1.4.0.0", "", "", "", "", ""),
        ("", "69903^MDC_DEV_METER_TEMP_CHAN^MDC", "1.4.1.0", "", "", "", "", ""),
        ("NM", "150344^MDC_TEMP^MDC", "1.4.1.1", temperature, _CELSIUS, "", "", ""),
    )  # fmt: skip
    lines = []
    for number, (kind, code, place, value, unit, limits, flags, time) in enumerate(rows, 2):
        status = "R" if kind else "X"
        line = f"OBX|{number}|{kind}|{code}|{place}|{value}|{unit}|{limits}|{flags}|||{status}|||{time}"
        lines.append(line.rstrip("|") + "\r")
    return "".join(lines).encode("ascii")


_contract: type[Simulator] = Hl7Simulator  # the registry makes simulators by name, so the type checker looks here
