"""`vitalgate config check|schema`."""

import enum
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from vitalgate.cli.output import JsonFlag, document, say, wrong
from vitalgate.cloud.settings import CloudSettings
from vitalgate.gateway.configuration import ConfigurationError, Section, load, schema_of
from vitalgate.gateway.settings import GatewaySettings

app = typer.Typer(
    help="Check configuration files; print what they may hold.", no_args_is_help=True, add_completion=False
)


class Program(enum.StrEnum):
    """Which program a configuration is for."""

    GATEWAY = "gateway"
    CLOUD = "cloud"


MODELS: dict[Program, type[Section]] = {Program.GATEWAY: GatewaySettings, Program.CLOUD: CloudSettings}


def _program_of(path: Path) -> Program:
    """A cloud's configuration has `[coap]`, a gateway's `[uplink]`; a file with neither is checked as a gateway's."""
    try:
        data: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Program.GATEWAY  # `load` says what is wrong
    return Program.CLOUD if "coap" in data else Program.GATEWAY


@app.command("check")
def check(
    file: Annotated[Path, typer.Argument(help="The TOML file.")],
    program: Annotated[Program | None, typer.Option("--for", help="Which program's; guessed when left out.")] = None,
    json: JsonFlag = False,
) -> None:
    """Say whether a configuration can be used; exit 2 and one line when not."""
    chosen = program or _program_of(file)
    try:
        settings = load(file, MODELS[chosen])
    except ConfigurationError as error:
        wrong(str(error))
    if json:
        document({"file": str(file), "for": chosen.value, "valid": True, "settings": settings.model_dump(mode="json")})
    else:
        say(f"{file}: a valid {chosen.value} configuration")


@app.command("schema")
def schema(program: Annotated[Program, typer.Argument(help="gateway or cloud.")], json: JsonFlag = False) -> None:
    """Print the JSON Schema of a configuration (always JSON)."""
    document(schema_of(MODELS[program]))
