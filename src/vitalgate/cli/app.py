"""The tree of verbs."""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from vitalgate import __version__

VERBS: dict[str, str] = {
    "demo": "Cloud, gateway and three simulated devices that replay real recordings, with a live dashboard.",
    "doctor": "Look at configuration, secrets, ports, enrolment, the running process and its link; say what helps.",
    "cloud": "The cloud: takes deliveries, stores them, shows them.",
    "gateway": "The gateway: listens to devices, keeps what they say, delivers it.",
    "device": "Legacy devices: which are understood, and simulators of them.",
    "enroll": "Give gateways and devices an identity.",
    "keys": "Keys: list, rotate, revoke. Keys themselves are never printed.",
    "config": "Check configuration files; print what they may hold.",
    "coap": "A CoAP client and a server to try things on.",
    "bench": "Benchmarks, beside the floor they stand on, in one run.",
}
"""Each verb and its line in the list. The module of the same name holds it; only the one that is called is imported,
for together they take longer to import than a short answer may take."""


class Verbs(TyperGroup):
    """Commands by name out of `VERBS`. (Typer does not export the types of its base's arguments.)"""

    _listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        """Names, in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The verb's command, or None; while help is written only its line."""
        if cmd_name not in VERBS:
            return None
        return TyperCommand(cmd_name, help=VERBS[cmd_name]) if self._listing else load(cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The list of verbs."""
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False


def load(verb: str) -> Any:
    """The command of one of `VERBS`."""
    module: Any = import_module(f"vitalgate.cli.{verb}")
    command = get_command(module.app)
    command.name = verb
    return command


app = typer.Typer(
    name="vitalgate",
    cls=Verbs,
    help="A security gateway for legacy medical devices. Information only: not a primary alarm system.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vitalgate {__version__}")
        raise typer.Exit


@app.callback()
def top(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """A security gateway for legacy medical devices. Information only: not a primary alarm system."""
