"""Selector fidelity: would the score take the better answer of a held-out pair?"""

import logging
from pathlib import Path

import numpy
import pandas
from scipy.special import stdtrit

from rose.config.choices import Estimator, Representation, Rule
from rose.config.schema import Method
from rose.data import files
from rose.evaluation.evaluate import wins
from rose.methods.rules import OF_ONE_ROW, RULES
from rose.methods.scores import INFLUENCE, table_of
from rose.methods.subtasks import spearman
from rose.stages.disk import write_json
from rose.stages.graph import stage

log = logging.getLogger(__name__)

Z = 1.959964  # the normal distribution's 97.5 % quantile
ORDERS = (Rule.round_robin, Rule.best_rank, Rule.greedy, Rule.resample)  # of a whole pool, by mean_max of its rows
LEXICAL = (Representation.words, Representation.ngrams)


def relative(method: Method) -> bool:
    """Whether a row's score depends on the other rows of the pool."""
    return method.whiten or method.representation in LEXICAL


def undefined(method: Method) -> str | None:
    """Why the method has no score for a row outside the pool; None where it has."""
    if method.representation is Representation.none:
        return f"method.rule={method.rule} looks at no row"
    if method.representation is Representation.column:
        return f"method.column={method.column} is a number that pool rows have"
    if method.rule not in OF_ONE_ROW + ORDERS:
        return f"method.rule={method.rule} scores a row by its place in the pool"
    if method.estimator in (Estimator.shapley, Estimator.datainf):
        return f"method.estimator={method.estimator} values a row as one of the pool"
    return None


@stage("fidelity", version=3)
def fidelity(
    out: Path, method: Method, matched_length: float, held_out: Path, representation: tuple, background: tuple
) -> None:
    """Writes pairs.parquet (id, prompt, subtask, both answers' score and tokens) and metrics.json.

    Each answer of a held-out pair is scored as a row of the pool would be: `representation` is the
    method's, of these answers; `background` the pool's own, where a score depends on it. `fidelity`
    is the share of pairs whose chosen answer scores higher (a tie is half; 50 % is chance), with
    `_low`, `_high` (95 %), `_pairs`; `fidelity_matched` the same of pairs whose answers differ in
    length by at most `matched_length` of the longer one; `fidelity_longer` the share in which the
    chosen answer is the longer one, `fidelity_length` Spearman's correlation of the differences in
    score and in length. Lengths are in tokens as the model reads them, after truncation.
    """
    if reason := undefined(method):
        log.warning("no selector fidelity: %s", reason)
        write_json(out / "metrics.json", {})
        return
    rows = table_of(held_out)
    influence = INFLUENCE[method.representation](method, rows, *representation, *background)
    rule = Rule.mean_max if method.rule in ORDERS else method.rule
    _, score = RULES[rule](method, rows, influence)
    pairs = compared(pandas.DataFrame(files.load(held_out / "pairs.jsonl")), rows, score)
    pairs.to_parquet(out / "pairs.parquet", index=False)
    write_json(out / "metrics.json", measured(pairs, matched_length))


def compared(pairs: pandas.DataFrame, rows: pandas.DataFrame, score: pandas.Series) -> pandas.DataFrame:
    """`pairs` with both answers' scores and lengths; `rows` are chosen, rejected, chosen, …

    An answer without a score, which as a row is never selected, has −∞; pairs without any are left
    out.
    """
    scores, lengths = score.fillna(-numpy.inf).to_numpy(), rows["answer_tokens"].to_numpy(dtype=numpy.int64)
    table = pairs.assign(chosen_score=scores[0::2], rejected_score=scores[1::2])
    table = table.assign(chosen_length=lengths[0::2], rejected_length=lengths[1::2])
    scored = table.loc[(table[["chosen_score", "rejected_score"]] > -numpy.inf).any(axis=1)]
    if len(scored) < len(table):
        log.warning("%d of %d held-out pairs have no answer with a score", len(table) - len(scored), len(table))
    return scored


def measured(pairs: pandas.DataFrame, matched_length: float) -> dict[str, float]:
    """The metrics of `fidelity` from its pairs.parquet; those that no pair can tell are absent."""
    score, longer = pairs.chosen_score - pairs.rejected_score, pairs.chosen_length - pairs.rejected_length
    higher, prompts = wins(score), pairs["prompt"].to_numpy()
    matched = longer.abs() <= matched_length * pairs[["chosen_length", "rejected_length"]].max(axis=1)
    metrics = {}
    for name, of in (("fidelity", numpy.ones(len(pairs), dtype=bool)), ("fidelity_matched", matched.to_numpy())):
        metrics[f"{name}_pairs"] = int(of.sum())
        if of.any():
            metrics[name], metrics[f"{name}_low"], metrics[f"{name}_high"] = rate_of(higher[of], prompts[of])
    metrics["fidelity_longer"] = float(wins(longer).mean())
    finite = numpy.isfinite(score)
    correlation = spearman(score[finite], longer[finite])
    return metrics if correlation is None else metrics | {"fidelity_length": correlation}


def rate_of(wins: numpy.ndarray, clusters: numpy.ndarray) -> tuple[float, float, float]:
    """The mean of wins in [0, 1] and its 95 % interval; wins of one prompt, a cluster, may depend.

    Wilson's interval for the effective sample size p(1−p)/V · (z/t)², V the linearised variance of
    a mean of G clusters, t with G − 1 degrees of freedom (Dean and Pagano, J. Survey Stat.
    Methodol. 2015); where V is 0 the number of clusters stands for it.
    """
    value, count = float(wins.mean()), len(set(clusters))
    sums = numpy.asarray(pandas.Series(wins - value).groupby(clusters).sum())
    variance = float((sums**2).sum()) / len(wins) ** 2 * count / max(1, count - 1)
    size = float(count)
    if variance > 1e-12:  # less is rounding: all clusters have the same share
        size = value * (1 - value) / variance * (Z / stdtrit(count - 1, 0.975)) ** 2
    middle, shrink = value + Z**2 / (2 * size), 1 + Z**2 / size
    half = Z * (value * (1 - value) / size + Z**2 / (4 * size**2)) ** 0.5
    return value, max(0.0, (middle - half) / shrink), min(1.0, (middle + half) / shrink)
