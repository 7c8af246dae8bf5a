"""What a missing stage will cost, and what a long job says of it before it begins."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from small_sweep import SMALL

from rose.config.compose import typed
from rose.config.schema import Config
from rose.data import world
from rose.run import callback, forewarning, plan, survey
from rose.run.estimates import ROWS, Cost, Costs, Size, rows_of
from rose.stages.build import build
from rose.stages.graph import Node, stage
from rose.stages.kinds import kind_of

PAIRS = ("preference=local", "preference.path=some/pairs")


@stage("plain", version=1)
def plain(out: Path, name: str, upstream: tuple[Path, ...]) -> None:
    (out / "name").write_text(name)


@pytest.fixture
def config(composed, tmp_path) -> Config:
    return typed(composed(*SMALL, f"outputs={tmp_path}", "selection.ratio=0.25"))


def test_a_cost_is_counted_by_hand(config, tmp_path):
    nodes = plan.pipeline.stages(config)

    def count(kind: str) -> Cost:
        name = next(name for name in nodes if kind_of(name) == kind)
        return Costs(tmp_path).of(name, nodes[name], config, nodes)

    vocabulary, width = len(world.tokenizer()), 32
    # a Llama with tied embeddings: q, k, v, o; gate, up, down; two norms a layer and one at the end
    weights = vocabulary * width + 2 * (4 * width**2 + 3 * width * 4 * width + 2 * width) + width
    trained = 2 * 4 * 8 * (width + width)
    tokens = 80 * 256  # rows, model.max_length: the rows are not tokenised yet
    features = count("features")
    assert features.tokens == 2 * tokens
    assert features.flops == 2 * weights * tokens + 2 * (weights + trained) * tokens
    assert features.source == "at most"
    assert count("finetune").tokens == 2 * (80 // 4) * 1 * 256
    assert count("pool").tokens == 0


def test_what_rests_on_a_pool_of_unknown_size_is_not_known(config):
    """Python's max(32, nan) is 32: one batch."""
    local = Size(rows=math.nan, length=math.nan, pairs=10, tests=10, weights=100, trained=10)
    assert math.isnan(ROWS["warmup"](config, local))
    assert math.isnan(ROWS["finetune"](config, local))
    counted = replace(config, selection=replace(config.selection, count=40))
    assert ROWS["finetune"](counted, local) == 40 * config.finetune.epochs
    slices = replace(config, selection=replace(config.selection, slice=3, slices=10))
    assert ROWS["finetune"](slices, replace(local, rows=400)) == 40 * config.finetune.epochs
    unknown, known = Cost(bytes=1.0, source="at most"), Cost(5.0, 7.0, 1.0, source="counted")
    both, told = plan._sum(map(wanted, [unknown, known])), plan._sum(map(wanted, [known, known]))
    assert (both.tokens, both.flops, both.bytes, both.source) == (5.0, 7.0, 2.0, "at least")
    assert math.isnan(both.seconds)
    assert told.source == ""


def wanted(cost: Cost) -> survey.Wanted:
    return survey.Wanted("toy", Node(plain, "toy", ()), False, [0], cost)


@pytest.mark.parametrize(("rows", "ratio", "taken"), [(80, 0.25, 20), (80, 0.01, 16), (10, 0.01, 10)])
def test_the_warm_up_takes_its_share_or_a_batch_and_no_more_than_there_is(composed, tmp_path, rows, ratio, taken):
    size = [f"dataset.world.rows={rows}", f"warmup.ratio={ratio}", "warmup.batch_size=16", "warmup.epochs=1"]
    config = typed(composed(*SMALL, *size, f"outputs={tmp_path}"))
    nodes = plan.pipeline.stages(config)
    assert Costs(tmp_path).of("warmup", nodes["warmup"], config, nodes).tokens == 2 * taken * 256


def test_a_stage_like_it_that_is_there_gives_the_cost(tmp_path, config):
    build(Node(plain, "first", (), label="same"), tmp_path)
    assert Costs(tmp_path).of("unheard_of", Node(plain, "second", (), label="same"), config, {}).flops == 0
    unknown = Costs(tmp_path).of("unheard_of", Node(plain, "third", (), label="other"), config, {})
    assert math.isnan(unknown.flops) and unknown.source == ""


def alike(outputs: Path, node: Node, **inputs: str) -> Path:
    """A finished stage of another key, called as the node is: 1,000 tokens, 5 MFLOP, 4 s, 100 bytes."""
    folder = node.path(outputs).with_name(f"{node.label}-{'a' * 12}")
    folder.mkdir(parents=True)
    cost = {"tokens_forward": 500, "tokens_backward": 500, "flops": 5e6, "seconds": 4.0, "bytes": 100}
    (folder / "cost.json").write_text(json.dumps(cost))
    (folder / "inputs.json").write_text(json.dumps(node.key | {"inputs": inputs}))
    return folder


def test_a_stage_like_it_counts_as_much_as_this_one_has_more_rows_and_weights(config, tmp_path):
    nodes, costs = plan.pipeline.stages(config), Costs(tmp_path)
    costs.lengths[nodes["tokens"].name] = 80.0, 50.0
    name = next(name for name in nodes if kind_of(name) == "features")
    counted = costs.of(name, nodes[name], config, nodes)
    assert (counted.source, counted.tokens) == ("counted", 2 * 80 * 50)
    alike(tmp_path, nodes[name])
    found = costs.of(name, nodes[name], config, nodes)
    assert found.source == "like" and found.tokens == pytest.approx(8000) and found.bytes == counted.bytes
    assert found.flops == pytest.approx(counted.flops)
    assert found.seconds == pytest.approx(4.0 * counted.flops / 5e6)


@pytest.mark.parametrize("wrong", ["version", "rows"])
def test_what_is_of_another_version_or_of_unknown_size_is_not_called_alike(config, tmp_path, wrong):
    nodes, costs = plan.pipeline.stages(config), Costs(tmp_path)
    costs.lengths[nodes["tokens"].name] = (80.0 if wrong == "version" else math.nan), 50.0
    name = next(name for name in nodes if kind_of(name) == "features")
    folder = alike(tmp_path, nodes[name])
    if wrong == "version":  # as of a time when one stage held all checkpoints
        (folder / "inputs.json").write_text(json.dumps(nodes[name].key | {"version": 1, "inputs": {}}))
    found = costs.of(name, nodes[name], config, nodes)
    assert found.source == "counted" and math.isnan(found.seconds)
    assert math.isnan(found.flops) is (wrong == "rows")


def test_an_evaluation_is_scaled_by_its_pairs_and_its_model(config, tmp_path):
    nodes, costs = plan.pipeline.stages(config), Costs(tmp_path)
    costs.lengths[nodes["tokens"].name] = 80.0, 50.0
    pairs, base = f"preferences/world-{'b' * 12}", f"base/tiny-{'c' * 12}"
    (tmp_path / "stages" / pairs).mkdir(parents=True)
    (tmp_path / "stages" / pairs / "test.jsonl").write_text("{}\n" * 4)
    alike(tmp_path, nodes["zero_shot"], preferences=pairs, base=base)
    found, weights = costs.of("zero_shot", nodes["zero_shot"], config, nodes), costs.weights[repr(config.model)][0]
    # 8 pairs instead of 4; 5 MFLOP of 1,000 tokens are those of 2,500 weights
    assert found.tokens == pytest.approx(2000) and found.seconds == pytest.approx(4.0 * 2 * weights / 2500)
    own = replace(config, preference=replace(config.preference, pairs=replace(config.preference.pairs, world=None)))
    assert costs.of("zero_shot", nodes["zero_shot"], own, nodes).source != "like"  # nobody knows how many they are


def test_a_pool_that_is_not_here_yet_has_as_many_rows_as_its_files(composed, tmp_path):
    (tmp_path / "pool").mkdir()
    for name, rows in (("a", 7), ("b", 2)):
        lines = [json.dumps({"prompt": f"{name} {i}", "completion": "yes"}) for i in range(rows)]
        (tmp_path / "pool" / f"{name}.jsonl").write_text("\n".join(lines))
    data = ("dataset=local", f"dataset.path={tmp_path / 'pool'}", *PAIRS, "judge=none")
    local = typed(composed(*data, "model=local", "model.base.path=some/model", "projection=sketch")).dataset
    assert rows_of(local) == 9
    assert rows_of(replace(local, per_source=3)) == 3 + 2
    assert math.isnan(rows_of(replace(local, path="owner/name")))


@pytest.mark.parametrize("text", ["", "[", None])
def test_a_damaged_stage_is_like_nothing_and_stops_no_estimate(config, tmp_path, text):
    nodes = plan.pipeline.stages(config)
    for file in ("inputs.json", "cost.json"):
        damaged = alike(tmp_path / file, nodes["base"]) / file
        damaged.write_text(text) if text is not None else damaged.unlink()
        assert Costs(tmp_path / file).of("base", nodes["base"], config, nodes).source in ("", "counted")


def test_pairs_are_as_many_as_they_are_and_not_as_a_subtask_shows(config, tmp_path):
    own = replace(config, preference=replace(config.preference, pairs=replace(config.preference.pairs, world=None)))
    nodes = plan.pipeline.stages(config)
    assert math.isnan(Costs(tmp_path).size(own, own.model, nodes).pairs)
    folder = nodes["preferences"].path(tmp_path)
    folder.mkdir(parents=True)
    (folder / "target.jsonl").write_text("{}\n" * 30)  # five shots of six subtasks
    (folder / "test.jsonl").write_text("{}\n" * 18)
    size = Costs(tmp_path).size(own, own.model, nodes)
    assert (size.pairs, size.tests) == (30, 18)


@pytest.mark.parametrize(("method", "times"), [("pairs_sft", 1), ("pairs_dpo", 4)])
def test_training_on_pairs_costs_what_the_pairs_do(composed, tmp_path, method, times):
    config = typed(composed(*SMALL, f"method={method}", f"outputs={tmp_path}"))
    nodes = plan.pipeline.stages(config)
    rows = times * config.preference.pairs.world.targets * config.finetune.epochs
    found = Costs(tmp_path).of("finetune", nodes["finetune"], config, nodes)
    assert found.tokens == 2 * rows * config.model.max_length


def test_a_long_job_says_before_it_begins_what_it_will_take(config, monkeypatch):
    monkeypatch.setattr(forewarning.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(forewarning, "speed_here", lambda config: 1e9)

    def said(*costs: Cost) -> str:
        monkeypatch.setattr(forewarning, "survey", lambda configs: {str(i): wanted(c) for i, c in enumerate(costs)})
        return forewarning.forewarn(config)

    assert said(Cost(flops=1e10, seconds=299.0, source="like")) == ""
    timed = said(Cost(flops=1e10, seconds=7200.0, source="like"))
    assert timed.startswith("1 stage to compute, about 2 h (`rose plan`") and "GFLOP" not in timed
    counted = said(Cost(flops=3.6e12, source="at most"), Cost(flops=math.nan, seconds=math.nan))
    assert counted.startswith("2 stages to compute, about 60 min at 1 GFLOP/s, which is the most that this CPU does")
    assert ", and what is not known yet (`rose plan`" in counted
    assert said(Cost()) == ""
    assert [forewarning.about(60 * minutes) for minutes in (7, 119, 150, 3600, 885_083)] == [
        *("7 min", "120 min", "2.5 h", "2.5 days", "610 days")
    ]


def test_an_estimate_that_fails_stops_no_job(config, monkeypatch):
    def fail(config: Config) -> str:
        raise RuntimeError("no such model on a meta device")

    monkeypatch.setattr(forewarning, "forewarn", fail)
    assert callback._forewarn(config) == ""
