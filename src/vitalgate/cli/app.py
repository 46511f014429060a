"""The tree of verbs."""

import typer

from vitalgate import __version__
from vitalgate.cli import bench, cloud, coap, config, demo, device, doctor, enroll, gateway, keys

app = typer.Typer(
    name="vitalgate",
    help="A security gateway for legacy medical devices. Information only: not a primary alarm system.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.add_typer(cloud.app, name="cloud")
app.add_typer(gateway.app, name="gateway")
app.add_typer(device.app, name="device")
app.add_typer(enroll.app, name="enroll")
app.add_typer(keys.app, name="keys")
app.add_typer(config.app, name="config")
app.add_typer(coap.app, name="coap")
app.add_typer(bench.app, name="bench")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vitalgate {__version__}")
        raise typer.Exit


@app.callback()
def top(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """A security gateway for legacy medical devices. Information only: not a primary alarm system."""
