"""Mean hidden states of answers: what one forward pass of the base model tells of a row."""

from pathlib import Path

import numpy
import pandas
from sklearn.linear_model import RidgeCV

from rose.config.choices import Estimator
from rose.config.schema import Method, Numerics
from rose.gradients.feature_store import VALID, FeatureStore
from rose.methods.hidden import fitting_pairs, one_pass, write
from rose.methods.influence import Influence
from rose.models import loading
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

    place = pool.checkpoints.index("states")
    lost = pool.flags(place) != VALID

    def values(start: int, stop: int | None) -> numpy.ndarray:
        found = pool.rows(place, start, len(pool) if stop is None else stop).double().numpy() @ weights
        found[lost[start:stop]] = numpy.nan
        return found[:, None]

    return Influence(values, ["reward"])


def ridge(differences: numpy.ndarray) -> numpy.ndarray:
    """The linear reward model [d] of differences [pairs, d], its λ of RIDGES by leave-one-out."""
    scale = float((differences**2).sum(1).mean())
    model = RidgeCV(alphas=RIDGES * scale, fit_intercept=False)
    return numpy.asarray(model.fit(differences, numpy.ones(len(differences))).coef_)


@stage("target_answer_states", version=2)
def pair_states(out: Path, layer: float, numerics: Numerics, max_length: int, base: Path, preferences: Path) -> None:
    """A FeatureStore of the target pairs' answers, `<pair>/chosen` before `<pair>/rejected`; dropped.jsonl: others."""
    pairs, encoded = fitting_pairs(out, base, max_length, preferences)
    answers = [answer for both in encoded for answer in both]
    ids = [f"{pair['id']}/{side}" for pair in pairs for side in ("chosen", "rejected")]
    subtasks = [pair["subtask"] for pair in pairs for _ in range(2)]
    found = one_pass(loading.load_model(base, numerics), answers, layer)
    write(out, {"states": found.states}, ids, subtasks, raw=("states",))
