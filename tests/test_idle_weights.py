"""Checkpoints and weights that training does not move cost nothing and count for nothing."""

import json
from dataclasses import replace

import torch
from datasets import Dataset
from method_toys import lines
from safetensors.torch import load_file
from tiny_models import LORA, NUMERICS, TRAINING, random_rows
from transformers import LlamaForCausalLM

from rose.config.choices import AdamMap, Keep, ProjectionKind, StoreDtype
from rose.config.schema import Features, Projection, Warmup
from rose.gradients.feature_store import VALID, FeatureStore
from rose.gradients.features import pair_features, pool_cosines, pool_features
from rose.gradients.objectives import Loss, Objective
from rose.gradients.trajectory import weight
from rose.models import loading
from rose.training.warmup import warm_up

WARMUP = Warmup(**{**vars(TRAINING), "epochs": 4, "batch_size": 8, "warmup_ratio": 0.2}, ratio=1.0)
NONE = Projection(ProjectionKind.none, dim=0, seed=0)


def tokens(folder):
    rows = [{"id": f"r{i}", "dataset": "d", **row} for i, row in enumerate(random_rows([9, 12, 7, 15]))]
    Dataset.from_list(rows).save_to_disk(folder / "rows")
    lines(folder / "dropped.jsonl", [])
    return folder


def test_a_checkpoint_at_a_rate_of_zero_is_not_taken_gradients_at(base, tmp_path, monkeypatch):
    pool, warm, out = tokens(tmp_path / "tokens"), tmp_path / "warm", tmp_path / "features"
    places = [out / str(number) for number in (1, 2, 3, 4)]
    for folder in (warm, out, *places):
        folder.mkdir()
    warm_up(warm, WARMUP, LORA, NUMERICS, base, pool)  # a step an epoch, of which the first has no rate
    rates = [entry["learning_rate"] for entry in json.loads((warm / "manifest.json").read_text())["checkpoints"]]
    assert rates[0] == 0 and min(rates[1:]) > 0
    settings = Features(AdamMap.exact, Keep.store, StoreDtype.float32, batch_tokens=64, shards=1)
    for number in (2, 3, 4):
        pool_features(places[number - 1], number, settings, NONE, NUMERICS, base, warm, pool)
    monkeypatch.setattr(loading, "load_model", None)  # nor is a model loaded for it
    pool_features(places[0], 1, settings, NONE, NUMERICS, base, warm, pool)
    store = FeatureStore.open(places)
    assert store.checkpoints == ["checkpoint-2", "checkpoint-3", "checkpoint-4"]
    assert store.weights == [rate / sum(rates) for rate in rates[1:]]
    assert store.valid.all() and all((store.flags(i) == VALID).all() for i in range(3))
    assert FeatureStore.open(places[2:]).weights == [rate / sum(rates[2:]) for rate in rates[2:]]
    (rest := tmp_path / "rest").mkdir()
    pool_cosines(rest, 1, AdamMap.exact, 64, NUMERICS, base, warm, pool, places[0])
    pair_features(rest, 1, Objective(Loss.contrast), NONE, NUMERICS, 64, base, warm, pool)
    assert [path.name for path in rest.iterdir()] == ["features.json"]


def test_a_warm_up_that_never_moved_is_taken_gradients_at_all_the_same(base, tmp_path):
    pool = tokens(tmp_path / "tokens")
    (tmp_path / "warm").mkdir()
    warm_up(tmp_path / "warm", replace(WARMUP, epochs=2), LORA, NUMERICS, base, pool)
    manifest = json.loads((tmp_path / "warm" / "manifest.json").read_text())
    for entry in manifest["checkpoints"]:
        entry["learning_rate"] = 0.0
    (tmp_path / "warm" / "manifest.json").write_text(json.dumps(manifest))
    assert [weight(tmp_path / "warm", number) for number in (1, 2)] == [("checkpoint-1", 1.0), ("checkpoint-2", 1.0)]


def test_weights_that_never_get_a_gradient_have_moments_of_zero(base, tmp_path, monkeypatch):
    model = LlamaForCausalLM.from_pretrained(base)
    tower = torch.nn.Module()
    tower.q_proj = torch.nn.Linear(8, 8)  # no row ever gets there
    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", lambda **_: with_tower(model, tower))
    (tmp_path / "warm").mkdir()
    warm_up(tmp_path / "warm", WARMUP, LORA, NUMERICS, base, tokens(tmp_path / "tokens"))
    moments = load_file(tmp_path / "warm" / "checkpoint-1" / "moments.safetensors")
    idle = [name for name in moments if "tower" in name]
    assert len(idle) == 4 and not any(moments[name].any() for name in idle)
    assert all(moments[name].any() for name in moments if "lora_B" in name and name not in idle)


def with_tower(model, tower):
    model.tower = tower
    return model
