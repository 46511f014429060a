"""docs/coap.md: its programs run, its tables are those of the code."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vitalgate.coap import Limits, Parameters
from vitalgate.net.etsi.runner import CASES

TEXT = (Path(__file__).parents[2] / "docs" / "coap.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_the_programs_run(number):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAMS[number]], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("row", [Parameters, Limits], ids=lambda row: row.__name__)
def test_the_tables_have_every_name_and_its_default(row):
    found = dict(re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", section(row.__name__), re.MULTILINE))
    assert found == {field.name: str(field.default) for field in dataclasses.fields(row)}


def test_the_peers_table_counts_every_case():
    rows = re.findall(r"\| (\d+) \| (\d+) \| (\d+) \|$", section("Peers it was verified against"), re.MULTILINE)
    assert len(rows) == 5
    assert {sum(map(int, row)) for row in rows} == {len(CASES)}
