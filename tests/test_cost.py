"""Tokens and FLOPs counted against what was really run."""

import torch
from tiny_models import adapted

from rose.report.results import costs
from rose.stages.cost import metered, stored


def test_tokens_forward_and_backward_are_those_of_each_pass():
    model = adapted(dtype=torch.float32)
    ids = torch.ones(3, 7, dtype=torch.long)
    with metered() as cost:
        with torch.no_grad():
            model(input_ids=ids)
        loss = model(input_ids=ids).logits.sum()
        loss.backward(retain_graph=True)
        loss.backward()
    model(input_ids=ids)
    assert cost["tokens_forward"] == 42
    assert cost["tokens_backward"] == 42
    weights = sum(weight.numel() for weight in model.base_model.model.model.parameters())
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert cost["flops"] == 42 * 2 * weights + 42 * 2 * (weights + trained)


def test_peak_memory_is_at_least_what_was_held():
    with metered() as cost:
        held = torch.ones(20_000_000)
        del held
    assert cost["peak_memory"] > 80_000_000
    assert cost["seconds"] > 0


def test_stored_bytes_are_those_of_all_files(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"12345")
    (tmp_path / "c").write_bytes(b"1")
    assert stored(tmp_path) == 6


def test_a_method_alone_costs_its_own_stages_whoever_computed_them():
    stage = {"dir": "x", "state": "reused", "seconds": 2.0, "flops": 10, "peak_memory": 5}
    found = costs({"base": stage, "warmup": stage, "finetune": stage | {"state": "computed", "peak_memory": 7}})
    assert found["cost/seconds"] == 4 and found["cost/flops"] == 20 and found["cost/peak_memory"] == 7
    assert found["cost/warmup/reused"] == 1 and found["cost/finetune/reused"] == 0
    assert found["cost/base/seconds"] == 2


def test_what_is_taken_at_several_checkpoints_costs_their_sum():
    each = {"dir": "x", "state": "reused", "seconds": 2.0, "peak_memory": 5}
    found = costs({"features 1 of 2": each, "features 2 of 2": each | {"state": "computed", "peak_memory": 7}})
    assert found["cost/features/seconds"] == found["cost/seconds"] == 4
    assert found["cost/features/peak_memory"] == found["cost/peak_memory"] == 7
    assert found["cost/features/reused"] == 0
