"""Reading TOML configuration: one loader for every program, with errors that name file, key and remedy."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

SCHEMA = 1
"""Version of the configuration's form; a file of a newer form is refused, of an older one migrated here."""


class ConfigurationError(ValueError):
    """A configuration that cannot be used. One line: file, key, what is wrong, what to do."""


class Section(BaseModel):
    """A table of the configuration: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


def _endpoint(value: object) -> object:
    """'127.0.0.1:5683' or '[::1]:5683' as (host, port); anything else is left for the model to refuse."""
    if isinstance(value, str):
        host, colon, port = value.rpartition(":")
        if colon and host and port.isdigit() and int(port) <= 65535:
            return host.strip("[]"), int(port)
        raise ValueError("write HOST:PORT, for example 127.0.0.1:5683 or [::1]:5683")
    return value


Endpoint = Annotated[tuple[str, int], BeforeValidator(_endpoint)]
"""A host and a port, written 'HOST:PORT'."""

Model = TypeVar("Model", bound=Section)


def load(path: Path, model: type[Model]) -> Model:
    """The configuration in ``path`` as ``model``; relative paths in it are relative to the file's folder.

    Raises `ConfigurationError`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be read: {error.strerror}; give another file with --config"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: is not UTF-8 text; save it as UTF-8") from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: is not TOML: {error}; correct that place") from error
    return check(data, model, path)


def check(data: dict[str, Any], model: type[Model], path: Path) -> Model:
    """``data`` as ``model``, or a `ConfigurationError` that names the first faulty key of ``path``."""
    schema = data.pop("schema", None)
    if schema != SCHEMA:
        found = "is missing" if schema is None else f"must be {SCHEMA}, is {schema!r}"
        raise ConfigurationError(f"{path}: schema: {found}; write `schema = {SCHEMA}` at the top")
    try:
        return model.model_validate(data, context={"folder": path.parent.resolve()})
    except ValidationError as error:
        # A key that is not known first: where one is mistyped, the right one is missing too.
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        raise ConfigurationError(f"{path}: {_describe(first)}") from None


def _describe(error: ErrorDetails) -> str:
    # The library's own names for the forms that a value may have stand in brackets; they are no keys.
    key = ".".join(str(part) for part in error["loc"] if "[" not in str(part))
    if error["type"] == "missing":
        return f"{key}: is missing; add it"
    if error["type"] == "extra_forbidden":
        return f"{key}: is not a known key; remove it or see `vitalgate config schema`"
    message = error["msg"].removeprefix("Value error, ")
    about = f"{key}: " if key else ""  # what concerns several tables names them itself
    return f"{about}{message}; correct it or see `vitalgate config schema`"


def schema_of(model: type[Section]) -> dict[str, Any]:
    """The JSON Schema of a configuration, for editors and for people."""
    schema = model.model_json_schema()
    schema["properties"] = {"schema": {"const": SCHEMA, "type": "integer"}} | schema.get("properties", {})
    schema["required"] = ["schema", *schema.get("required", [])]
    return schema
