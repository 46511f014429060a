"""A simulated device on its line in virtual time: a serial line that is written whether anyone reads or not, or a
connection over which a two-way device exchanges bytes with the gateway."""

from collections import Counter
from collections.abc import Callable
from typing import Final

from vitalgate.devices.contract import DeviceKind, Faults, Transport
from vitalgate.engine import Connection, Wall
from vitalgate.gateway.bindings import DeviceBinding
from vitalgate.gateway.engine import GatewayEngine
from vitalgate.net.virtual import VirtualNetwork

GATEWAY_ADDRESS, DEVICE_ADDRESS = "192.0.2.1", "192.0.2.7"  # RFC 5737
REDIAL: Final = 1.0
"""Seconds after which a networked device calls a gateway that has come up."""


class AttachedDevice:
    """One simulator, its line, and the frames it ever said: ``said`` counts them by hash, ``said_at`` has of each the
    gateway's wall time and the hash.

    `attach` opens the line to a gateway that has started, `detach` closes it when that has died; what a serial device
    says to nobody is lost. ``on_due`` is called whenever the simulator has made something: `exchange` is due then.
    """

    def __init__(
        self,
        network: VirtualNetwork,
        kind: DeviceKind,
        urn: str,
        *,
        number: int,
        seed: int,
        faults: Faults,
        gateway_wall: Wall,
        on_due: Callable[["AttachedDevice"], None],
    ) -> None:
        self._serial = kind.transport is Transport.SERIAL
        self.kind = kind
        self.port = f"/dev/ttyS{number}" if self._serial else f"tcp:{GATEWAY_ADDRESS}:{2575 + number}"
        self.binding = DeviceBinding(urn, kind.slug, self.port, demo=True)
        self.said: Counter[bytes] = Counter()
        self.said_at: list[tuple[float, bytes]] = []
        self._gateway_wall = gateway_wall
        self._network = network
        self._on_due = on_due
        self._conn: Connection = self.port if self._serial else (DEVICE_ADDRESS, 40_000 + number)
        self._listening: GatewayEngine | None = None
        self._engine: GatewayEngine | None = None  # of these, the one that the line is open to
        self._armed: float | None = None
        self._speaks = True
        # Devices do not keep step: each has its own place within a second.
        start = network.now + int.from_bytes(network.randomness(f"start of {urn}")(2), "big") / 65536
        self.simulator = kind.make_simulator(start, network.wall(urn), faults, seed)
        if self._serial:
            self.simulator.connection_made(network.now)
        self._arm()

    @property
    def urn(self) -> str:
        """Its identity."""
        return self.binding.urn

    @property
    def speaks(self) -> bool:
        """Whether it goes on saying things."""
        return self._speaks

    def attach(self, engine: GatewayEngine) -> None:
        """The gateway is up and listens on this device's port."""
        self._listening = engine
        engine.add_port(self.port, self.kind, self._network.now)
        if self._serial:
            self._open(engine)
        else:
            self._network.at(self._network.now + REDIAL, lambda: self._open(engine))

    def detach(self) -> None:
        """The gateway has died."""
        self._listening = None
        if self._engine is not None:
            self._engine = None
            if not self._serial:
                self.simulator.connection_lost(self._network.now)

    def stop(self) -> None:
        """Say nothing more."""
        self._speaks = False

    def _open(self, engine: GatewayEngine) -> None:
        if engine is not self._listening:
            return
        self._engine = engine
        engine.device_connected(self.port, self._conn, self._network.now, "" if self._serial else DEVICE_ADDRESS)
        if not self._serial:
            self.simulator.connection_made(self._network.now)
            self._arm()

    def exchange(self, now: float) -> None:
        """Carry bytes both ways until neither side has any for now."""
        simulator = self.simulator
        data = simulator.data_to_send(now)
        engine = self._engine
        if engine is None:
            return
        while True:
            if data:
                engine.device_data(self.port, self._conn, data, now)
            answer = engine.device_data_to_send(self.port, self._conn, now)
            if not answer:
                break
            simulator.receive_data(answer, now)
            data = simulator.data_to_send(now)
        if self.kind.two_way:
            self._arm()  # an answer may have made something due earlier

    def _arm(self) -> None:
        due = self.simulator.next_timeout()
        if due is not None and (self._armed is None or due < self._armed):
            self._armed = due
            self._network.at(due, lambda: self._due(due))

    def _due(self, due: float) -> None:
        if self._armed != due or not self._speaks:
            return
        self._armed = None
        self.simulator.handle_timeout(self._network.now)
        frames, wall = self.simulator.sent_frames(), self._gateway_wall()
        self.said.update(frames)
        self.said_at.extend((wall, name) for name in frames)
        self._on_due(self)
        self._arm()
