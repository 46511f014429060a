"""The replay window beside the plainest model of it: the set of all numbers ever marked."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitalgate.oscore.replay import DEFAULT_WINDOW, LARGEST_WINDOW, ReplayWindow


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    size=st.sampled_from([1, 2, 31, 32, 33, 64, 4096]),
    steps=st.lists(st.one_of(st.integers(-80, 80), st.integers(-5000, 5000)), max_size=60),
)
def test_the_window_is_the_model(size, steps):
    window, marked, highest = ReplayWindow(size), set(), -1
    for step in steps:
        number = max(0, highest + step)
        expected = number not in marked and number > highest - size
        assert window.fresh(number) is expected
        if expected:
            window.mark(number)
            marked.add(number)
            highest = max(highest, number)
        assert window.highest == highest
        assert not window.fresh(number)


def test_asking_changes_nothing():
    window = ReplayWindow()
    assert window.fresh(7)
    assert window.fresh(7)
    assert window.highest == -1


def test_a_started_window_refuses_everything_up_to_its_start():
    window = ReplayWindow()
    window.start_at(100)
    assert not any(window.fresh(number) for number in range(101))
    assert window.fresh(101)
    window.mark(103)
    assert [number for number in range(110) if window.fresh(number)] == [101, 102, *range(104, 110)]


def test_sizes():
    assert ReplayWindow().size == DEFAULT_WINDOW == 32
    assert ReplayWindow(LARGEST_WINDOW).size == 4096
    for size in (0, -1, LARGEST_WINDOW + 1):
        with pytest.raises(ValueError):
            ReplayWindow(size)
