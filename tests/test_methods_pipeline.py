"""Every method of conf/ as a whole job on a random tiny model; what they have in common is computed once."""

import json

import pytest
import torch
from judged_answers import save_reward_model
from method_toys import METHODS
from transformers import BertConfig, BertModel

from rose.config.compose import typed
from rose.data import world
from rose.stages.kinds import kind_of


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokenizer = world.tokenizer()
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_all_methods_together_compute_what_they_share_once(run, outputs, encoder, tmp_path):
    reward_model = save_reward_model(tmp_path / "reward", pads=True)
    told = {
        "embedding": [f"method.encoder={encoder}"],
        "reward": [f"method.reward_model={reward_model}", "judge.dtype=float32"],
        "column": ["method.column=quality"],
    }
    for name in METHODS:
        directory, _ = run(f"method={name}", "until=selection", *told.get(name, []))
        if name in ("pairs_sft", "pairs_dpo", "zero_shot"):
            assert not (directory / "selected.jsonl").exists()  # they select nothing
            continue
        rows = [json.loads(line) for line in (directory / "selected.jsonl").read_text().splitlines()]
        assert len(rows) == (23 if name in ("full", "random_matched") else 6)
        assert len({row["id"] for row in rows}) == len(rows)
    shared = ("base", "pool", "preferences", "tokens", "warmup", "features", "one_pass", "target_hidden", "embeddings")
    once = {stage: len(list((outputs / "stages" / stage).glob("[!.]*"))) for stage in shared}
    # at two checkpoints with Adam's map, and bare at the last alone (gist)
    assert once == dict.fromkeys(shared, 1) | {"features": 3}
    # chosen answers (less, gist), pairs (rose), pairs balanced (rose_balanced); after SFT, after DPO
    assert len(list((outputs / "stages" / "targets").iterdir())) == 6  # at two checkpoints
    assert len(list((outputs / "stages" / "losses").iterdir())) == 2


def test_rose_sft_is_less_on_the_same_pairs(run):
    less, _ = run("method=less", "until=selection")
    sft, _ = run("method=rose_sft", "until=selection")
    assert (less / "scores.parquet").read_bytes() == (sft / "scores.parquet").read_bytes()


@pytest.mark.parametrize("name", ["pairs_sft", "pairs_dpo"])
def test_training_on_the_pairs_needs_no_selection_and_leaves_an_adapter(run, name):
    directory, stages = run(f"method={name}")
    assert not {"warmup", "features", "scores", "selection"} & set(map(kind_of, stages))
    assert (directory / "adapter" / "adapter_config.json").exists()


def test_loss_drop_reads_the_adapter_that_pairs_sft_left(run):
    run("method=pairs_sft")
    _, stages = run("method=loss_drop")
    assert stages["pairs_sft"]["state"] == "reused"


def test_zero_shot_trains_nothing_and_is_the_base_model_s_own_row(run):
    directory, stages = run("method=zero_shot")
    assert "finetune" not in stages and "selection" not in stages
    metrics = json.loads((directory / "metrics.json").read_text())
    assert not any(name.startswith("zero_shot/") for name in metrics)
    assert "preference_accuracy" in metrics
    other, _ = run("method=random")
    assert json.loads((other / "metrics.json").read_text())["zero_shot/chosen_loss"] == metrics["chosen_loss"]


def test_stages_say_what_they_cost(run):
    _, stages = run("method=rose")
    names = {"seconds", "tokens_forward", "tokens_backward", "flops", "peak_memory", "bytes"}
    assert all(names <= set(stage) for stage in stages.values())
    # the pool's rows forward and backward; nothing is differentiated while it is measured
    taken = stages["features 2 of 2"]
    assert taken["tokens_forward"] == taken["tokens_backward"] > 23
    assert stages["evaluation"]["tokens_backward"] == 0 < stages["evaluation"]["tokens_forward"]


def test_balancing_costs_more_backward_passes_for_the_pairs_alone(run):
    _, plain = run("method=rose")
    _, balanced = run("method=rose_balanced")
    assert balanced["targets 1 of 2"]["tokens_backward"] > plain["targets 1 of 2"]["tokens_backward"]
    assert balanced["features 1 of 2"] == plain["features 1 of 2"] | {"state": "reused"}


def test_options_of_the_seed_reach_only_methods_that_draw(composed):
    from rose import pipeline

    def scores(*extra):
        return pipeline.stages(typed(composed(*extra)))["scores"].name

    pinned = ("warmup.seed=0", "projection.seed=0")
    assert scores("seed=1", *pinned) == scores("seed=2", *pinned)
    for name in ("random", "dsir"):
        assert scores("seed=1", f"method={name}") != scores("seed=2", f"method={name}")
