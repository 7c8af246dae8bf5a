"""What a job returns to a sweeper that searches; what such a sweep shares, checks first and reports."""

import json
import math
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml
from hydra import initialize_config_dir
from small_sweep import SMALL

from rose import pipeline
from rose.__main__ import ROOT
from rose.config import CONF
from rose.config.compose import expand, sweep, typed
from rose.errors import RoseError
from rose.run import objective, record
from rose.run.job import run as run_job
from rose.run.tracking import holds_run

# Takes two ratios at a time, and after them the better one's half. Hydra looks for plugins in hydra_plugins alone.
SWEEPER = """
import json
from pathlib import Path
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

class Halves(Sweeper):
    def __init__(self):
        pass

    def setup(self, *, hydra_context, task_function, config):
        self.launcher = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=hydra_context, task_function=task_function
        )

    def sweep(self, arguments):
        swept = [each for each in OverridesParser.create().parse_overrides(arguments) if each.is_sweep_override()]
        (interval,) = swept
        fixed = [text for text in arguments if text != interval.input_line]
        ends = [interval.value().start, interval.value().end]
        first = self._values(ends, fixed, 0)
        best = ends[first.index(max(value for value in first if value is not None))]
        last = self._values([best / 2], fixed, 2)
        Path("seen.json").write_text(json.dumps([first, best, last]))

    def _values(self, ratios, fixed, start):
        jobs = [[*fixed, f"selection.ratio={ratio}"] for ratio in ratios]
        return [done.return_value for done in self.launcher.launch(jobs, initial_job_idx=start)]
"""
SEARCH = "selection.ratio=interval(0.1,0.5)"


def search(folder: Path, *words: str) -> subprocess.CompletedProcess:
    (folder / "conf/hydra/sweeper").mkdir(parents=True, exist_ok=True)
    (folder / "conf/hydra/sweeper/halves.yaml").write_text("_target_: hydra_plugins.halves.Halves\n")
    (folder / "hydra_plugins").mkdir(exist_ok=True)
    (folder / "hydra_plugins/halves.py").write_text(SWEEPER)
    paths = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "rose", "--config-dir", "conf", "-m", "hydra/sweeper=halves", *SMALL, *words]
    return subprocess.run(command, cwd=folder, env=paths, capture_output=True, text=True)


@pytest.mark.parametrize("launcher", ["basic", "processes"])
def test_a_sweeper_that_searches_gets_each_jobs_metric_and_stages_are_shared(tmp_path, launcher):
    words = ["method=bm25", "until=selection", "objective=precision", f"hydra/launcher={launcher}", "name=mine", SEARCH]
    done = search(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    jobs = {
        path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("outputs/sweeps/mine/*/metrics.json")
    }
    measured = {float(re.search(r"bm25-([\d.]+)-", name)[1]): metrics["precision"] for name, metrics in jobs.items()}
    best = max((0.1, 0.5), key=lambda ratio: measured[ratio])
    assert json.loads((tmp_path / "seen.json").read_text()) == [
        [measured[0.1], measured[0.5]],
        best,
        [measured[best / 2]],
    ]
    assert len(list(tmp_path.glob("outputs/stages/scores/*"))) == 1 and len(jobs) == 3
    table = (tmp_path / "outputs/sweeps/mine/results.csv").read_text()
    assert all(name in table for name in jobs)


def test_a_search_is_checked_before_its_first_job(tmp_path):
    for words, said in (
        (["objective=precison", SEARCH], "objective=precison: is not measured by this job; did you mean precision"),
        ([SEARCH], "objective=null: hydra/sweeper=halves needs a metric"),
        (["objective=precision", "selection.ratio=interval(0,0.5)"], "selection.ratio=0.0: must be in (0, 1]"),
    ):
        done = search(tmp_path, "until=selection", *words)
        assert done.returncode == 1 and f"rose: {said}" in done.stderr, done.stderr
        assert not (tmp_path / "outputs").exists()


def _expanded(*words: str) -> list[list[str]]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return expand(sweep(list(words)))


def test_an_interval_needs_a_sweeper_that_searches():
    with pytest.raises(RoseError, match=r"selection.ratio=interval\(0.1,0.5\): needs a sweeper that searches"):
        _expanded(SEARCH)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("objective=win_rat",), "win_rate"),
        (("objective=accuracy_gsm", "tasks=local", "tasks.name=gsm8k", "tasks.path=none"), "accuracy_gsm8k"),
        (("objective=fidelit", "until=fidelity"), "fidelity"),
    ],
)
def test_an_objective_that_nothing_measures_names_the_nearest(composed, monkeypatch, words, names):
    monkeypatch.setattr("rose.evaluation.questions.fingerprint", lambda tasks: "questions", raising=False)
    config = typed(composed(*words))
    with pytest.raises(RoseError, match=f"is not measured by this job; did you mean {names}"):
        objective.require(config, pipeline.stages(config))


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (("objective=auc",), False),
        (("objective=intact", "plant=swap"), True),
        (("objective=auc_swap", "plant=swap"), True),
        (("objective=auc_garble", "plant=swap"), False),
        (("objective=precision",), True),
        (("objective=precision", "dataset=local", "dataset.path=a.jsonl", "model=local", "model.base.path=m"), False),
    ],
)
def test_an_objective_of_which_the_pool_holds_no_truth_is_refused(composed, words, allowed):
    config = typed(composed(*words))
    nodes = pipeline.stages(typed(composed()))  # those of the world, whatever the pool: what they measure is asked
    with nullcontext() if allowed else pytest.raises(RoseError, match=r"is not measured by this job"):
        objective.require(config, nodes)


@pytest.mark.parametrize(
    "words",
    [
        ["objective=reward", "judge=llm", "judge.model=judge", "judge.base_url=http://127.0.0.1:1/v1"],
        ["objective=log_ratio_margin", "method=zero_shot"],
    ],
)
def test_an_objective_that_comes_of_no_such_judge_or_model_is_refused(composed, words):
    config = typed(composed(*words))
    with pytest.raises(RoseError, match=r"is not measured by this job"):
        objective.require(config, pipeline.stages(config))


def test_an_objective_of_a_stage_that_is_not_reached_is_refused(composed):
    config = typed(composed("objective=preference_accuracy", "until=selection"))
    with pytest.raises(RoseError, match="is not measured by this job; it has selected_rows"):
        objective.require(config, pipeline.stages(config))
    config = typed(composed("objective=preference_accuracy"))
    objective.require(config, pipeline.stages(config))


def test_every_metric_of_a_job_that_is_a_finding_can_be_an_objective(composed, run):
    directory, _ = run("diagnostics.fidelity=true")
    known = {name for names in objective.METRICS.values() for name in names}
    counts = re.compile(r"zero_shot/|.*_(low|high|pairs|dropped)$|longer_wins$|test_pairs_matched$|pool_rows$")
    assert {name for name in record_of(directory) if not counts.match(name)} <= known


def record_of(directory: Path) -> dict[str, float]:
    return json.loads((directory / "metrics.json").read_text())


def test_what_is_returned_is_the_metric_of_a_job_that_is_done_or_nothing(tmp_path, caplog):
    (tmp_path / "metrics.json").write_text(json.dumps({"reward": 2, "win_rate": math.nan}))
    assert objective.value("reward", tmp_path) is None  # not done
    record.say(tmp_path, "done")
    assert objective.value("reward", tmp_path) == 2.0 and isinstance(objective.value("reward", tmp_path), float)
    assert objective.value("win_rate", tmp_path) is None and objective.value(None, tmp_path) is None
    assert objective.value("rewards", tmp_path) is None and "did you mean reward?" in caplog.text


def test_neither_objective_nor_name_changes_what_a_job_is_called(composed):
    from rose.run.names import register_resolvers

    register_resolvers()
    names = {composed(*words).hydra.run.dir for words in ((), ("objective=reward",), ("name=mine",))}
    assert len(names) == 1


def test_a_job_that_was_done_makes_the_run_that_an_agent_waits_for(composed, inputs, tmp_path, monkeypatch):
    from small_job import overrides

    texts = [text for text in overrides(inputs, tmp_path) if text != "tracking=none"]
    config = typed(composed(*texts, "until=leakage", "method=bm25", "tracking.mode=offline"))
    directory = tmp_path / "runs" / "job"
    runs = []
    for sweep_id in (None, None, "abc", "abc"):
        if sweep_id:
            monkeypatch.setenv("WANDB_SWEEP_ID", sweep_id)
        run_job(config, directory, "runs")
        runs.append(len(list((directory / "wandb").glob("offline-run-*/run-*.wandb"))))
    assert holds_run(directory) and runs == [1, 1, 2, 3]


def test_the_agents_command_of_the_documents_is_a_job(composed):
    text = (ROOT / "docs" / "SWEEPS.md").read_text()
    agent = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.S)[1])
    program, *words, arguments = agent["command"]
    assert (program, arguments) == ("rose", "${args_no_hyphens}")
    first = {name: values.get("min", values.get("values", [None])[0]) for name, values in agent["parameters"].items()}
    config = typed(composed(*words, *(f"{name}={value}" for name, value in first.items())))
    assert config.selection.ratio == first["selection.ratio"]
    config.objective = agent["metric"]["name"]
    objective.require(config, pipeline.stages(config))
