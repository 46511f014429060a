"""Secrets on the command line and in configuration: '@FILE' or 'env:NAME', never a literal (it would show in `ps`)."""

import os
from pathlib import Path


class SecretArgumentError(ValueError):
    """A secret that was given literally or cannot be read; the text says what to do."""


def read_secret(argument: str) -> str:
    """The secret that ``argument`` names: '@FILE' (first line) or 'env:NAME'. Raises `SecretArgumentError`."""
    if argument.startswith("@"):
        path = Path(argument[1:])
        try:
            return path.read_text(encoding="utf-8").split("\n", 1)[0].strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SecretArgumentError(f"{path}: cannot be read as text: {error}") from error
    if argument.startswith("env:"):
        value = os.environ.get(argument[4:])
        if value is None:
            raise SecretArgumentError(f"the environment has no {argument[4:]}; set it or use @FILE")
        return value
    raise SecretArgumentError("a secret is given as @FILE or env:NAME, never literally on the command line")
