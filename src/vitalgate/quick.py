"""Frozen dataclasses made as quickly as others: `quick`, for the few that are made thousands of times a second.

A frozen dataclass fills each field through `object.__setattr__`, which takes ten times as long as a plain assignment.
Here an object belongs to a twin class, of the same slots and not frozen, for as long as its ``__init__`` runs.
"""

import dataclasses
from typing import Any, Final, TypeVar

T = TypeVar("T")
_MADE: Final = object()
"""Stands for a default that is made anew for each object."""


def quick(cls: type[T]) -> type[T]:
    """Give ``cls``, declared ``@dataclass(frozen=True, slots=True)`` with no dataclass above it, a quick ``__init__``.

    Everything else stays as `dataclasses` made it: arguments, defaults, equality, hash, and that no field can be set.
    Raises `TypeError` for a class declared otherwise.
    """
    fields = [field for field in dataclasses.fields(cls) if field.init]  # type: ignore[arg-type]  # TypeError if none
    slots: tuple[str, ...] = cls.__dict__.get("__slots__", ())
    if cls.__bases__ != (object,) or slots != tuple(field.name for field in fields) or "__dict__" in dir(cls):
        raise TypeError(f"{cls.__name__} is no dataclass of its own with slots, each of them an argument")
    twin = type(cls.__name__, (), {"__slots__": slots, "__doc__": None})
    names: dict[str, Any] = {"become": object.__setattr__, "twin": twin, "cls": cls, "made": _MADE}
    arguments, body = [], []
    for field in fields:
        value, default = field.name, f"default_{field.name}"
        if field.default is not dataclasses.MISSING:
            names[default] = field.default
            arguments.append(f"{field.name}={default}")
        elif field.default_factory is not dataclasses.MISSING:
            names[default] = field.default_factory
            arguments.append(f"{field.name}=made")
            value = f"{default}() if {field.name} is made else {field.name}"
        else:
            arguments.append(field.name)
        body.append(f" self.{field.name} = {value}")
    source = [
        f"def __init__(self, {', '.join(arguments)}):",
        " become(self, '__class__', twin)",
        *body,
        " self.__class__ = cls",
    ]
    if hasattr(cls, "__post_init__"):
        source.append(" self.__post_init__()")
    exec("\n".join(source), names)  # noqa: S102 - of field names alone, as `dataclasses` does it
    made = names["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    made.__module__ = cls.__module__
    made.__annotations__ = dict(getattr(cls.__init__, "__annotations__", {}))
    cls.__init__ = made  # type: ignore[method-assign]  # the same arguments
    return cls
