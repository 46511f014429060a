"""Bring a database to this version's schema, or say clearly why not."""

from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from vitalgate.cloud import migrations
from vitalgate.cloud.store.dialect import for_writing, unavailable
from vitalgate.cloud.store.errors import Reason, StoreError, StoreVersionError


def _config(connection: sa.Connection | None = None) -> Config:
    config = Config()
    # Percent signs are the configuration's own escape.
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _head() -> str:
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


SCHEMA_VERSION: Final = _head()
"""The newest revision this program knows, for example '0001'."""


def schema_version(connection: sa.Connection) -> str | None:
    """The revision the database has, or None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


def migrate(engine: sa.Engine, target: str = SCHEMA_VERSION) -> bool:
    """Bring the database to ``target`` in one transaction; True when it was empty before.

    Raises `StoreVersionError` for a database of a newer program, `StoreUnavailable` when it cannot be written,
    `StoreError` when it is no database of ours.
    """
    try:
        with for_writing(engine).begin() as connection:
            version = schema_version(connection)
            if version == target:
                return False
            if version is None and sa.inspect(connection).get_table_names():
                raise StoreError("the database holds tables of something else: give the store a file of its own")
            known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
            if version is not None and version not in known:
                raise StoreVersionError(
                    f"the store has schema version {version}, this program knows versions up to {SCHEMA_VERSION}: "
                    "install the program that wrote it, or restore the backup made before the upgrade"
                )
            command.upgrade(_config(connection), target)
            return version is None
    except sa.exc.DBAPIError as error:
        known_cause = unavailable(error)
        if known_cause is not None and known_cause.reason is not Reason.DAMAGED:
            raise known_cause from error
        raise StoreError("the store's file is no database, or is damaged: restore it from a backup") from error
