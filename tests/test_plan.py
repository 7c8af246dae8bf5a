"""The plan of a sweep: which stages are shared, what comes after what, and what it will cost."""

import json
import types
from importlib import import_module
from pathlib import Path

import pytest
from small_sweep import SMALL, SWEEP

from rose.config.compose import typed
from rose.plan import main
from rose.run import plan, submit, survey
from rose.run.estimates import Cost
from rose.run.launchers.slurm import Slurm
from rose.stages import inventory
from rose.stages.graph import Node, stage


@stage("toy", version=1)
def toy(out: Path, name: str, upstream: tuple[Path, ...]) -> None:
    (out / "name").write_text(name)


def graph(**needs: tuple[str, list[int], float]) -> dict[str, survey.Wanted]:
    """Stages by name: (names of upstream stages, the jobs that need it, its FLOPs)."""
    nodes, found = {}, {}
    for name, (upstream, jobs, flops) in needs.items():
        nodes[name] = Node(toy, name, tuple(nodes[other] for other in upstream))
        cost = Cost(flops=flops, source="counted")
        found[nodes[name].name] = survey.Wanted(name, nodes[name], False, jobs, cost)
    return found


def kinds(order: list[survey.Step]) -> list[tuple[str, list[int]]]:
    return [("".join(stage.kind for stage in step.stages), step.after) for step in order]


def test_stages_of_the_same_jobs_are_one_step_and_the_longest_chain_comes_first():
    stages = graph(
        a=("", [0, 1, 2], 5.0),
        b=("a", [0, 1, 2], 5.0),
        c=("b", [2], 1.0),
        d=("b", [0, 1], 50.0),
        e=("ad", [0], 9.0),
        f=("d", [1], 20.0),
    )
    # a and b, then d, on which the long chains hang, then their ends by length, then c; a is behind d already
    assert kinds(survey.steps(stages)) == [("ab", []), ("d", [0]), ("f", [1]), ("e", [1]), ("c", [0])]


PAIRS = ("preference=local", "preference.path=some/pairs")
TASKS = ("tasks=local", "tasks.path=some/questions")


@pytest.mark.parametrize("rest", [PAIRS, (*PAIRS, *TASKS), ("plant=mixed", "preference=planted")])
def test_a_model_is_tried_before_any_of_its_jobs_runs_it_in_earnest(composed, monkeypatch, tmp_path, rest):
    monkeypatch.chdir(tmp_path)
    data = ("dataset=local", "dataset.path=some/pool", *rest, "judge=none")
    model = ("model=local", "model.base.path=some/model", "projection=sketch", f"outputs={tmp_path}")
    methods = ("rose", "less", "random", "perplexity")
    order = survey.steps(survey.survey([typed(composed(*data, *model, f"method={name}")) for name in methods]))
    earlier: list[set[int]] = []  # all that each step follows
    for step in order:
        earlier.append(set(step.after).union(*(earlier[other] for other in step.after)))
    tries = {number for number, step in enumerate(order) if "trial" in [stage.kind for stage in step.stages]}
    assert sorted(job for number in tries for job in order[number].jobs) == [0, 1, 2, 3]
    for number, step in enumerate(order):
        if any("numerics" in stage.node.inputs for stage in step.stages) and number not in tries:
            assert {other for other in tries if set(order[other].jobs) & set(step.jobs)} <= earlier[number]
    assert any("warmup" in [stage.kind for stage in step.stages] for step in order)


def test_what_is_sent_follows_only_what_is_sent(composed, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    data = ("dataset=local", "dataset.path=some/pool", "preference=local", "preference.path=some/pairs", "judge=none")
    model = ("model=local", "model.base.path=some/model", "projection=sketch", f"outputs={tmp_path}")
    order = survey.steps(
        survey.survey([typed(composed(*data, *model, f"method={name}")) for name in ("rose", "random")])
    )
    own = survey.sent(order)
    for step in order:
        assert order.index(step) not in own or own >= set(step.after)
    assert own >= {number for number, step in enumerate(order) if step.shared}


def test_checkpoints_are_computed_side_by_side_and_sent_for_one_job_too(composed, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    data = ("dataset=local", "dataset.path=some/pool", "preference=local", "preference.path=some/pairs", "judge=none")
    model = ("model=local", "model.base.path=some/model", "projection=sketch", f"outputs={tmp_path}")
    order = survey.steps(survey.survey([typed(composed(*data, *model, "warmup.epochs=3"))]))
    place = {stage.kind: number for number, step in enumerate(order) for stage in step.stages}
    features = [place[f"features {number} of 3"] for number in (1, 2, 3)]
    assert len({*features, place["trial"], place["warmup"], place["scores"]}) == 6
    assert all(order[number].after == [place["warmup"]] for number in features)
    assert place["trial"] in order[place["warmup"]].after
    assert order[place["scores"]].after == features
    assert survey.sent(order) == {place["trial"], place["warmup"], *features}


def test_what_is_ready_is_in_no_step():
    stages = graph(a=("", [0, 1], 1.0), b=("a", [0], 1.0), c=("a", [1], 2.0))
    next(iter(stages.values())).ready = True
    assert kinds(survey.steps(stages)) == [("c", []), ("b", [])]


def test_a_failed_trial_takes_none_of_the_jobs_that_it_is_no_trial_of():
    """Two models, and what all their jobs need: it waits for both trials, and goes on where one has failed."""
    order = survey.steps(graph(small=("", [0, 1], 1.0), large=("", [2, 3], 1.0), base=("", [0, 1, 2, 3], 1.0)))
    of = {"".join(stage.kind for stage in step.stages): number for number, step in enumerate(order)}
    ids, slurm = {of["small"]: "7", of["large"]: "8", of["base"]: "9"}, types.SimpleNamespace(sbatch={})
    for step in order:
        step.needed = True

    def after(jobs: list[int], *names: str) -> str:
        return submit._after(order, ids, [of[name] for name in names], jobs, slurm)["dependency"]

    assert after([0, 1, 2, 3], "small", "large") == "afterany:7:8"
    assert after([2], "large", "base") == "afterok:8:9"
    assert after([0, 2], "large", "base") == "afterok:9,afterany:8"


def test_the_plan_of_a_sweep_names_what_is_shared_and_computes_nothing(tmp_path, capsys):
    main([*SWEEP[1:], *SMALL, f"outputs={tmp_path}"])
    short = capsys.readouterr().out
    assert short.startswith("4 jobs, ") and ", 0 of them ready; " in short
    rows = {cells[0]: cells[1:3] for line in short.splitlines() if (cells := line.split())}
    assert rows["pool"] == ["0", "1"] and rows["warmup"] == ["0", "2"] and rows["features"] == ["0", "4"]
    missing = [int(row[1]) for kind, row in rows.items() if row[:1] == ["0"] and kind != "sum"]
    assert rows["sum"] == ["0", str(sum(missing))]
    main(["--steps", *SWEEP[1:], *SMALL, f"outputs={tmp_path}"])
    text = capsys.readouterr().out
    assert text.endswith(short)
    first = text[text.index("step 1") : text.index("step 2")]
    assert "4 jobs" in first and all(f" {stage}/" in first for stage in ("base", "pool", "tokens", "preferences"))
    second = text[text.index("step 2") : text.index("step 3")]
    assert "after 1" in second and "warmup/" in second and "rose-0.05-seed" in second
    fourth = text[text.index("step 4") : text.index("step 5")]  # step 3 is the other seed's
    assert "features/" in fourth and " of 2" in fourth and "targets/" not in fourth and "rose-0.05-seed" in fourth
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("store", "stages.__main__"),
        ("smollm2", "fetch.smollm2"),
        ("minilm", "fetch.minilm"),
    ],
)
def test_commands_go_on_under_their_first_names(old, new):
    assert import_module(f"rose.{old}").main is import_module(f"rose.{new}").main


def test_a_sweep_with_nothing_left_to_compute_costs_nothing():
    assert plan.summary({}, [], 1).splitlines()[-1].split() == ["sum", *"000000"]


def test_a_plan_takes_the_arguments_of_a_sweep_and_refuses_before_it_shows_anything(tmp_path, capsys):
    arguments = [*SMALL, "-m", "method=random", f"outputs={tmp_path}", "--submit"]
    for wrong, reason in (("hydra/launcher=processes", "needs hydra/launcher=slurm"), ("dry_run=true", "dry_run=true")):
        with pytest.raises(SystemExit, match=reason):
            main([*arguments, wrong])
    assert not capsys.readouterr().out


def test_what_a_submitted_sweep_will_use_is_claimed_before_anything_is_sent(tmp_path, monkeypatch):
    claimed = []

    def send(slurm: Slurm, function, arguments, **sbatch):
        claimed.append(inventory.claims(tmp_path))
        return [types.SimpleNamespace(job_id="1") for _ in arguments]

    monkeypatch.setattr(Slurm, "submit", send)
    monkeypatch.setattr(Slurm, "refuse_twice", lambda slurm: None)
    (tmp_path / "stages").mkdir()
    command = [*SWEEP[1:], *SMALL, f"outputs={tmp_path}", "hydra/launcher=slurm", "--submit"]
    main(command)
    counts = {name.split("/")[0]: len(jobs) for name, jobs in claimed[0].items()}
    assert (counts["base"], counts["pool"], counts["scores"]) == (4, 4, 1)
    folders = [path.parent for path in tmp_path.glob("sweeps/*/*/claims.json")]
    assert len(folders) == 4 and not [folder for folder in folders if (folder / "status.json").exists()]
    (folders[0] / "status.json").write_text(json.dumps({"state": "done", "error": None}))
    main(command)
    assert json.loads((folders[0] / "status.json").read_text())["state"] == "done"
