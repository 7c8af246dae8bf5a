"""Mean hidden states of answers: what one forward pass of the base model tells of a row."""

from collections.abc import Sequence
from pathlib import Path

import numpy
import pandas
import torch
from sklearn.linear_model import RidgeCV
from transformers import PreTrainedModel

from rose.config.choices import Estimator, ProjectionKind, StoreDtype
from rose.config.schema import Method, Numerics
from rose.data.dropping import list_dropped
from rose.data.encoded_pairs import encoded_pairs
from rose.gradients.feature_store import FeatureStore
from rose.gradients.spaces import description
from rose.methods.hidden import token_rows
from rose.methods.influence import Influence
from rose.models import loading
from rose.models.batching import IGNORED, Encoded, length_batches
from rose.progress import track
from rose.stages.graph import stage

BATCH_TOKENS = 8192  # padding included; no logits are kept
RIDGES = numpy.logspace(-4, 4, 17)  # in units of the differences' mean squared norm


def influence(method: Method, rows: pandas.DataFrame, states: Path, targets: Path) -> Influence:
    """The reward r(z) = ⟨w, h(z)⟩, h the mean hidden state of the row's answers, in one column.

    w comes of the pairs' differences dⱼ = h(chosen) − h(rejected). estimator=inner: their mean (the
    difference of means, as in arXiv 2312.06681's steering vectors). estimator=ridge: the linear
    reward model that maps each dⱼ to 1, w = argmin Σⱼ(⟨w, dⱼ⟩ − 1)² + λ‖w‖², λ by leave-one-out.
    """
    pairs, pool = FeatureStore.open(targets), FeatureStore.open(states)
    both = pairs.rows(0, 0, len(pairs)).double().numpy()
    valid = pairs.valid.numpy()[0::2] & pairs.valid.numpy()[1::2]
    differences = (both[0::2] - both[1::2])[valid]
    weights = differences.mean(0) if method.estimator is Estimator.inner else ridge(differences)
    values = pool.rows(0, 0, len(pool)).double().numpy() @ weights
    values[~pool.valid.numpy()] = numpy.nan
    return Influence(values[:, None], ["reward"])


def ridge(differences: numpy.ndarray) -> numpy.ndarray:
    """The linear reward model [d] of differences [pairs, d], its λ of RIDGES by leave-one-out."""
    scale = float((differences**2).sum(1).mean())
    model = RidgeCV(alphas=RIDGES * scale, fit_intercept=False)
    return numpy.asarray(model.fit(differences, numpy.ones(len(differences))).coef_)


@stage("answer_states", version=1)
def pool_states(out: Path, layer: float, numerics: Numerics, base: Path, tokens: Path) -> None:
    """A FeatureStore in pool order: float32 [rows, hidden size]."""
    rows = token_rows(tokens)
    encoded = rows.select_columns(["input_ids", "labels"]).to_list()
    _write(out, loading.load_model(base, numerics), layer, encoded, rows["id"][:])


@stage("target_answer_states", version=2)
def pair_states(out: Path, layer: float, numerics: Numerics, max_length: int, base: Path, preferences: Path) -> None:
    """The same of the target pairs' answers, `<pair>/chosen` before `<pair>/rejected`; dropped.jsonl: the rest."""
    pairs, encoded, dropped = encoded_pairs(loading.load_tokenizer(base), preferences / "target.jsonl", max_length)
    answers = [answer for both in encoded for answer in both]
    ids = [f"{pair['id']}/{side}" for pair in pairs for side in ("chosen", "rejected")]
    _write(
        out,
        loading.load_model(base, numerics),
        layer,
        answers,
        ids,
        [pair["subtask"] for pair in pairs for _ in range(2)],
    )
    list_dropped(out, dropped, len(dropped) + len(pairs), "target pairs")


@torch.no_grad()
def states(model: PreTrainedModel, rows: Sequence[Encoded], layer: float) -> torch.Tensor:
    """Mean over labelled tokens of the states after a layer: float32 [rows, hidden size].

    `layer` is the share of the depth: 1 is the last layer, after the model's final norm.
    """
    result = torch.zeros(len(rows), model.config.get_text_config().hidden_size)
    batches = length_batches([len(row["input_ids"]) for row in rows], BATCH_TOKENS)
    for batch in track(batches, "answer states", total=len(batches)):
        longest = max(len(rows[number]["input_ids"]) for number in batch)
        inputs = torch.zeros(len(batch), longest, dtype=torch.long)
        labelled = torch.zeros(len(batch), longest, dtype=torch.bool)
        for place, number in enumerate(batch):
            row = rows[number]
            inputs[place, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
            labelled[place, : len(row["labels"])] = torch.tensor(row["labels"]) != IGNORED
        hidden = model.base_model(inputs.to(model.device), use_cache=False, output_hidden_states=True).hidden_states
        state, mask = hidden[round(layer * (len(hidden) - 1))].float(), labelled.to(model.device).float()
        result[batch] = (torch.einsum("rth,rt->rh", state, mask) / mask.sum(1, keepdim=True)).cpu()
    return result


def _write(
    out: Path,
    model: PreTrainedModel,
    layer: float,
    rows: Sequence[Encoded],
    ids: list[str],
    subtasks: list[str] | None = None,
) -> None:
    vectors = states(model, rows, layer)
    space = description(ProjectionKind.none, None, vectors.shape[1])
    store = FeatureStore.create(out, ids, StoreDtype.float32, space, {"states": 1.0}, subtasks)
    store.write(0, range(len(ids)), vectors)
