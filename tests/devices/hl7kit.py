"""HL7 messages for tests, and an engine driven by hand."""

from vitalgate.counters import Counters
from vitalgate.devices.contract import Frame
from vitalgate.devices.hl7 import mllp
from vitalgate.devices.hl7.codec import Hl7Engine
from vitalgate.devices.hl7.er7 import parse
from vitalgate.devices.hl7.mllp import Block, Deframer
from vitalgate.devices.hl7.oru import decode

AT = 1_795_000_000.5
HASH = bytes(range(16))

B40 = r"""MSH|^~\&|VSP^080019FFFE134535^EUI-64|GE Healthcare|||20130122134100||ORU^R01^ORU_R01|004097134535|P|2.6|||NE|AL||UNICODE UTF-8|||PCD_DEC_001^IHE PCD^1.3.6.1.4.1.19376.1.6.1.1.1^ISO
PID|||HED12^^^PID^MR||LAZY^KITTY^^^^^L
PV1||R|SURGERY^^V2
OBR|1|...^VSP^080019FFFE134535^EUI-64|...|182777000^monitoring of patient^SCT|||20130122134100
OBX|1||69965^MDC_DEV_MON_PHYSIO_MULTI_PARAM_MDS^MDC|1.0.0.0|||||||X
OBX|2||69798^MDC_DEV_ECG_VMD^MDC|1.5.0.0|||||||X
OBX|3|NM|147842^MDC_ECG_HEART_RATE^MDC|1.5.1.1|80|264864^MDC_DIM_BEAT_PER_MIN^MDC|||||R|||||||080019FFFE0B4020^B40_GE
"""  # noqa: E501  # a device's line is as long as it is


def er7(text):
    """The message with the line ends of HL7."""
    return text.strip().replace("\n", "\r").encode()


def message(
    *segments, control_id="7", processing="P", made="20261118110640.500+0000", accept="", respond="", kind=None
):
    """An ORU^R01 with these segments behind MSH and OBR."""
    header = (
        f"MSH|^~\\&|MON^00A037FFFE012345^EUI-64|LAB|||{made}||{kind or 'ORU^R01^ORU_R01'}|{control_id}|{processing}|2.6"
        f"|||{accept}|{respond}||UNICODE UTF-8"
    )
    rest = segments or (obx(),)
    if not any(one.startswith("OBR") for one in rest):
        rest = ("OBR|1|a|b|182777000^monitoring of patient^SCT|||20261118110639+0000|20261118110640+0000", *rest)
    return er7("\n".join((header, *rest)))


HEART_RATE = "147842^MDC_ECG_HEART_RATE^MDC"
BEATS = "264864^MDC_DIM_BEAT_PER_MIN^MDC"


def obx(value="80", code=HEART_RATE, place="1.5.1.1", kind="NM", unit=BEATS, flags="", result="R", at="", equipment=""):
    return f"OBX|1|{kind}|{code}|{place}|{value}|{unit}||{flags}|||{result}|||{at}||||{equipment}"


def report(raw):
    """What a message says, decoded at `AT`."""
    return decode(parse(raw), AT, HASH)


class Bench:
    """An engine with a clock, and what it gives."""

    def __init__(self, **options):
        self.wall = AT
        self.counters = Counters()
        self.engine = Hl7Engine(lambda: self.wall, self.counters, **options)
        self.events = []

    def feed(self, data, conn="a", now=0.0):
        self.engine.receive_data(data, conn, now)
        return self.take()

    def send(self, *messages, conn="a", now=0.0):
        return [
            event for event in self.feed(b"".join(map(mllp.frame, messages)), conn, now) if isinstance(event, Frame)
        ]

    def take(self):
        found = list(iter(self.engine.next_event, None))
        self.events += found
        return found

    def answers(self, conn="a"):
        """The acknowledgements written since the last call, parsed."""
        found = Deframer(1 << 20).feed(self.engine.data_to_send(conn, 0.0))
        assert all(isinstance(one, Block) for one in found)
        return [parse(one.message) for one in found]

    def codes(self, conn="a"):
        """MSA-1 and MSA-2 of each."""
        return [(one.first("MSA").text(1), one.first("MSA").text(2)) for one in self.answers(conn)]
