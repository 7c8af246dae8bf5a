"""The verdicts stage: whose answers are better, a model's or its opponent's."""

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy
from sklearn.linear_model import LogisticRegression

from rose.config.choices import JudgeKind
from rose.config.schema import Base, Judge
from rose.data import world
from rose.evaluation import endpoint, llm, reward_model
from rose.evaluation.contests import Contest, Verdict, by_score, contests
from rose.evaluation.items import write_items
from rose.models import loading
from rose.stages.disk import write_lines
from rose.stages.graph import stage

log = logging.getLogger(__name__)

ONE_SIDED = 0.8  # share of answers longer, or shorter, than their opponents: from there on a warning
WEAK = 100.0  # inverse of the penalty on the slope, which stays finite where length alone decides
Judged = tuple[list[Verdict], dict[str, float]]  # a verdict a contest, and metrics of the judging


def shares_model(judge: Judge, base: Base, ranking: str | None = None) -> bool:
    """Whether the judge is the model that selects, or the reward that ranked its target pairs or the pool."""
    if judge.kind is JudgeKind.reward_world:
        return True
    selecting = [_bare(path) for path in (base.path, ranking) if path]
    return bool(judge.model) and _bare(judge.model) in selecting


def fingerprint(judge: Judge) -> str:
    """What tells judges of one name apart: a reward model's weights, or the endpoint of a chat model."""
    if judge.kind is JudgeKind.llm:
        return endpoint.identity(judge)
    return loading.fingerprint(reward_model.source(judge))


@stage("verdicts", version=5)
def judge_answers(
    out: Path, judge: Judge, fingerprint: str, shares_model: bool, answers: Path, opponent: Path | None
) -> None:
    """Writes verdicts.jsonl, a row a contest, metrics.json and items.parquet.

    `opponent=None`: the references. `fingerprint` is that of the judge, see there. win_rate is
    the mean of the wins, a tie counting half, over the contests with a verdict, each prompt weighing
    the same, as at equal length; those without are counted (judge_malformed, judge_refused) and
    never guessed.
    """
    if fingerprint and judge.kind is JudgeKind.reward_model:
        loading.unchanged(reward_model.source(judge), fingerprint, "judge.model")
    rows = contests(answers, opponent)
    verdicts, metrics = JUDGES[judge.kind](judge, rows)
    lengths = numpy.array([[len(row.answer), len(row.opponent)] for row in rows], dtype=numpy.float64)
    scores = [(verdict.win, verdict.reward, verdict.opponent_reward) for verdict in verdicts]
    wins, *rewards = numpy.array(scores, dtype=numpy.float64).T  # None becomes NaN
    columns = {"win_rate": wins, "reward": rewards[0], "opponent_reward": rewards[1], "answer_length": lengths[:, 0]}
    columns = {name: values for name, values in columns.items() if not numpy.isnan(values).all()}
    prompts = [row.item.prompt for row in rows]
    controlled = length_controlled(wins, lengths[:, 0], lengths[:, 1], prompts)
    metrics |= {} if controlled is None else {"win_rate_length_controlled": controlled}
    metrics |= {"judged": sum(verdict.win is not None for verdict in verdicts), "judge_shares_model": shares_model}
    write_lines(out / "verdicts.jsonl", map(_line, rows, verdicts))
    write_items(out, [row.item for row in rows], columns, {name: float(value) for name, value in metrics.items()})


def length_controlled(
    wins: numpy.ndarray, lengths: numpy.ndarray, opponents: numpy.ndarray, prompts: Sequence[str]
) -> float | None:
    """σ(θ) of the logistic model P(win) = σ(θ + φ·tanh(Δ/sd(Δ))): the win rate predicted at Δ = 0.

    Δ = length − opponent's length, in characters. AlpacaEval 2's length control (arXiv 2404.04475)
    without its terms for prompt and model. `wins` [items] in [0, 1] or NaN, a tie being half a win
    and half a loss; a prompt weighs the same whatever the number of its items. Where every answer
    is longer than its opponent, or every one shorter, this extrapolates. None: no win is known.
    """
    known = ~numpy.isnan(wins)
    wins, difference = wins[known], (lengths - opponents)[known]
    if not len(wins):
        return None
    _, prompt, counts = numpy.unique(numpy.asarray(prompts)[known], return_inverse=True, return_counts=True)
    weights = 1 / counts[prompt]
    for side, what in ((difference > 0, "longer"), (difference < 0, "shorter")):
        if (share := numpy.average(side, weights=weights)) >= ONE_SIDED - 1e-12:
            log.warning("win_rate_length_controlled extrapolates: %.0f %% of answers are %s", 100 * share, what)
    spread = numpy.average((difference - numpy.average(difference, weights=weights)) ** 2, weights=weights) ** 0.5
    if spread == 0 or wins.min() == wins.max():
        return float(numpy.average(wins, weights=weights))
    feature = numpy.tanh(difference / spread)[:, None]
    model = LogisticRegression(C=WEAK, tol=1e-8, max_iter=1000)
    outcome = numpy.repeat([1, 0], len(wins))
    shares = numpy.concatenate([weights * wins, weights * (1 - wins)])
    model.fit(numpy.concatenate([feature, feature]), outcome, sample_weight=shares)
    return float(model.predict_proba([[0.0]])[0, 1])


def _by_world(judge: Judge, rows: Sequence[Contest]) -> Judged:
    manners = judge.manners
    assert manners is not None, "conf/judge/reward_world.yaml has them"
    scores = [world.reward(manners, row.item.prompt, row.answer) for row in rows]
    return by_score(scores, [world.reward(manners, row.item.prompt, row.opponent) for row in rows]), {}


JUDGES: dict[JudgeKind, Callable[[Judge, Sequence[Contest]], Judged]] = {
    JudgeKind.reward_world: _by_world,
    JudgeKind.reward_model: reward_model.judge_answers,
    JudgeKind.llm: llm.judge_answers,
}


def _line(row: Contest, verdict: Verdict) -> dict[str, Any]:
    lengths = {"answer_length": len(row.answer), "reference_length": len(row.opponent)}
    return {"id": row.item.id, "win": verdict.win} | lengths | verdict._asdict()


def _bare(name: str) -> str:
    """`HuggingFaceTB/SmolLM2-135M-Instruct` and `models/smollm2_135m_instruct` are one model."""
    return re.sub(r"[\W_]", "", name.rstrip("/").split("/")[-1]).lower()
