"""The command line: `vitalgate VERB`. Each verb is a thin module; the work is done in the rooms below."""

import sys


def main() -> None:
    """Entry point of the `vitalgate` command."""
    try:
        from vitalgate.cli.app import app  # noqa: PLC0415  # so that a missing extra is said in words

        app()
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == "vitalgate":
            raise
        sys.stderr.write(f"error: the command line needs the package {error.name!r}: pip install 'vitalgate[demo]'\n")
        sys.exit(1)
