"""What independent HL7 libraries make of our messages and acknowledgements, and real MLLP peers on loopback."""

import asyncio
import datetime
import re
from decimal import Decimal

import pytest

pytest.importorskip("numpy", reason="simulated devices need vitalgate[demo]")

import hl7
import hl7.mllp
from hl7apy import parser as grammar_parser

from vitalgate.counters import Counters
from vitalgate.devices.contract import Faults, Frame, Outcome
from vitalgate.devices.hl7.codec import Hl7Engine
from vitalgate.devices.hl7.mllp import Block, Deframer, frame
from vitalgate.devices.registry import KINDS
from vitalgate.vitals.observation import Samples

EPOCH = 1_790_000_000.0
GE_B40 = "\r".join(
    (
        "MSH|^~\\&|VSP^080019FFFE134535^EUI-64|GE Healthcare|||20130122134100||ORU^R01^ORU_R01|004097134535|P|2.6|||NE"
        "|AL||UNICODE UTF-8|||PCD_DEC_001^IHE PCD^1.3.6.1.4.1.19376.1.6.1.1.1^ISO",
        "PID|||HED12^^^PID^MR||LAZY^KITTY^^^^^L",
        "PV1||R|SURGERY^^V2",
        "OBR|1|a^VSP^080019FFFE134535^EUI-64|b^VSP^080019FFFE134535^EUI-64|182777000^monitoring of patient^SCT|||"
        "20130122134100",
        "OBX|1||69965^MDC_DEV_MON_PHYSIO_MULTI_PARAM_MDS^MDC|1.0.0.0|||||||X",
        "OBX|2||69798^MDC_DEV_ECG_VMD^MDC|1.5.0.0|||||||X",
        "OBX|3|NM|147842^MDC_ECG_HEART_RATE^MDC|1.5.1.1|80|264864^MDC_DIM_BEAT_PER_MIN^MDC|||||R|||||||"
        "080019FFFE0B4020^B40_GE",
        "",
    )
)
"""A message in the style of a GE B40 monitor."""


def messages(count, seed=3):
    """The simulator's first messages."""
    device = KINDS["hl7"].make_simulator(0.0, lambda: EPOCH, Faults(), seed)
    device.connection_made(0.0)
    device.handle_timeout(float(count))
    return [found.message for found in Deframer(1 << 20).feed(device.data_to_send(float(count)))]


def decoded(raw):
    """Our engine's frame of a message."""
    engine = Hl7Engine(lambda: EPOCH)
    engine.receive_data(frame(raw), 0, 0.0)
    event = engine.next_event()
    assert isinstance(event, Frame)
    return event


@pytest.mark.parametrize("raw", [*messages(3), GE_B40.encode()], ids=["sim0", "sim1", "sim2", "ge"])
def test_the_hl7_library_reads_the_same_values(raw):
    judged = hl7.parse(raw.decode())
    ours = decoded(raw)
    assert ours.control_id == str(judged["MSH"][0][10])
    assert ours.serial.upper() == str(judged["MSH"][0][3][0][1])
    assert {one.patient for one in ours.observations} == {str(judged["PID"][0][3][0][0])}
    theirs = []
    for row in judged["OBX"]:
        name = str(row[3][0][1])
        if str(row[2]) == "NM" and not name.startswith("MDC_ATTR_"):
            theirs.append((int(str(row[3][0][0])), [Decimal(str(row[5]))]))
        elif str(row[2]) == "NA":
            theirs.append((int(str(row[3][0][0])), [Decimal(str(part)) for part in row[5][0]]))
    values = []
    for one in ours.observations:
        if isinstance(one.value, Samples):
            wave = one.value
            values.append((one.metric, [wave.origin + wave.factor * raw_sample for raw_sample in wave.raw()]))
        else:
            values.append((one.metric, [one.value]))
    assert values == theirs
    assert [list(map(str, numbers)) for _, numbers in values] == [list(map(str, numbers)) for _, numbers in theirs]


def test_hl7apy_finds_our_messages_valid():
    for raw in messages(2):
        judged = grammar_parser.parse_message(raw.decode(), find_groups=True)
        assert (judged.name, judged.version) == ("ORU_R01", "2.6")
        assert judged.validate()
        group = judged.oru_r01_patient_result.oru_r01_order_observation
        assert len(group.oru_r01_observation) == 21
        assert judged.msh.msh_11.value == "T"


def test_the_ge_message():
    ours = decoded(GE_B40.encode())
    (heart,) = ours.observations
    assert (heart.metric, str(heart.value), heart.unit) == (147842, "80", "/min")
    assert (ours.control_id, ours.serial.upper()) == ("004097134535", "080019FFFE134535")
    assert (heart.patient, heart.location) == ("HED12", "SURGERY^^V2")
    expected = datetime.datetime(2013, 1, 22, 13, 41, tzinfo=datetime.UTC).timestamp()  # it states no zone
    assert heart.device_time == expected
    assert heart.clock_offset == expected - EPOCH
    assert not heart.is_demo


@pytest.mark.parametrize(
    ("outcome", "code"), [(Outcome.COMMITTED, "AA"), (Outcome.FULL, "AE"), (Outcome.REFUSED, "AR")]
)
@pytest.mark.parametrize("raw", [messages(1)[0], GE_B40.encode()], ids=["sim", "ge"])
def test_both_find_our_acknowledgements_valid(raw, outcome, code):
    engine = Hl7Engine(lambda: EPOCH)
    engine.receive_data(frame(raw), 0, 0.0)
    engine.acknowledge(engine.next_event(), outcome, 0.0)
    (found,) = Deframer(1 << 16).feed(engine.data_to_send(0, 0.0))
    assert isinstance(found, Block)
    text = found.message.decode()
    judged = hl7.parse(text)
    asked = hl7.parse(raw.decode())
    assert str(judged["MSA"][0][1]) == code
    assert str(judged["MSA"][0][2]) == str(asked["MSH"][0][10])
    assert str(judged["MSH"][0][5]) == str(asked["MSH"][0][3])
    grammar = grammar_parser.parse_message(text, find_groups=True)
    assert grammar.name == "ACK"
    assert grammar.validate()


class _Gateway(asyncio.Protocol):
    """Our engine behind a socket, with a spool that is done at once."""

    def __init__(self, engine):
        self.engine = engine
        self.frames = []

    def connection_made(self, transport):
        self.transport = transport
        self.engine.connection_made(self, 0.0)

    def data_received(self, data):
        self.engine.receive_data(data, self, 0.0)
        for event in iter(self.engine.next_event, None):
            self.frames.append(event)
            self.engine.acknowledge(event, Outcome.COMMITTED, 0.0)
        self.transport.write(self.engine.data_to_send(self, 0.0))

    def connection_lost(self, exc):
        self.engine.connection_lost(self, 0.0)


@pytest.mark.peer
def test_a_real_mllp_client_is_answered():
    async def talk():
        gateway = _Gateway(Hl7Engine(lambda: EPOCH))
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: gateway, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await hl7.mllp.open_hl7_connection("127.0.0.1", port, encoding="utf-8")
        answers = []
        for raw in (*messages(2), GE_B40.encode()):
            writer.writemessage(hl7.parse(raw.decode()))
            await writer.drain()
            answers.append(await asyncio.wait_for(reader.readmessage(), 20))
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return gateway.frames, answers

    frames, answers = asyncio.run(talk())
    assert [str(answer["MSA"][0][1]) for answer in answers] == ["AA"] * 3
    assert [str(answer["MSA"][0][2]) for answer in answers] == [heard.control_id for heard in frames]


@pytest.mark.peer
def test_a_real_mllp_server_acknowledges_our_monitor():
    heard = []

    async def serve(reader, writer):
        try:
            while not writer.is_closing():
                message = await reader.readmessage()
                heard.append(str(message["MSH"][0][10]))
                writer.writemessage(message.create_ack())
                await writer.drain()
        except asyncio.IncompleteReadError:
            writer.close()

    async def talk():
        server = await hl7.mllp.start_hl7_server(serve, "127.0.0.1", 0, encoding="utf-8")
        port = server.sockets[0].getsockname()[1]
        device = KINDS["hl7"].make_simulator(0.0, lambda: EPOCH, Faults(), 4)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        device.connection_made(0.0)
        device.handle_timeout(40.0)
        while device.waiting():
            writer.write(device.data_to_send(40.0))
            await writer.drain()
            device.receive_data(await asyncio.wait_for(reader.read(65536), 20), 40.0)
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return device

    device = asyncio.run(talk())
    assert (device.acknowledged, device.rejected, len(heard)) == (40, 0, 40)
    assert heard == sorted(heard)
    assert all(re.fullmatch(r"[0-9A-F]+", number) for number in heard)


def test_engine_counts_what_it_heard():
    counters = Counters()
    engine = Hl7Engine(lambda: EPOCH, counters)
    for raw in messages(2):
        engine.receive_data(frame(raw), 0, 0.0)
    assert counters["device_frames{hl7}"] == 2
    assert counters["device_observations{hl7}"] == 20
