"""Deliveries: gateways, devices, epochs, entries, gaps, quarantine, latency, and the runs that seal them."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "meta",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "seals",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("key_id", sa.String(32), nullable=False),
        sa.Column("salt", sa.LargeBinary(32), nullable=False),
    )
    op.create_table(
        "gateways",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("name_key", sa.LargeBinary(16), nullable=False, unique=True),
        sa.Column("sealed_name", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("security", sa.String(32), nullable=False),
        sa.Column("revoked_at", sa.Double),
    )
    op.create_table(
        "devices",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("urn_key", sa.LargeBinary(16), nullable=False, unique=True),
        sa.Column("sealed_urn", sa.LargeBinary, nullable=False),
        sa.Column("sealed_label", sa.LargeBinary),
        sa.Column("gateway_id", ID, sa.ForeignKey("gateways.id"), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "epochs",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("epoch", sa.BigInteger, nullable=False, unique=True),
        sa.Column("gateway_id", ID, sa.ForeignKey("gateways.id"), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("contiguous", sa.BigInteger, nullable=False),
        sa.Column("highest", sa.BigInteger, nullable=False),
        sa.Column("previous_epoch", sa.BigInteger),
        sa.Column("previous_last", sa.BigInteger),
        sa.Column("closed_at_last", sa.BigInteger),
    )
    op.create_index("epochs_gateway", "epochs", ["gateway_id"])
    op.create_table(
        "entries",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("epoch_id", ID, sa.ForeignKey("epochs.id"), nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("device_id", ID, sa.ForeignKey("devices.id")),
        sa.Column("traffic_class", sa.SmallInteger, nullable=False),
        sa.Column("received_at", sa.Double, nullable=False),
        sa.Column("gateway_time", sa.Double, nullable=False),
        sa.Column("observations", sa.Integer, nullable=False),
        sa.Column("samples", sa.Integer, nullable=False),
        sa.Column("sealed_content", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("epoch_id", "sequence", name="entries_epoch_sequence"),
    )
    op.create_index("entries_device_time", "entries", ["device_id", "gateway_time"])
    op.create_table(
        "gaps",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("epoch_id", ID, sa.ForeignKey("epochs.id"), nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("cause", sa.String(64), nullable=False),
        sa.Column("device_id", ID, sa.ForeignKey("devices.id")),
        sa.Column("start_time", sa.Double, nullable=False),
        sa.Column("end_time", sa.Double),
        sa.Column("gap_epoch", sa.BigInteger),
        sa.Column("first_sequence", sa.BigInteger),
        sa.Column("last_sequence", sa.BigInteger),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("epoch_id", "sequence", name="gaps_epoch_sequence"),
    )
    op.create_index("gaps_gap_epoch", "gaps", ["gap_epoch"])
    op.create_table(
        "quarantine",
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("gateway_id", ID, sa.ForeignKey("gateways.id"), nullable=False),
        sa.Column("source_key", sa.LargeBinary(16), nullable=False),
        sa.Column("sealed_content", sa.LargeBinary, nullable=False),
        sa.Column("frames", sa.BigInteger, nullable=False),
        sa.Column("first_seen", sa.Double, nullable=False),
        sa.Column("last_seen", sa.Double, nullable=False),
        sa.UniqueConstraint("gateway_id", "source_key", name="quarantine_source"),
    )
    op.create_table(
        "latency",
        sa.Column("bucket", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("maximum", sa.Double, nullable=False),
    )
