"""What several verbs share: opening a program's home from its configuration, and saying errors in one line."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from vitalgate.cli.output import fail, say, wrong
from vitalgate.cli.secret import SecretArgumentError, read_secret
from vitalgate.cloud.enrolment import EnrolmentError
from vitalgate.cloud.settings import CloudSettings
from vitalgate.cloud.store.errors import StoreError
from vitalgate.cloud.users import UserError
from vitalgate.cloud.web.server import ServeError
from vitalgate.gateway.configuration import ConfigurationError, Model, load
from vitalgate.gateway.home import Home, HomeError
from vitalgate.gateway.link import NotEnrolledError
from vitalgate.gateway.secrets import SecretsError
from vitalgate.gateway.settings import GatewaySettings, MasterKeySource, Storage
from vitalgate.gateway.spooldb import SpoolError
from vitalgate.gateway.vault import VaultError
from vitalgate.net.udp import AddressError
from vitalgate.oscore.errors import SequenceError

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The program's TOML configuration.")]


def settings_of(path: Path, model: type[Model]) -> Model:
    """The configuration, or exit 2 with one line."""
    try:
        return load(path, model)
    except ConfigurationError as error:
        wrong(str(error))


@contextlib.contextmanager
def said_in_words() -> Iterator[None]:
    """Turn the documented errors of the rooms below into one line and exit status 1."""
    try:
        yield
    except (
        HomeError,
        NotEnrolledError,
        SpoolError,
        SecretsError,
        SequenceError,
        StoreError,
        VaultError,
        AddressError,
        ServeError,
        EnrolmentError,
        UserError,
    ) as error:
        fail(str(error))


def open_home(storage: Storage, source: MasterKeySource) -> Home:
    """The program's folders and keys; the passphrase, where one is configured, is read now."""
    try:
        passphrase = read_secret(source.passphrase) if source.passphrase else None
    except SecretArgumentError as error:
        fail(f"master_key.passphrase: {error}")
    return Home(storage, source, passphrase=passphrase)


def write_template(path: Path, template: str, then: str) -> None:
    """Write a configuration to start from; never over another. ``then`` is the command that follows."""
    if path.exists():
        wrong(f"{path} exists already; it is never overwritten")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text(template.format(name=path), encoding="utf-8")
    say(f"wrote {path}; next: {then}")


def cloud_settings(path: Path) -> CloudSettings:
    """A cloud's configuration."""
    return settings_of(path, CloudSettings)


def gateway_settings(path: Path) -> GatewaySettings:
    """A gateway's configuration."""
    return settings_of(path, GatewaySettings)
