"""Where a simulator puts the link to its terminal: it replaces another simulator's, and takes away nothing else."""

import pytest

from vitalgate.devices.simulate import PtyLine


def test_what_is_no_link_is_never_taken_away(tmp_path):
    kept = tmp_path / "kept"
    kept.write_text("a report", encoding="ascii")
    with pytest.raises(FileExistsError, match="name a path that is free"):
        PtyLine(kept)
    assert kept.read_text(encoding="ascii") == "a report"


def test_a_link_that_was_left_behind_is_replaced(tmp_path):
    link = tmp_path / "tty"
    link.symlink_to(tmp_path / "gone")
    PtyLine(link)
    assert link.resolve().is_char_device()
