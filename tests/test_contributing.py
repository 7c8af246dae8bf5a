"""The method that CONTRIBUTING.md shows is applied to a copy of the program and run."""

import json
import os
import re
import shutil
import subprocess
import sys

import pandas
import pytest
from small_job import overrides

from rose.__main__ import ROOT


def example() -> str:
    return re.search(r"```diff\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S)[1]


def test_a_method_is_fewer_than_40_lines():
    added = [line for line in example().splitlines() if re.match(r"\+(?!\+\+ )", line)]
    assert len(added) < 20
    assert len(example().splitlines()) < 40


def test_the_method_shown_runs(inputs, tmp_path):
    copy = tmp_path / "copy"
    for name in ("rose", "conf", "experiments"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["git", "apply", "-"], cwd=copy, input=example(), text=True, check=True)
    done = subprocess.run(
        [sys.executable, "-m", "rose", *overrides(inputs, tmp_path / "outputs"), "method=jaccard", "until=selection"],
        cwd=copy,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(copy)},
    )
    assert done.returncode == 0, done.stderr
    (directory,) = (tmp_path / "outputs" / "runs").iterdir()
    table = pandas.read_parquet(directory / "scores.parquet").set_index("id")
    rows = [json.loads(line) for line in (inputs / "pool.jsonl").read_text().splitlines()]
    pairs = [json.loads(line) for line in (inputs / "pairs.jsonl").read_text().splitlines()]
    for row in rows[:5]:
        own = set(f"{row['prompt']} {row['completion']}".split())
        shares = []
        for pair in pairs[1:]:  # the first is subtask b's only one
            other = set(f"{pair['prompt']} {pair['chosen']}".replace("?", "").split())
            shares.append(len(own & other) / len(own | other))
        assert table["a"][row["id"]] == pytest.approx(sum(shares) / len(shares))
