"""How every verb speaks: one JSON document on standard output with ``--json``, else text for people; progress and
errors on standard error. Exit status: 0 done, 1 the job failed, 2 the call was wrong."""

import json
import sys
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output and nothing else.")]

errors = Console(stderr=True, highlight=False, soft_wrap=True)
"""Standard error: progress, notes, warnings and errors."""

FAILED, WRONG_CALL = 1, 2


def say(text: str) -> None:
    """A line of the result for people, on standard output."""
    print(text, flush=True)


def document(value: dict[str, Any]) -> None:
    """The one JSON document."""
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2, default=str)
    sys.stdout.write("\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Something worth knowing, on standard error."""
    errors.print(text, markup=False)


def warn(text: str) -> None:
    """A warning that cannot be missed, on standard error."""
    errors.print(f"WARNING: {text}", style="bold white on red", markup=False)


def fail(text: str) -> NoReturn:
    """The job failed: one clear line, exit status 1."""
    errors.print(f"error: {text}", style="red", markup=False)
    raise typer.Exit(FAILED)


def wrong(text: str) -> NoReturn:
    """The call was wrong: one clear line, exit status 2."""
    errors.print(f"error: {text}", style="red", markup=False)
    raise typer.Exit(WRONG_CALL)
