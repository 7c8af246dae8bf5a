"""Features of target pairs: the gradient that each objective gives them, written naively beside."""

import json

import pytest
import torch
from gradient_stages import at_checkpoint, said, stages_before, targets
from tiny_models import distance, slow_gradient, slow_log_probs

from rose.config.choices import Reference
from rose.data.chat import encode_pair
from rose.data.published import encode_published
from rose.errors import RoseError
from rose.gradients import features as stages
from rose.gradients.objectives import Loss, Objective
from rose.models import loading


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return stages_before(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("reference", [Reference.base, Reference.warmup])
def test_dpo_targets_follow_the_formula(run, tmp_path, reference):
    root, _, pairs = run
    store = targets(run, tmp_path / "targets", Objective(Loss.dpo, 0.1, reference))
    assert store.subtasks == ["a", "b", "a"]
    assert store.ids == ["pair-0", "pair-1", "pair-2"]
    words = loading.load_tokenizer(root / "base")
    last, _, _ = at_checkpoint(root, 2)
    for checkpoint in (0, 1):
        model, _, _ = at_checkpoint(root, checkpoint + 1)
        expected = []
        for pair in pairs:
            both = encode_pair(words, pair, 64)
            policy = [slow_log_probs(model, row).sum() for row in both]
            with torch.no_grad():
                if reference is Reference.base:
                    with model.disable_adapter():
                        before = [slow_log_probs(model, row).sum() for row in both]
                else:
                    before = [slow_log_probs(last, row).sum() for row in both]
            margin = (policy[0] - before[0]) - (policy[1] - before[1])
            expected.append(slow_gradient(model, -torch.log(torch.sigmoid(0.1 * margin))))
        assert distance(store.rows(checkpoint, 0, 3), torch.stack(expected)) < 1e-4


@pytest.mark.parametrize(("format", "encode"), [("template", encode_pair), ("published", encode_published)])
def test_chosen_targets_are_the_chosen_answers_mean_cross_entropy(run, tmp_path, format, encode):
    root, _, pairs = run
    store = targets(run, tmp_path / "targets", Objective(Loss.sft), format=format)
    words = loading.load_tokenizer(root / "base")
    model, _, _ = at_checkpoint(root, 2)
    chosen = [encode(words, pair, 64)[0] for pair in pairs]
    expected = torch.stack([slow_gradient(model, -slow_log_probs(model, row).mean()) for row in chosen])
    assert distance(store.rows(1, 0, 3), expected) < 1e-4


@pytest.mark.parametrize("loss", [Loss.sft, Loss.contrast, Loss.dpo])
def test_only_the_first_tokens_of_an_answer_count_where_they_are_all_that_is_asked_for(run, tmp_path, loss):
    root, _, pairs = run
    reference = Reference.base if loss is Loss.dpo else None
    beta = 0.1 if loss is Loss.dpo else None
    store = targets(run, tmp_path / "targets", Objective(loss, beta, reference, first_tokens=2))
    words = loading.load_tokenizer(root / "base")
    model, _, _ = at_checkpoint(root, 1)
    expected = []
    for pair in pairs:
        both = encode_pair(words, pair, 64)
        policy = [slow_log_probs(model, row)[:2] for row in both]
        with torch.no_grad(), model.disable_adapter():
            before = [slow_log_probs(model, row)[:2] for row in both]
        margin = (policy[0] - before[0]).sum() - (policy[1] - before[1]).sum()
        value = {Loss.sft: -policy[0].mean(), Loss.contrast: -margin, Loss.dpo: -torch.log(torch.sigmoid(0.1 * margin))}
        expected.append(slow_gradient(model, value[loss]))
    assert distance(store.rows(0, 0, 3), torch.stack(expected)) < 1e-4


def test_pairs_whose_answers_begin_alike_are_named(run, tmp_path):
    root, _, pairs = run
    changed = tmp_path / "run" / "preferences"
    changed.mkdir(parents=True)
    pairs = [pair | {"rejected": pair["chosen"][:-1] + said("tomato tomato lantern")} for pair in pairs]
    (changed / "target.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    for name in ("base", "warmup"):
        (tmp_path / "run" / name).symlink_to(root / name)
    store = targets((tmp_path / "run", None, None), tmp_path / "targets", Objective(Loss.contrast, first_tokens=2))
    dropped = [json.loads(line) for line in (tmp_path / "targets" / "2" / "dropped.jsonl").read_text().splitlines()]
    assert store.ids == ["pair-0"]  # "tomato" and its end against "tomato tomato"
    assert [row["id"] for row in dropped] == ["pair-1", "pair-2"]
    assert "preference.first_tokens=2" in dropped[0]["reason"]


def test_no_reference_pass_is_run_where_it_cancels(run, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "token_log_probs", None)
    assert targets(run, tmp_path / "targets", Objective(Loss.contrast)).valid.all()


def test_pairs_that_do_not_fit_are_named(run, tmp_path):
    with pytest.raises(RoseError, match="model.max_length=1"):
        targets(run, tmp_path / "targets", Objective(Loss.contrast), max_length=1)
