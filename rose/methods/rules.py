"""Rules: influences on single targets [rows, targets] → one column per subtask and one score a row.

A rule is `rule(method, rows, influence) → (columns, score)`, `rows` a table of id, dataset, length
and answer_tokens. A row whose influence is NaN has no score.
"""

from collections.abc import Callable, Iterable

import numpy
import pandas

from rose.config.choices import Rule
from rose.config.schema import Method
from rose.errors import RoseError
from rose.methods.influence import Influence
from rose.methods.subtasks import Ranked, generator, global_max, mean_max


def resample(method: Method, rows: pandas.DataFrame, influence: Influence) -> Ranked:
    """Mean→max plus Gumbel noise: the top k are drawn without replacement by e^score (DSIR)."""
    columns, score = mean_max(method, rows, influence)
    return columns, score + generator(method, "resampling").gumbel(size=len(rows))


def lowest(method: Method, rows: pandas.DataFrame, influence: Influence) -> Ranked:
    """Mean→max, upside down."""
    columns, score = mean_max(method, rows, influence)
    return columns, -score


def middle(method: Method, rows: pandas.DataFrame, influence: Influence) -> Ranked:
    """Nearest to the median of mean→max first, by rank: 0 at the median, −½ at either end."""
    columns, score = mean_max(method, rows, influence)
    return columns, -(score.rank(pct=True) - score.rank(pct=True).median()).abs()


def random(method: Method, rows: pandas.DataFrame, influence: Influence) -> Ranked:
    """A uniformly random order, the same for the same ids and seed."""
    draws = generator(method, "random selection").random(len(rows))
    return pandas.DataFrame(index=range(len(rows))), pandas.Series(draws)


# Rules that choose rows one after another; falling scores, 1 to 1/n, say the order.


def round_robin(method: Method, rows: pandas.DataFrame, influence: Influence) -> Ranked:
    """Targets take turns at the best row left; ties: the smaller id.

    That is round robin as RDS+'s paper words it (arXiv 2503.01807); its authors' script is `best_rank`.
    """
    columns, order = _orders(method, rows, influence)
    return columns, _falling(_take_turns(list(order.T)), len(rows))


def best_rank(method: Method, rows: pandas.DataFrame, influence: Influence) -> Ranked:
    """By the best rank that a row has with any target, then by the order of the targets; ties: the smaller id.

    So does RDS+'s script: targets take turns, and one whose row is taken already loses its turn,
    where in `round_robin` it searches on.
    """
    columns, order = _orders(method, rows, influence)
    return columns, _falling(list(dict.fromkeys(order.ravel().tolist())), len(rows))


def _orders(method: Method, rows: pandas.DataFrame, influence: Influence) -> tuple[pandas.DataFrame, numpy.ndarray]:
    """The columns, and the numbers of the rows that have a score, best first for each target: [rows, targets]."""
    columns, score = mean_max(method, rows, influence)
    by_id = rows.loc[score.notna()].sort_values("id").index.to_numpy()
    return columns, by_id[numpy.argsort(-influence.values[by_id], axis=0, kind="stable")]


def greedy(method: Method, rows: pandas.DataFrame, influence: Influence) -> Ranked:
    """Matching pursuit: the best row is taken, what it covers leaves every other score, and so on.

    s_b(z) ← s_b(z) − s_b(p)·⟨x_z, x_p⟩ for each subtask b after row p is taken, x the rows' unit
    vectors (Mallat and Zhang 1993, with the subtask's mean target as the signal): a copy of a taken
    row is worth nothing. The best `method.candidates` rows are ordered so; the others follow by
    their scores. Ties go to the smaller id.
    """
    if influence.vectors is None:
        raise RoseError(
            f"method.rule=greedy: representation={method.representation} has no similarity between rows; "
            "one of gradients, readout, hidden, embeddings has"
        )
    columns, score = mean_max(method, rows, influence)
    scored = rows[["id"]].assign(score=score).dropna()
    ordered = scored.sort_values(["score", "id"], ascending=[False, True]).index.to_numpy()
    best = scored.loc[ordered[: method.candidates]].sort_values("id").index.to_numpy()
    vectors = influence.vectors(best.tolist())
    left, taken = columns.to_numpy(dtype=numpy.float64)[best], []
    open_rows = numpy.ones(len(best), dtype=bool)
    for _ in best:
        pick = int(numpy.where(open_rows, left.max(axis=1), -numpy.inf).argmax())
        left -= numpy.outer(vectors @ vectors[pick], left[pick].copy())
        open_rows[pick] = False
        taken.append(best[pick])
    return columns, _falling([*taken, *ordered[method.candidates :]], len(rows))


def balanced(method: Method, rows: pandas.DataFrame, influence: Influence) -> Ranked:
    """Sources take turns, each in a random order: equal counts of each until one runs out."""
    orders = [
        generator(method, f"balanced selection {source}").permutation(members)
        for source, members in sorted(rows.groupby("dataset").indices.items())
    ]
    return pandas.DataFrame(index=range(len(rows))), _falling(_take_turns(orders), len(rows))


def _take_turns(orders: Iterable[Iterable[int]]) -> list[int]:
    """Each order in turn gives its first number that no other has given, until all are given."""
    waiting, taken = [iter(order) for order in orders], dict[int, None]()
    while waiting:
        for order in list(waiting):
            number = next((number for number in order if number not in taken), None)
            if number is None:
                waiting.remove(order)
            else:
                taken[number] = None
    return list(taken)


def _falling(order: list[int], count: int) -> pandas.Series:
    score = pandas.Series(numpy.nan, index=range(count))
    score.iloc[order] = 1 - numpy.arange(len(order)) / max(1, len(order))
    return score


OF_ONE_ROW = (Rule.mean_max, Rule.global_max, Rule.lowest)  # rules that look at no other row
RULES: dict[Rule, Callable[[Method, pandas.DataFrame, Influence], Ranked]] = {
    Rule[rule.__name__]: rule
    for rule in (mean_max, global_max, round_robin, best_rank, greedy, resample, lowest, middle, random, balanced)
}
