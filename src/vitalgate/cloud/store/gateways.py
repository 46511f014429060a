"""Rows of gateways and devices, found by keyed hash, made when first met."""

import struct
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from vitalgate.cloud.store.database import Database
from vitalgate.cloud.store.schema import devices, gateways
from vitalgate.net.stacks import DEFAULT_OF

NOSEC: Final = DEFAULT_OF["nosec"]
MAX_GATEWAYS: Final = 4096
MAX_UNPROTECTED: Final = 64
"""Gateways that come without identity: anybody may make up names, and leaves room for those that are enrolled."""
MAX_DEVICES: Final = 65_536
MAX_DEVICES_OF_GATEWAY: Final = 4096
"""Devices one gateway may bring, so that a gateway in bad hands leaves room for the others'."""
_ENTRY: Final = struct.Struct(">QQ")


@dataclass(frozen=True, slots=True)
class GatewayRow:
    """A gateway as the store knows it. ``security`` is the slug its last delivery came under."""

    id: int
    name: str
    security: str
    created_at: float
    revoked_at: float | None

    @property
    def is_revoked(self) -> bool:
        """True while its identity is revoked."""
        return self.revoked_at is not None


def find_gateway(database: Database, connection: sa.Connection, name: str) -> GatewayRow | None:
    """The gateway called ``name``, or None."""
    key = database.keys.lookup("gateway", name)
    row = connection.execute(sa.select(gateways).where(gateways.c.name_key == key)).one_or_none()
    return None if row is None else GatewayRow(row.id, name, row.security, row.created_at, row.revoked_at)


def ensure_gateway(database: Database, connection: sa.Connection, name: str, security: str) -> GatewayRow | None:
    """The gateway called ``name``, made where it is new; None when there is no room for another."""
    found = find_gateway(database, connection, name)
    if found is not None:
        return found
    query = sa.select(sa.func.count()).select_from(gateways)
    if (connection.execute(query).scalar() or 0) >= MAX_GATEWAYS:
        return None
    if security == NOSEC:
        unprotected = query.where(gateways.c.security == security)
        if (connection.execute(unprotected).scalar() or 0) >= MAX_UNPROTECTED:
            return None
    keys, now = database.keys, database.wall()
    made = connection.execute(
        sa.insert(gateways).values(
            name_key=keys.lookup("gateway", name),
            sealed_name=keys.seal_text(name, "gateway name"),
            created_at=now,
            security=security,
        )
    ).inserted_primary_key
    assert made is not None
    return GatewayRow(int(made[0]), name, security, now, None)


def all_gateways(database: Database, connection: sa.Connection) -> list[GatewayRow]:
    """Every gateway, oldest first."""
    return [
        GatewayRow(
            row.id,
            database.keys.unseal_text(connection, row.sealed_name, "gateway name"),
            row.security,
            row.created_at,
            row.revoked_at,
        )
        for row in connection.execute(sa.select(gateways).order_by(gateways.c.id)).all()
    ]


def set_revoked(database: Database, connection: sa.Connection, name: str, revoked: bool) -> bool:
    """Mark a gateway's identity as revoked or in force; True when that is a change."""
    row = ensure_gateway(database, connection, name, "")
    if row is None or row.is_revoked == revoked:
        return False
    at = database.wall() if revoked else None
    connection.execute(sa.update(gateways).where(gateways.c.id == row.id).values(revoked_at=at))
    database.changed(connection)
    return True


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A device as the store knows it; it belongs to the gateway that brought it first, until it is moved."""

    id: int
    urn: str
    label: str
    gateway_id: int
    created_at: float


def find_device(database: Database, connection: sa.Connection, urn: str) -> DeviceRow | None:
    """The device called ``urn``, or None."""
    key = database.keys.lookup("device", urn)
    row = connection.execute(sa.select(devices).where(devices.c.urn_key == key)).one_or_none()
    return None if row is None else _device(database, connection, row)


def make_device(database: Database, connection: sa.Connection, urn: str, gateway_id: int) -> DeviceRow | None:
    """A new device; None when there is no room for another, at all or of this gateway."""
    query = sa.select(sa.func.count()).select_from(devices)
    if (connection.execute(query).scalar() or 0) >= MAX_DEVICES:
        return None
    if (connection.execute(query.where(devices.c.gateway_id == gateway_id)).scalar() or 0) >= MAX_DEVICES_OF_GATEWAY:
        return None
    keys, now = database.keys, database.wall()
    made = connection.execute(
        sa.insert(devices).values(
            urn_key=keys.lookup("device", urn),
            sealed_urn=keys.seal_text(urn, "device urn"),
            gateway_id=gateway_id,
            created_at=now,
        )
    ).inserted_primary_key
    assert made is not None
    return DeviceRow(int(made[0]), urn, "", gateway_id, now)


def all_devices(database: Database, connection: sa.Connection) -> list[DeviceRow]:
    """Every device, oldest first."""
    return [
        _device(database, connection, row)
        for row in connection.execute(sa.select(devices).order_by(devices.c.id)).all()
    ]


def _device(database: Database, connection: sa.Connection, row: sa.Row[tuple[object, ...]]) -> DeviceRow:
    urn = database.keys.unseal_text(connection, row.sealed_urn, "device urn")
    label = "" if row.sealed_label is None else database.keys.unseal_text(connection, row.sealed_label, f"label {urn}")
    return DeviceRow(row.id, urn, label, row.gateway_id, row.created_at)


def entry_context(epoch: int, sequence: int, urn: str) -> bytes:
    """What an entry's sealed content is bound to: its place and its device."""
    return b"entry" + _ENTRY.pack(epoch, sequence) + urn.encode()
