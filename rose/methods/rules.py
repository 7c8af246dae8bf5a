"""Rules: influences on single targets [rows, targets] → one column per subtask and one score a row.

A rule is `rule(method, rows, influence) → (columns, score)`, `rows` a table of id, dataset, length
and answer_tokens. A row whose influence is NaN has no score.
"""

from collections.abc import Callable

import pandas

from rose.config.choices import Rule
from rose.config.schema import Method
from rose.methods.influence import Influence
from rose.methods.orders import balanced, best_rank, greedy, round_robin
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


RULES: dict[Rule, Callable[[Method, pandas.DataFrame, Influence], Ranked]] = {
    Rule.mean_max: mean_max,
    Rule.global_max: global_max,
    Rule.round_robin: round_robin,
    Rule.best_rank: best_rank,
    Rule.greedy: greedy,
    Rule.resample: resample,
    Rule.lowest: lowest,
    Rule.middle: middle,
    Rule.random: random,
    Rule.balanced: balanced,
}
