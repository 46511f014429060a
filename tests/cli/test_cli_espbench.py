"""`vitalgate bench esp`."""

import json

from typer.testing import CliRunner

from vitalgate.cli.bench import app
from vitalgate.cli.espbench import SIZES, SUITES, bench_esp


def test_every_suite_and_size_is_measured():
    result = bench_esp(rounds=2, number=20)
    assert list(result["suites"]) == list(SUITES)
    for name, sizes in result["suites"].items():
        assert list(sizes) == [str(size) for size in SIZES]
        for found in sizes.values():
            assert found["built_pps"] > 0
            assert found["opened_pps"] > 0
            assert ("ratio_to_aead_built" in found) is ("+" not in name)
    assert result["ratio_to_aead"] > 0


def test_the_command_prints_one_document(monkeypatch):
    monkeypatch.setattr("vitalgate.cli.bench.bench_esp", lambda **size: bench_esp(rounds=1, number=5))
    done = CliRunner().invoke(app, ["esp", "--quick", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["ratio_to_aead"] > 0
    assert "ratio_to_aead" in CliRunner().invoke(app, ["esp", "--quick"]).stdout
