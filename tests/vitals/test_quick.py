"""`quick`: what is made quickly is as frozen, equal and complete as `dataclasses` makes it."""

import copy
import dataclasses
import inspect
import pickle

import pytest

from vitalgate.quick import quick


@quick
@dataclasses.dataclass(frozen=True, slots=True)
class Made:
    number: int
    text: str = "none"
    many: list[int] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ValueError("a number is no less than 0")


def test_it_behaves_as_a_frozen_dataclass():
    made = Made(1, many=[2])
    assert (made.number, made.text, made.many) == (1, "none", [2])
    assert repr(made) == "Made(number=1, text='none', many=[2])"
    assert made == Made(1, "none", [2]) != Made(2, "none", [2])
    assert type(made) is Made
    assert dataclasses.replace(made, text="some") == Made(1, "some", [2])
    assert copy.copy(made) == made == pickle.loads(pickle.dumps(made))
    assert Made(1).many is not Made(1).many
    assert list(inspect.signature(Made).parameters) == ["number", "text", "many"]
    for name, value in (("number", 2), ("other", 1)):
        with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
            setattr(made, name, value)
    with pytest.raises(dataclasses.FrozenInstanceError):
        del made.number
    with pytest.raises(TypeError, match="number"):
        Made()
    with pytest.raises(ValueError, match="no less"):
        Made(-1)


def test_what_it_cannot_make_it_refuses():
    @dataclasses.dataclass(frozen=True)
    class Loose:
        number: int

    @dataclasses.dataclass(frozen=True, slots=True)
    class Below(Made):
        more: int = 0

    for cls in (Loose, Below, int):
        with pytest.raises(TypeError):
            quick(cls)
