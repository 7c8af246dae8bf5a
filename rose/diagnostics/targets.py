"""What a score owes to single targets, and to what all rows have in common."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy
import pandas
import torch
from safetensors import safe_open

from rose.config.choices import Rule
from rose.config.schema import Method, Warn
from rose.diagnostics.finding import Finding, constant_score, not_applicable, percent
from rose.gradients.feature_store import FeatureStore
from rose.gradients.spaces import require_same
from rose.methods.gradient import rows_at
from rose.methods.influence import Influence
from rose.methods.rules import RULES
from rose.methods.subtasks import mean_max
from rose.seeds import numpy_generator

RESAMPLED = (Rule.mean_max, Rule.global_max, Rule.round_robin, Rule.best_rank, Rule.resample, Rule.lowest)
MOST_ROWS = 2048  # whose features are read


def subtask_share(method: Method, table: pandas.DataFrame, influence: Influence, warn: Warn) -> Finding:
    """The greatest share of the selected rows whose best subtask, as mean→max has it, is the same.

    Not from the scores: some rules write no column a subtask.
    """
    subtasks = dict.fromkeys(influence.subtasks)
    if len(subtasks) < 2:
        reason = "The targets have one subtask." if subtasks else "The score is not made of targets."
        return not_applicable("subtask_share", reason)
    columns = mean_max(method, table, influence)[0].loc[table["selected"].to_numpy()]
    shares = columns.idxmax(axis=1).value_counts(normalize=True).reindex(columns.columns, fill_value=0.0)
    value, most = float(shares.max()), shares.idxmax()
    sentence = f"{percent(value)} of the selected rows owe their score to {most}, one of {len(shares)} subtasks."
    return Finding("subtask_share", value, value > warn.subtask_share, sentence, shares.to_dict())


def stability(
    method: Method, table: pandas.DataFrame, influence: Influence, resamples: int, seed: int, warn: Warn
) -> Finding:
    """Mean Jaccard index of the top k, k the selected rows, with the top k of resampled targets.

    A resample draws as many targets of every subtask, with replacement, for the method's own rule.
    """
    if influence.values.shape[1] < 2:
        return not_applicable("stability", "The score is not made of several targets.")
    if method.rule not in RESAMPLED:
        return not_applicable("stability", f"method.rule={method.rule} is not applied again to resampled targets.")
    count = int(table.selected.sum())
    original = _best(table.score, count)
    generator, names = numpy_generator(seed, "resampled targets"), numpy.array(influence.subtasks)
    groups = [numpy.flatnonzero(names == name) for name in dict.fromkeys(influence.subtasks)]
    indices = []
    for _ in range(resamples):
        drawn = numpy.concatenate([numpy.sort(generator.choice(group, len(group))) for group in groups])
        again = Influence(influence.values[:, drawn], names[drawn].tolist())
        top = _best(RULES[method.rule](method, table, again)[1], count)
        indices.append(len(original & top) / max(1, len(original | top)))
    value = float(numpy.mean(indices))
    sentence = (
        f"With other pairs of the same kind, {percent(2 * value / (1 + value))} of the best {count} rows would stay "
        f"(mean Jaccard index {value:.2f} of {resamples} resamples of {influence.values.shape[1]} pairs)."
    )
    return Finding("stability", value, value < warn.stability, sentence, {"least": min(indices), "most": max(indices)})


def _best(score: pandas.Series, count: int) -> set[int]:
    return set(score.dropna().nlargest(count).index)


def momentum_share(table: pandas.DataFrame, stages: tuple[Sequence[Path], Path] | tuple[()], warn: Warn) -> Finding:
    """R² of the least-squares fit of the score on the rows' cosines with the common momentum term.

    `stages` are the pool's features and that term, if there is any: the feature û_i at checkpoint i
    of a row without any gradient (see `momentum`); a row's cosine is ⟨φ_i(z), û_i⟩. R² is how much
    of the scores' variance follows how much of a row's feature is that term, whatever the targets;
    details give the mean cosine at each checkpoint. At most 2,048 rows, evenly spaced, are read.
    """
    if not stages:
        reason = "The score is not made of stored features that hold Adam's old momentum."
        return not_applicable("momentum_share", reason)
    features, momentum = stages
    store = FeatureStore.open(features)
    table = table.loc[table["id"].isin(list(store.ids))]  # the others were no candidates
    with safe_open(momentum / "momentum.safetensors", "pt") as file:
        common, space = [file.get_tensor(name) for name in store.checkpoints], (file.metadata() or {}).get("space")
    if space is not None:  # older ones do not say
        require_same(store.projection, json.loads(space), (features, momentum))
    scored = numpy.flatnonzero(table["score"].notna())
    numbers = scored[numpy.linspace(0, len(scored) - 1, min(len(scored), MOST_ROWS)).astype(int)]
    products = [rows_at(store, i, numbers) @ term for i, term in enumerate(common)]
    cosines = torch.stack(products, dim=1).double().numpy()
    score = table["score"].to_numpy(dtype=float)[numbers]
    if numpy.ptp(score) == 0:
        return constant_score("momentum_share")
    terms = numpy.column_stack([numpy.ones(len(numbers)), cosines])
    fitted = terms @ numpy.linalg.lstsq(terms, score, rcond=None)[0]
    value = float(1 - ((score - fitted) ** 2).sum() / ((score - score.mean()) ** 2).sum())
    mean = cosines.mean(axis=0)
    sentence = (
        f"{percent(value)} of the score's variance follows how much of a row's feature is Adam's old momentum, which "
        f"all rows share (mean cosine with it {mean.min():.2f} to {mean.max():.2f} over checkpoints)."
    )
    details = {name: float(cosine) for name, cosine in zip(store.checkpoints, mean, strict=True)}
    return Finding("momentum_share", value, value > warn.momentum_share, sentence, details)
