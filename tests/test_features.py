"""The pool's features against their formulas, followed row by row; what kills and bad rows leave of them."""

import json
import logging
import os
import subprocess
import sys

import pytest
import torch
from datasets import Dataset
from gradient_stages import LENGTHS, OPTIMIZER, at_checkpoint, places, pool, stages_before
from tiny_models import SAME_BYTES, distance, random_rows, same, slow_gradient, slow_log_probs

from rose.config.choices import AdamMap, ProjectionKind
from rose.config.schema import Base, Lora, Projection
from rose.errors import RoseError
from rose.gradients import features as stages
from rose.gradients.feature_store import FeatureStore
from rose.models.batching import IGNORED
from rose.seeds import derive
from rose.stages.cost import metered
from rose.training.bare import adapter_size


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return stages_before(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("adam", list(AdamMap))
def test_pool_features_follow_the_formulas(run, tmp_path, adam):
    root, rows, _ = run
    store = pool(run, tmp_path / "features", adam=adam)
    assert store.ids == [row["id"] for row in rows]
    assert store.weights == pytest.approx([0.75, 0.25])
    assert store.valid.all()
    for checkpoint, step in enumerate((3, 6)):
        model, m, v = at_checkpoint(root, checkpoint + 1)
        expected = []
        for row in rows:
            g = slow_gradient(model, -slow_log_probs(model, row).mean())
            if adam in (AdamMap.exact, AdamMap.no_momentum):
                g *= min(1, OPTIMIZER["max_grad_norm"] / (g.norm() + 1e-6))
            m2, v2 = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            update = {
                AdamMap.none: g,
                AdamMap.published: m2 / (v2 + 1e-8).sqrt(),
                AdamMap.no_momentum: 0.1 * g / ((v2 / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8),  # of unit norm below
                AdamMap.exact: m2 / (1 - 0.9 ** (step + 1)) / ((v2 / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8),
            }[adam]
            expected.append(update / update.norm())
        assert distance(store.rows(checkpoint, 0, len(rows)), torch.stack(expected)) < 1e-4


def cut_by_hand(row, count):
    """The row without its labels after the first `count`, nor any token after the last of these."""
    left = [place for place, label in enumerate(row["labels"]) if label != IGNORED and place > 0][:count]
    labels = [label if place in left else IGNORED for place, label in enumerate(row["labels"])]
    stop = left[-1] + 1
    return row | {"input_ids": row["input_ids"][:stop], "labels": labels[:stop]}


@pytest.mark.parametrize("adam", [AdamMap.exact, AdamMap.none])
@pytest.mark.parametrize("batch_tokens", [1, 64])
def test_features_of_the_first_tokens_are_those_of_rows_cut_by_hand_at_their_price(run, tmp_path, adam, batch_tokens):
    root, rows = run[0], [dict(row) for row in run[1]]
    rows[1]["labels"] = [label if place % 5 else IGNORED for place, label in enumerate(rows[1]["input_ids"])]
    cut = [cut_by_hand(row, 3) for row in rows]
    assert any(len(one["input_ids"]) < len(other["input_ids"]) for one, other in zip(cut, rows, strict=True))
    made, passed = {}, {}
    for name, its, tokens in (("asked", rows, 3), ("by hand", cut, None)):
        (tmp_path / name).mkdir()
        for folder in ("base", "warmup"):
            (tmp_path / name / folder).symlink_to(root / folder)
        Dataset.from_list(its).save_to_disk(str(tmp_path / name / "tokens" / "rows"))
        with metered() as cost:
            changes = {"adam": adam, "batch_tokens": batch_tokens, "tokens": tokens}
            made[name] = pool((tmp_path / name, its, None), tmp_path / name / "features", **changes)
        passed[name] = cost["tokens_forward"], cost["tokens_backward"]
    for checkpoint in (0, 1):
        assert torch.equal(made["asked"].rows(checkpoint, 0, 7), made["by hand"].rows(checkpoint, 0, 7))
    assert passed["asked"] == passed["by hand"]
    if batch_tokens == 1:  # a row at a time, without the last token, which predicts nothing
        steps = 2 * sum(len(row["input_ids"]) - 1 for row in cut)
        assert passed["asked"] == (steps, steps)


def test_sketched_features_do_not_depend_on_the_batches(run, tmp_path):
    sketch = Projection(kind=ProjectionKind.sketch, dim=256, seed=1)
    one = pool(run, tmp_path / "one", sketch, batch_tokens=1)
    many = pool(run, tmp_path / "many", sketch, batch_tokens=200)
    assert distance(one.rows(0, 0, 7), many.rows(0, 0, 7).double()) < 1e-4


@pytest.mark.parametrize("shards", [2, 3, 5])
def test_shards_hold_the_bytes_of_the_whole(run, tmp_path, shards):
    """The seven rows are four batches, so that of five shards the last has none."""
    whole, parts = pool(run, tmp_path / "whole", dtype="int4"), [tmp_path / str(i) for i in range(1, shards + 1)]
    for number, part in enumerate(parts, 1):
        pool(run, part, shard=(number, shards), dtype="int4")
    store = FeatureStore.open([place for part in parts for place in places(part)])
    assert (store.ids, store.checkpoints, store.weights) == (whole.ids, whole.checkpoints, whole.weights)
    for checkpoint in (0, 1):
        assert store.flags(checkpoint).tolist() == whole.flags(checkpoint).tolist()
        for start, stop in ((0, 7), (2, 5), (3, 4), (6, 9)):
            assert torch.equal(store.rows(checkpoint, start, stop), whole.rows(checkpoint, start, stop))
    sizes = [sum(len(json.loads((place / "ids.json").read_text())) for place in places(part)) for part in parts]
    assert sum(sizes) == 14 and max(sizes) < 14
    if shards > 4:
        assert sizes[-1] == 0
    for some in (parts[1:], [*parts, tmp_path / "whole"]):
        with pytest.raises(RoseError, match="do not make up the pool"):
            FeatureStore.open([place for part in some for place in places(part)])


def test_a_row_that_is_not_finite_is_named_and_left_out(run, tmp_path, monkeypatch, caplog):
    honest = stages.project_updates

    def poisoned(gradients, *how):
        gradients[0] = torch.nan  # of each batch: its longest row
        return honest(gradients, *how)

    monkeypatch.setattr(stages, "project_updates", poisoned)
    with caplog.at_level(logging.WARNING):
        store = pool(run, tmp_path / "features", batch_tokens=1000)
    dropped = [json.loads(line) for line in (tmp_path / "features" / "1" / "dropped.jsonl").read_text().splitlines()]
    assert dropped[0]["id"] == "row-3"
    assert "not finite" in dropped[0]["reason"]
    assert store.valid.tolist() == [True, True, True, False, True, True, True]
    assert not store.rows(0, 3, 4).any()
    assert "row-3" in caplog.text


def test_a_shard_none_of_whose_rows_is_finite_says_so_and_the_others_count(run, tmp_path, monkeypatch):
    honest = stages.gradients

    def broken(engine, rows, *rest):
        taken = honest(engine, rows, *rest)
        return (
            taken * torch.tensor([float("nan") if len(row["labels"]) == max(LENGTHS) else 1.0 for row in rows])[:, None]
        )

    monkeypatch.setattr(stages, "gradients", broken)
    shards = [
        tmp_path / str(number) for number in (1, 2, 3, 4)
    ]  # the longest row is a batch, and the first shard's all
    for number, part in enumerate(shards, 1):
        pool(run, part, shard=(number, 4))
    lost = [(places(part)[0] / "dropped.jsonl").read_text() for part in shards]
    assert json.loads(lost[0])["reason"] == "gradient not finite at checkpoint-1"
    assert lost[1:] == ["", "", ""]
    store = FeatureStore.open([place for part in shards for place in places(part)])
    assert store.valid.tolist() == [length != max(LENGTHS) for length in LENGTHS]


def test_a_killed_run_goes_on_where_it_stopped(run, tmp_path, monkeypatch):
    whole = pool(run, tmp_path / "whole")
    honest, taken = stages.gradients, []

    def dying(engine, rows, *rest):
        if len(taken) == 5:
            raise KeyboardInterrupt
        taken.append(len(rows))
        return honest(engine, rows, *rest)

    monkeypatch.setattr(stages, "gradients", dying)
    with pytest.raises(KeyboardInterrupt):
        pool(run, tmp_path / "resumed")
    monkeypatch.setattr(stages, "gradients", lambda *args: taken.append(0) or honest(*args))
    resumed = pool(run, tmp_path / "resumed")
    batches = len(taken)
    taken.clear()
    pool(run, tmp_path / "again")
    assert batches == len(taken)  # nothing was done twice
    for checkpoint in (0, 1):
        assert same(resumed.rows(checkpoint, 0, 7), whole.rows(checkpoint, 0, 7))


KILLED_AGAIN_AND_AGAIN = """
import itertools, os, random, signal, sys
from pathlib import Path
from rose.config.choices import AdamMap, Dtype, Keep, ProjectionKind, StoreDtype
from rose.config.schema import Features, Numerics, Projection
from rose.gradients import feature_store, features

feature_store.SETTLE = 0.0
root, goal, dice, kills = Path(sys.argv[1]), int(sys.argv[2]), random.Random(0), 0
honest = features.gradients

def start(name):  # a process that fills the store `name`, and a pipe that gets a byte with every batch
    told, tell = os.pipe()
    if child := os.fork():
        os.close(tell)
        return child, told
    features.gradients = lambda *args: os.write(tell, b".") and honest(*args)
    (out := root / name).mkdir(exist_ok=True)
    features.pool_features(
        out, 2, Features(AdamMap.exact, Keep.store, StoreDtype.int4, 64, 1), Projection(ProjectionKind.sketch, 64, 0),
        Numerics(Dtype.float32, "sdpa", False), root / "base", root / "warmup", root / "many",
    )
    os._exit(0)

def batches(told, most):  # waits until there were so many, or the process has ended: how many there were
    return sum(1 for _ in itertools.takewhile(lambda _: os.read(told, 1), range(most)))

child, told = start("whole")
all_batches = batches(told, 10**6)
os.waitpid(child, 0)
for number in itertools.count():
    ended = False
    while not ended:
        child, told = start(f"killed-{number}")
        if kills < goal:
            batches(told, dice.randint(1, all_batches // 2))
            os.kill(child, signal.SIGKILL)
        ended = os.waitpid(child, 0)[1] == 0
        kills += not ended
        os.close(told)
    if kills == goal:
        break
print(kills)
"""


@SAME_BYTES
@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.faults)])
def test_a_store_filled_through_many_kills_is_the_same_bytes(run, tmp_path, kills):
    root, _, _ = run
    for name in ("base", "warmup"):
        (tmp_path / name).symlink_to(root / name)
    rows = [
        {"id": str(i), "dataset": "d", **row} for i, row in enumerate(random_rows([10 + i % 23 for i in range(90)]))
    ]
    Dataset.from_list(rows).save_to_disk(str(tmp_path / "many" / "rows"))
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AGAIN_AND_AGAIN, str(tmp_path), str(kills)],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == kills
    whole, *killed = (
        {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}
        for folder in [tmp_path / "whole", *tmp_path.glob("killed-*")]
    )
    assert killed and all(files == whole for files in killed)


def test_published_adam_under_traks_projector_is_the_published_arithmetic(run, tmp_path):
    """LESS: m ← .9m + .1g, v ← .999v + .001g², m/√(v + 1e-8), rows times a ±1 matrix, unit norm."""
    root, rows, _ = run
    store = pool(run, tmp_path / "f", Projection(ProjectionKind.trak, 128, 3), adam=AdamMap.published)
    model, m, v = at_checkpoint(root, 1)
    seed = derive(3, "projection") % 2**31
    size = len(m)
    matrix = torch.empty(size, 128).bernoulli_(0.5, generator=torch.Generator().manual_seed(seed)).double() * 2 - 1
    expected = []
    for row in rows:
        g = slow_gradient(model, -slow_log_probs(model, row).mean())
        update = (m * 0.9 + g * 0.1) / torch.sqrt(v * 0.999 + g**2 * 0.001 + 1e-8)
        projected = update @ matrix
        expected.append(projected / projected.norm())
    assert distance(store.rows(0, 0, len(rows)), torch.stack(expected)) < 1e-4


def test_a_projection_wider_than_the_gradient_is_refused(run, tmp_path):
    with pytest.raises(RoseError, match=r"projection.dim=1000000 is wider than the gradient \(p="):
        pool(run, tmp_path / "features", Projection(kind=ProjectionKind.sketch, dim=1_000_000, seed=0))


def test_the_gradients_width_is_known_before_there_is_a_model(run):
    root, _, _ = run
    model, _, _ = at_checkpoint(root, 1)
    base = Base(path=str(root / "base"), revision=None, gguf=None, trust_remote_code=False, pretraining=None)
    lora = Lora(rank=3, alpha=5, dropout=0.0, targets=["q_proj", "k_proj", "v_proj", "o_proj"], rank_stabilized=False)
    assert adapter_size(base, lora) == sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert adapter_size(Base(**(vars(base) | {"path": "nobody/no-such-model"})), lora) is None
