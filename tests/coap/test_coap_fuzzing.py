"""A short run of each coverage-guided target in `fuzz/`: the same inputs every time, from the corpus kept there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[2] / "fuzz"


@pytest.mark.parametrize(("target", "runs", "branches"), [("coap_codec", 6000, 155), ("coap_engine", 1500, 1200)])
def test_a_short_run(target, runs, branches, tmp_path):
    corpus = FUZZ / "corpus" / target
    assert list(corpus.iterdir())
    arguments = [f"-runs={runs}", "-seed=1", "-max_len=300", f"-artifact_prefix={tmp_path}/", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, FUZZ / f"{target}.py", *arguments, str(corpus)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"Done {runs} runs" in done.stderr
    (covered,) = re.findall(r"DONE +cov: (\d+)", done.stderr)
    assert int(covered) >= branches, "the target still reaches what it is for"
