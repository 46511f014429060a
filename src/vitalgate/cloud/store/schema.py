"""The store's tables. ``migrations/`` makes them; a test holds that both say the same.

Columns named ``sealed_*`` hold what `keys.Keys.seal` made; columns named ``*_key`` a keyed hash for look-up. Times are
wall-clock seconds since 1970 UTC. Unsigned 64-bit epochs are stored as signed ones (`signed`, `unsigned`).
"""

from typing import Final

import sqlalchemy as sa

metadata: Final = sa.MetaData()

_ID: Final = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite numbers rows itself only for INTEGER


def signed(number: int) -> int:
    """An unsigned 64-bit number as the signed one with the same bits."""
    return number - (1 << 64) if number >= 1 << 63 else number


def unsigned(number: int) -> int:
    """The reverse of `signed`."""
    return number + (1 << 64) if number < 0 else number


meta: Final = sa.Table(
    "meta",
    metadata,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)

seals: Final = sa.Table(
    "seals",
    metadata,
    sa.Column("id", _ID, primary_key=True, autoincrement=True),
    sa.Column("key_id", sa.String(32), nullable=False),  # the data key that the run key derives from
    sa.Column("salt", sa.LargeBinary(32), nullable=False),
)

gateways: Final = sa.Table(
    "gateways",
    metadata,
    sa.Column("id", _ID, primary_key=True, autoincrement=True),
    sa.Column("name_key", sa.LargeBinary(16), nullable=False, unique=True),
    sa.Column("sealed_name", sa.LargeBinary, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("security", sa.String(32), nullable=False),
    sa.Column("revoked_at", sa.Double),
)

devices: Final = sa.Table(
    "devices",
    metadata,
    sa.Column("id", _ID, primary_key=True, autoincrement=True),
    sa.Column("urn_key", sa.LargeBinary(16), nullable=False, unique=True),
    sa.Column("sealed_urn", sa.LargeBinary, nullable=False),
    sa.Column("sealed_label", sa.LargeBinary),
    sa.Column("gateway_id", _ID, sa.ForeignKey("gateways.id"), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
)

epochs: Final = sa.Table(
    "epochs",
    metadata,
    sa.Column("id", _ID, primary_key=True, autoincrement=True),
    sa.Column("epoch", sa.BigInteger, nullable=False, unique=True),
    sa.Column("gateway_id", _ID, sa.ForeignKey("gateways.id"), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    # every sequence 1..contiguous is stored or declared as a gap
    sa.Column("contiguous", sa.BigInteger, nullable=False),
    sa.Column("highest", sa.BigInteger, nullable=False),
    sa.Column("previous_epoch", sa.BigInteger),
    sa.Column("previous_last", sa.BigInteger),
    sa.Column("closed_at_last", sa.BigInteger),  # what the next epoch said was this one's last sequence
    sa.Index("epochs_gateway", "gateway_id"),
)

entries: Final = sa.Table(
    "entries",
    metadata,
    sa.Column("id", _ID, primary_key=True, autoincrement=True),
    sa.Column("epoch_id", _ID, sa.ForeignKey("epochs.id"), nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("device_id", _ID, sa.ForeignKey("devices.id")),
    sa.Column("traffic_class", sa.SmallInteger, nullable=False),
    sa.Column("received_at", sa.Double, nullable=False),
    sa.Column("gateway_time", sa.Double, nullable=False),
    sa.Column("observations", sa.Integer, nullable=False),
    sa.Column("samples", sa.Integer, nullable=False),
    sa.Column("sealed_content", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("epoch_id", "sequence", name="entries_epoch_sequence"),
    sa.Index("entries_device_time", "device_id", "gateway_time"),
)

gaps: Final = sa.Table(
    "gaps",
    metadata,
    sa.Column("id", _ID, primary_key=True, autoincrement=True),
    # the entry that declared it: a gap is told once, however often the notice arrives
    sa.Column("epoch_id", _ID, sa.ForeignKey("epochs.id"), nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("cause", sa.String(64), nullable=False),
    sa.Column("device_id", _ID, sa.ForeignKey("devices.id")),
    sa.Column("start_time", sa.Double, nullable=False),
    sa.Column("end_time", sa.Double),
    # numbered gaps: sequences first..last of gap_epoch were dropped
    sa.Column("gap_epoch", sa.BigInteger),
    sa.Column("first_sequence", sa.BigInteger),
    sa.Column("last_sequence", sa.BigInteger),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),  # damaged bytes, where that is the cause
    sa.UniqueConstraint("epoch_id", "sequence", name="gaps_epoch_sequence"),
    sa.Index("gaps_gap_epoch", "gap_epoch"),
)

quarantine: Final = sa.Table(
    "quarantine",
    metadata,
    sa.Column("id", _ID, primary_key=True, autoincrement=True),
    sa.Column("gateway_id", _ID, sa.ForeignKey("gateways.id"), nullable=False),
    sa.Column("source_key", sa.LargeBinary(16), nullable=False),  # of kind, port and serial number
    sa.Column("sealed_content", sa.LargeBinary, nullable=False),
    sa.Column("frames", sa.BigInteger, nullable=False),
    sa.Column("first_seen", sa.Double, nullable=False),
    sa.Column("last_seen", sa.Double, nullable=False),
    sa.UniqueConstraint("gateway_id", "source_key", name="quarantine_source"),
)

latency: Final = sa.Table(
    "latency",
    metadata,
    sa.Column("bucket", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("maximum", sa.Double, nullable=False),
)

users: Final = sa.Table(
    "users",
    metadata,
    sa.Column("id", _ID, primary_key=True, autoincrement=True),
    sa.Column("name_key", sa.LargeBinary(16), nullable=False, unique=True),
    sa.Column("sealed_name", sa.LargeBinary, nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("sealed_password", sa.LargeBinary),  # sealed scrypt hash; none until the user has set one
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("disabled_at", sa.Double),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("locked_until", sa.Double, nullable=False),
)

sign_in_links: Final = sa.Table(
    "sign_in_links",
    metadata,
    sa.Column("token_hash", sa.LargeBinary(32), primary_key=True),
    sa.Column("user_id", _ID, sa.ForeignKey("users.id"), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False),
    sa.Column("used_at", sa.Double),
)

sessions: Final = sa.Table(
    "sessions",
    metadata,
    sa.Column("token_hash", sa.LargeBinary(32), primary_key=True),
    sa.Column("user_id", _ID, sa.ForeignKey("users.id"), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("last_seen", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False),
    sa.Index("sessions_user", "user_id"),
)

audit: Final = sa.Table(
    "audit",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("action", sa.String(48), nullable=False),
    sa.Column("sealed_content", sa.LargeBinary, nullable=False),  # actor, subject, detail
    sa.Column("chain", sa.LargeBinary(32), nullable=False),
)

enrolment_codes: Final = sa.Table(
    "enrolment_codes",
    metadata,
    sa.Column("code_id", sa.LargeBinary(8), primary_key=True),
    sa.Column("sealed_content", sa.LargeBinary, nullable=False),
)

enrolment_identities: Final = sa.Table(
    "enrolment_identities",
    metadata,
    sa.Column("thumbprint", sa.LargeBinary(16), primary_key=True),
    sa.Column("gateway_key", sa.LargeBinary(16), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("sealed_content", sa.LargeBinary, nullable=False),
    sa.Index("enrolment_identities_gateway", "gateway_key", "state"),
)

enrolment_contexts: Final = sa.Table(
    "enrolment_contexts",
    metadata,
    sa.Column("kid", sa.LargeBinary(8), primary_key=True),
    sa.Column("gateway_key", sa.LargeBinary(16), nullable=False),
    sa.Column("sealed_content", sa.LargeBinary, nullable=False),
)
