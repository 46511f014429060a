"""The gateway's configuration: which keys exist, what they mean, what they default to."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from vitalgate.devices.contract import Transport
from vitalgate.devices.registry import KINDS
from vitalgate.gateway.configuration import Endpoint, Section
from vitalgate.net.stacks import STACKS


def _rooted(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder", Path.cwd())
    return path if path.is_absolute() else Path(folder) / path


FilePath = Annotated[Path, AfterValidator(_rooted)]
"""A path; a relative one is relative to the folder of the configuration file."""


class Storage(Section):
    """Where things are kept. ``state`` holds send counters and must not be in any backup of ``data``."""

    data: FilePath
    state: FilePath

    @model_validator(mode="after")
    def _apart(self) -> "Storage":
        data, state = self.data.resolve(), self.state.resolve()
        if state.is_relative_to(data) or data.is_relative_to(state):
            raise ValueError(
                "data and state must lie apart (send counters live outside every backup); "
                "give state a folder of its own, outside data"
            )
        return self


class MasterKeySource(Section):
    """Where the master key comes from, first found wins: a systemd credential, this file, this passphrase."""

    file: FilePath | None = None
    passphrase: str | None = Field(default=None, description="'@FILE' or 'env:NAME', never the passphrase itself")

    @field_validator("passphrase")
    @classmethod
    def _no_literal(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("@", "env:")):
            raise ValueError("a secret is given as '@FILE' or 'env:NAME', never literally")
        return value


class Uplink(Section):
    """The way to the cloud."""

    cloud: Endpoint
    stack: str = "coap-oscore"
    window: int = Field(default=8, ge=1, le=64, description="deliveries in flight at once; 1 on the thinnest links")

    @field_validator("stack")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in STACKS:
            raise ValueError(f"is none of {', '.join(STACKS)}")
        return value


class SpoolLimits(Section):
    """How much may wait when the cloud is away."""

    max_bytes: int = Field(default=256 * 1024 * 1024, ge=65536)
    max_entries: int = Field(default=2_000_000, ge=100)


class Device(Section):
    """One port that a device is attached to: a serial ``port``, or a ``listen`` address that it dials."""

    kind: str
    port: str | None = Field(default=None, min_length=1)
    listen: Endpoint | None = None
    allow: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = Field(
        default=(ipaddress.ip_network("127.0.0.1/32"), ipaddress.ip_network("::1/128")),
        description="networks that may dial `listen`",
    )

    @model_validator(mode="after")
    def _one_way_in(self) -> "Device":
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind!r} is none of {', '.join(KINDS)}")
        wanted = "port" if KINDS[self.kind].transport is Transport.SERIAL else "listen"
        if getattr(self, wanted) is None or (self.port is not None and self.listen is not None):
            raise ValueError(f"a device of kind {self.kind} has the key `{wanted}` and only that")
        return self

    @property
    def name(self) -> str:
        """How the port is named in bindings, logs and on the dashboard."""
        if self.port is not None:
            return self.port
        assert self.listen is not None
        return f"tcp:{self.listen[0]}:{self.listen[1]}"


class Web(Section):
    """Where `/metrics` and `/ready` are served; loopback only."""

    listen: Endpoint | None = None

    @field_validator("listen")
    @classmethod
    def _loopback(cls, value: tuple[str, int] | None) -> tuple[str, int] | None:
        if value is not None and not ipaddress.ip_address(value[0]).is_loopback:
            raise ValueError("metrics are served on loopback only; use 127.0.0.1 or [::1]")
        return value


class Log(Section):
    """Logging: JSON lines to standard error, or to a file."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    file: FilePath | None = None


class Program(Section):
    """What the configuration of every program has."""

    storage: Storage
    master_key: MasterKeySource = MasterKeySource()
    log: Log = Log()

    @model_validator(mode="after")
    def _key_apart(self) -> Self:
        file, data = self.master_key.file, self.storage.data
        if file is not None and file.resolve().is_relative_to(data.resolve()):
            raise ValueError(
                "master_key.file lies inside storage.data, so that a copy of the data carries its key; move it out"
            )
        return self


class GatewaySettings(Program):
    """The whole of gateway.toml."""

    uplink: Uplink
    spool: SpoolLimits = SpoolLimits()
    web: Web = Web()
    device: tuple[Device, ...] = ()
    ledger: bool = Field(default=False, description="keep a journal of committed frame hashes, for checking delivery")

    @field_validator("device")
    @classmethod
    def _ports_differ(cls, value: tuple[Device, ...]) -> tuple[Device, ...]:
        names = [device.name for device in value if device.listen is None or device.listen[1] != 0]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"port {name} stands twice; a port belongs to one device")
        return value
