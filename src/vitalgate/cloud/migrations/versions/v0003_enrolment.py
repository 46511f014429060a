"""Enrolment: one-time codes, identity keys, OSCORE contexts."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "enrolment_codes",
        sa.Column("code_id", sa.LargeBinary(8), primary_key=True),
        sa.Column("sealed_content", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "enrolment_identities",
        sa.Column("thumbprint", sa.LargeBinary(16), primary_key=True),
        sa.Column("gateway_key", sa.LargeBinary(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("sealed_content", sa.LargeBinary, nullable=False),
    )
    op.create_index("enrolment_identities_gateway", "enrolment_identities", ["gateway_key", "state"])
    op.create_table(
        "enrolment_contexts",
        sa.Column("kid", sa.LargeBinary(8), primary_key=True),
        sa.Column("gateway_key", sa.LargeBinary(16), nullable=False),
        sa.Column("sealed_content", sa.LargeBinary, nullable=False),
    )
