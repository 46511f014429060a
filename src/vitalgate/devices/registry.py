"""The registry of device kinds: one row a protocol the gateway understands, by slug.

Rows name their codec and simulator by module, imported when first used: what one protocol needs (numpy and recordings
for a simulator) is never needed for another.
"""

import importlib
from typing import Any

from vitalgate.counters import Counters
from vitalgate.devices.contract import DeviceEngine, DeviceKind, Faults, Simulator, Transport
from vitalgate.engine import Wall
from vitalgate.net.line import LineSettings


def _attribute(where: str) -> Any:
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(f"vitalgate.devices.{module}"), name)


def kind(
    slug: str,
    title: str,
    *,
    engine: str,
    simulator: str,
    idle_after: float,
    transport: Transport = Transport.SERIAL,
    two_way: bool = False,
    serial: LineSettings | None = None,
    states_serial: bool = False,
) -> DeviceKind:
    """A row whose ``engine`` and ``simulator`` are named as ``package.module:Class`` within this room.

    The classes are called as ``Engine(wall, counters)`` and ``Simulator(start, wall, faults, seed)``.
    """

    def make_engine(wall: Wall, counters: Counters) -> DeviceEngine:
        made: DeviceEngine = _attribute(engine)(wall, counters)
        return made

    def make_simulator(start: float, wall: Wall, faults: Faults, seed: int) -> Simulator:
        made: Simulator = _attribute(simulator)(start, wall, faults, seed)
        return made

    return DeviceKind(slug, title, transport, two_way, idle_after, make_engine, make_simulator, serial, states_serial)


KINDS: dict[str, DeviceKind] = {
    row.slug: row
    for row in (
        kind(
            "ivy450c",
            "Ivy 450C patient monitor (ANSAR-B serial output)",
            engine="ivy450c.codec:IvyEngine",
            simulator="ivy450c.simulator:IvySimulator",
            idle_after=5.0,
            serial=LineSettings(9600),
        ),
        kind(
            "nonin",
            "Nonin pulse oximeter (serial data format 7)",
            engine="nonin.codec:NoninEngine",
            simulator="nonin.simulator:NoninSimulator",
            idle_after=3.0,
            serial=LineSettings(9600),
        ),
        kind(
            "hl7",
            "HL7 bedside monitor (ORU^R01 over MLLP, IHE PCD-01)",
            engine="hl7.codec:Hl7Engine",
            simulator="hl7.simulator:Hl7Simulator",
            idle_after=10.0,
            transport=Transport.TCP_LISTEN,
            two_way=True,
            states_serial=True,
        ),
    )
}
