"""Mean hidden states of answers: what one forward pass of the base model tells of a row."""

from collections.abc import Sequence
from pathlib import Path

import numpy
import pandas
import torch
from sklearn.linear_model import RidgeCV
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from rose.config.choices import Estimator
from rose.config.schema import Method, Numerics
from rose.gradients.feature_store import FeatureStore
from rose.methods.hidden import encoded_rows, fitting_pairs, in_batches, write
from rose.methods.influence import Influence
from rose.models import loading
from rose.models.batching import IGNORED, Encoded
from rose.stages.graph import stage

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
    ids, rows = encoded_rows(tokens)
    write(out, {"states": states(loading.load_model(base, numerics), rows, layer)}, ids, unit=False)


@stage("target_answer_states", version=2)
def pair_states(out: Path, layer: float, numerics: Numerics, max_length: int, base: Path, preferences: Path) -> None:
    """The same of the target pairs' answers, `<pair>/chosen` before `<pair>/rejected`; dropped.jsonl: the rest."""
    pairs, encoded = fitting_pairs(out, base, max_length, preferences)
    answers = [answer for both in encoded for answer in both]
    ids = [f"{pair['id']}/{side}" for pair in pairs for side in ("chosen", "rejected")]
    subtasks = [pair["subtask"] for pair in pairs for _ in range(2)]
    write(out, {"states": states(loading.load_model(base, numerics), answers, layer)}, ids, subtasks, unit=False)


def states(model: PreTrainedModel, rows: Sequence[Encoded], layer: float) -> torch.Tensor:
    """Mean over labelled tokens of the states after a layer: float32 [rows, hidden size].

    `layer` is the share of the depth: 1 is the last layer, after the model's final norm.
    """

    def means(batch: list[int]) -> torch.Tensor:
        inputs = pad_sequence([torch.tensor(rows[number]["input_ids"]) for number in batch], True)
        labels = pad_sequence([torch.tensor(rows[number]["labels"]) for number in batch], True, IGNORED)
        hidden = model.base_model(inputs.to(model.device), use_cache=False, output_hidden_states=True).hidden_states
        state, mask = hidden[round(layer * (len(hidden) - 1))].float(), (labels != IGNORED).to(model.device).float()
        return torch.einsum("rth,rt->rh", state, mask) / mask.sum(1, keepdim=True)

    shape = (model.config.get_text_config().hidden_size,)
    return in_batches("answer states", [row["input_ids"] for row in rows], shape, means)
