"""Alembic's entry: runs on the connection, and inside the transaction, that `migrate` hands over."""

from alembic import context

from vitalgate.cloud.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,  # the caller's transaction holds it all
)
context.run_migrations()
