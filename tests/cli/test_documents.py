"""What the documents say of the program, held to the program."""

import re
from pathlib import Path

import pytest

from vitalgate.cli.app import VERBS
from vitalgate.counters import COUNTERS

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def test_every_counter_is_in_the_list_as_its_row_has_it():
    text = (ROOT / "docs" / "operations.md").read_text()
    listed = re.findall(r"^\| `vitalgate_(\w+)_total` \| (?:`(\w+)`)? ?\| (.+) \|$", text, re.MULTILINE)
    assert listed == [(row.name, row.label, row.meaning) for row in COUNTERS.values()]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_what_is_linked_exists(path):
    text = path.read_text()
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", text):
        assert (path.parent / target).exists(), target


def test_every_verb_is_in_the_readme():
    text = "".join(path.read_text() for path in DOCUMENTS)
    assert [verb for verb in VERBS if f"vitalgate {verb}" not in text] == []
