"""The readout: autograd of the output layer's weight, token by token and row by row, projected by plain matrices."""

import json

import numpy
import pytest
import torch
from gradient_stages import at_checkpoint, stages_before
from method_toys import composed_method, rows_table, tokens_of
from small_device import lacking
from tiny_models import LENGTHS, NUMERICS, VOCABULARY, llama, random_rows
from transformers import AutoModelForCausalLM, Gemma2Config, GraniteConfig

from rose.config.choices import Balance, Normalize, StoreDtype
from rose.config.compose import typed
from rose.errors import RoseError
from rose.gradients.feature_store import FeatureStore
from rose.gradients.objectives import SFT, Loss, Objective
from rose.methods import gradient, readout
from rose.methods.readout import Readout, sides
from rose.models.batching import IGNORED
from rose.pipeline import stages
from rose.stages.graph import ordered

SIZES = dict(vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
CONFIGS = {
    "plain": llama(tie_word_embeddings=False),
    "tied": llama(tie_word_embeddings=True),
    "capped": Gemma2Config(**SIZES, num_key_value_heads=2, head_dim=8, final_logit_softcapping=3.0),
    "scaled": GraniteConfig(**SIZES, num_key_value_heads=2, logits_scaling=8.0),
}
ROWS = random_rows(LENGTHS)


def model_of(name: str):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[name], dtype=torch.float64).eval()


def head_gradient(model, row: dict, places: list[int], mean: bool) -> torch.Tensor:
    """∂(−Σ log π)/∂W of the labels at `places` by autograd: a weight of the output layer's own, in float64."""
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())  # tied embeddings are not the output layer
    logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0]
    losses = [-torch.log_softmax(logits[place - 1], -1)[row["labels"][place]] for place in places]
    (found,) = torch.autograd.grad(torch.stack(losses).mean() if mean else torch.stack(losses).sum(), head.weight)
    return found


def labelled(row: dict) -> list[int]:
    return [place for place, label in enumerate(row["labels"]) if label != -100 and place > 0]


def projected(made: Readout, gradient: torch.Tensor) -> torch.Tensor:
    return (made.left.double().T @ gradient @ made.right.double()).flatten()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("mean", [True, False])
def test_it_is_the_gradient_of_the_output_layer_s_weight(name, mean):
    made = Readout(model_of(name), 24, seed=3)
    made.left, made.right = made.left.double(), made.right.double()
    rows = [row for row in ROWS if labelled(row)]
    found = made.gradients(rows, mean, Balance.none)
    for row, each in zip(rows, found, strict=True):
        expected = projected(made, head_gradient(model_of(name), row, labelled(row), mean))
        torch.testing.assert_close(each, expected, rtol=1e-5, atol=1e-7)  # Gemma normalises in float32


def test_balanced_tokens_have_unit_gradients_before_they_are_summed():
    made = Readout(model_of("plain"), 24, seed=3)
    made.left, made.right = made.left.double(), made.right.double()
    row = ROWS[1]
    (found,) = made.gradients([row], False, Balance.tokens)
    each = [head_gradient(model_of("plain"), row, [place], False) for place in labelled(row)]
    expected = sum(projected(made, gradient / gradient.norm()) for gradient in each)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_inner_products_are_unbiased_over_seeds():
    one, other = torch.randn(2, VOCABULARY, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    both = one, (one + other) / 2
    maps = [Readout(model_of("plain"), 512, seed) for seed in range(60)]
    products = [float(projected(made, both[0]) @ projected(made, both[1])) for made in maps]
    error = numpy.std(products, ddof=1) / len(products) ** 0.5
    assert abs(numpy.mean(products) - float((both[0] * both[1]).sum())) < 4 * error


@pytest.mark.parametrize(("dim", "expected"), [(8192, (128, 64)), (1024, (32, 32)), (12, (4, 3)), (7, (7, 1))])
def test_the_two_sides_are_as_equal_as_whole_numbers_can_be(dim, expected):
    assert sides(dim) == expected


def test_a_pool_is_stored_in_unit_norm_and_a_pair_as_chosen_less_rejected(base, tmp_path):
    for name in ("pool", "targets", "preferences"):
        (tmp_path / name).mkdir()
    rows = random_rows([9, 14, 6])
    readout.pool_readout(tmp_path / "pool", 64, 0, StoreDtype.float32, NUMERICS, base, tokens_of(tmp_path / "t", rows))
    store = FeatureStore.open(tmp_path / "pool")
    numpy.testing.assert_allclose(store.rows(0, 0, 3).norm(dim=1), 1, atol=1e-6)
    pair = {"id": "a", "subtask": "s", "prompt": [{"role": "user", "content": "Why is the sky so blue?"}]}
    answers = {"chosen": "It scatters the short waves.", "rejected": "No."}
    turns = {side: [{"role": "assistant", "content": text}] for side, text in answers.items()}
    (tmp_path / "preferences" / "target.jsonl").write_text(json.dumps(pair | turns) + "\n")
    both = {}
    for objective in (Objective(Loss.contrast), SFT):
        out = tmp_path / objective.loss
        out.mkdir()
        readout.pair_readout(out, objective, 64, 0, NUMERICS, 64, base, tmp_path / "preferences")
        both[objective.loss] = FeatureStore.open(out).rows(0, 0, 1)[0]
    swapped = pair | {"chosen": turns["rejected"], "rejected": turns["chosen"]}
    (tmp_path / "preferences" / "target.jsonl").write_text(json.dumps(swapped) + "\n")
    readout.pair_readout(
        tmp_path / "targets", Objective(Loss.contrast), 64, 0, NUMERICS, 64, base, tmp_path / "preferences"
    )
    numpy.testing.assert_allclose(
        FeatureStore.open(tmp_path / "targets").rows(0, 0, 1)[0], -both["contrast"], atol=1e-5
    )
    assert abs(both["sft"].norm() - 1) > 1e-3  # it is scaled when it is compared, as preference.normalize says
    found = gradient.influence(
        composed_method("rose_readout"),
        rows_table(len(store.ids)),
        Normalize.per_pair,
        tmp_path / "pool",
        tmp_path / "contrast",
    )
    expected = store.rows(0, 0, 3) @ both["contrast"] / both["contrast"].norm()
    numpy.testing.assert_allclose(found.values[:, 0], expected, atol=1e-6)


def test_only_the_first_tokens_of_a_row_count_where_they_are_all_that_is_asked_for(base, tmp_path):
    rows, made = random_rows([9, 14, 6]), {}
    starts = [next(place for place, label in enumerate(row["labels"]) if place and label != IGNORED) for row in rows]
    cut = [{name: row[name][: start + 2] for name in row} for row, start in zip(rows, starts, strict=True)]
    for name, its, more in (("asked", rows, {"first_tokens": 2}), ("by hand", cut, {})):
        (tmp_path / name).mkdir()
        tokens = tokens_of(tmp_path / f"tokens {name}", its)
        readout.pool_readout(tmp_path / name, 64, 0, StoreDtype.float32, NUMERICS, base, tokens, **more)
        made[name] = FeatureStore.open(tmp_path / name).rows(0, 0, 3)
    assert torch.equal(made["asked"], made["by hand"])


@pytest.mark.parametrize("checkpoint", [1, 2])
def test_at_a_checkpoint_it_is_the_gradient_of_the_model_with_that_adapter_merged_into_it(tmp_path, checkpoint):
    root, rows, _ = stages_before(tmp_path)
    at, made = {"warmup": root / "warmup", "checkpoint": checkpoint}, {}
    for name, more in (("base", {}), ("tuned", at)):
        (tmp_path / name).mkdir(exist_ok=True)
        out = tmp_path / f"{name} readout"
        out.mkdir()
        readout.pool_readout(out, 24, 3, StoreDtype.float32, NUMERICS, root / "base", root / "tokens", **more)
        made[name] = FeatureStore.open(out)
    assert made["tuned"].checkpoints == [f"checkpoint-{checkpoint}"] and made["base"].checkpoints == ["base"]
    merged, *_ = at_checkpoint(root, checkpoint)
    merged = merged.merge_and_unload()
    maps = Readout(merged, 24, seed=3)
    for row, found, untuned in zip(
        rows, *(made[name].rows(0, 0, len(rows)) for name in ("tuned", "base")), strict=True
    ):
        expected = projected(maps, head_gradient(merged, row, labelled(row), mean=True))
        numpy.testing.assert_allclose(found, expected / expected.norm(), atol=1e-4)
        assert (found - untuned).abs().max() > 1e-2


def test_the_last_checkpoints_are_read_out_where_any_are_asked_for_and_else_the_base_model(composed):
    def nodes(*overrides: str):
        return stages(typed(composed("method=readout", *overrides)))

    plain, both, every = nodes(), nodes("method.checkpoints=2"), nodes("method.checkpoints=4")
    assert nodes("method.checkpoints=null")["scores"].name == plain["scores"].name
    assert plain["warmup"] not in ordered(plain["scores"])
    for found, numbers in ((both, [3, 4]), (every, [1, 2, 3, 4])):
        assert found["scores"].inputs["method"].checkpoints == len(numbers)
        for stores in found["scores"].inputs["representation"][1:]:
            assert [store.inputs["checkpoint"] for store in stores] == numbers
            assert all(store.inputs["warmup"].name == plain["warmup"].name for store in stores)
    cheap = stages(typed(composed("candidates=readout", "candidates.method.checkpoints=1")))
    assert cheap["candidates_readout 4 of 4"].inputs["warmup"].name == cheap["warmup"].name


def test_what_does_not_fit_the_memory_is_halved(base, tmp_path, monkeypatch):
    rows, seen, made = random_rows([9, 14, 6]), [], {}
    tokens = tokens_of(tmp_path / "tokens", rows)
    for name in ("whole", "halved"):
        (tmp_path / name).mkdir()
        readout.pool_readout(tmp_path / name, 64, 0, StoreDtype.float32, NUMERICS, base, tokens)
        made[name] = FeatureStore.open(tmp_path / name).rows(0, 0, 3)
        monkeypatch.setattr(readout, "collate", lacking(2, readout.collate, seen, rows=0))
    assert seen == [3, 2, 1]
    torch.testing.assert_close(made["halved"], made["whole"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method.balance=segments"], "method.balance=segments"),
        (["projection=none"], "projection.kind=none"),
    ],
)
def test_what_does_not_go_with_it_is_refused(composed, overrides, message):
    with pytest.raises(RoseError, match=message):
        typed(composed("method=rose_readout", *overrides))


def test_a_loss_that_needs_log_probabilities_is_refused(composed):
    config = typed(composed("method=rose_readout", "preference.normalize=none"))
    with pytest.raises(RoseError, match="preference.loss=dpo: does not go with method.representation=readout"):
        stages(config)
