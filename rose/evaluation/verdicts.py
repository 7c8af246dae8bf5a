"""The verdicts stage: whose answers are better, a model's or its opponent's."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy

from rose.config.choices import JudgeKind
from rose.config.schema import Base, Judge
from rose.data import world
from rose.evaluation import llm, reward_model
from rose.evaluation.contests import Contest, Verdict, by_score, contests
from rose.evaluation.items import write_items
from rose.evaluation.length_control import length_controlled
from rose.stages.graph import stage

Judged = tuple[list[Verdict], dict[str, float]]  # a verdict a contest, and metrics of the judging itself


def shares_model(judge: Judge, base: Base) -> bool:
    """Whether the judge is the model whose gradients select, or the reward that ranked the pairs that guide it."""
    if judge.kind is JudgeKind.reward_world:
        return True
    return bool(judge.model and base.path) and _bare(judge.model) == _bare(base.path)


@stage("verdicts", version=3)
def judge_answers(
    out: Path, judge: Judge, fingerprint: str, shares_model: bool, answers: Path, opponent: Path | None
) -> None:
    """Writes verdicts.jsonl, a row a contest, metrics.json and items.parquet; `opponent=None`: the references.

    `fingerprint` is that of a reward model's weights. win_rate is the mean of the wins, a tie counting half, over the
    contests with a verdict; those without are counted (judge_malformed, judge_refused) and never guessed.
    """
    rows = contests(answers, opponent)
    verdicts, metrics = JUDGES[judge.kind](judge, rows)
    lengths = numpy.array([[len(row.answer), len(row.opponent)] for row in rows], dtype=numpy.float64)
    columns = {
        "win_rate": _column(verdicts, "win"),
        "reward": _column(verdicts, "reward"),
        "opponent_reward": _column(verdicts, "opponent_reward"),
        "answer_length": lengths[:, 0],
    }
    known = {name: values for name, values in columns.items() if not numpy.isnan(values).all()}
    prompts = [row.item.prompt for row in rows]
    controlled = length_controlled(columns["win_rate"], lengths[:, 0], lengths[:, 1], prompts)
    metrics |= {} if controlled is None else {"win_rate_length_controlled": controlled}
    metrics |= {"judged": sum(verdict.win is not None for verdict in verdicts), "judge_shares_model": shares_model}
    _write(out / "verdicts.jsonl", rows, verdicts)
    write_items(out, [row.item for row in rows], known, {name: float(value) for name, value in metrics.items()})


def _by_world(judge: Judge, rows: Sequence[Contest]) -> Judged:
    scores = [
        [world.reward(judge.manners, row.item.prompt, text) for text in (row.answer, row.opponent)] for row in rows
    ]
    return by_score(*zip(*scores, strict=True)), {}


JUDGES: dict[JudgeKind, Callable[[Judge, Sequence[Contest]], Judged]] = {
    JudgeKind.reward_world: _by_world,
    JudgeKind.reward_model: reward_model.judge_answers,
    JudgeKind.llm: llm.judge_answers,
}


def _column(verdicts: Sequence[Verdict], name: str) -> numpy.ndarray:
    return numpy.array([getattr(verdict, name) for verdict in verdicts], dtype=numpy.float64)  # None becomes NaN


def _write(path: Path, rows: Sequence[Contest], verdicts: Sequence[Verdict]) -> None:
    lines = [
        {"id": row.item.id, "win": verdict.win, "answer_length": len(row.answer), "reference_length": len(row.opponent)}
        | {name: value for name, value in verdict._asdict().items() if name != "win"}
        for row, verdict in zip(rows, verdicts, strict=True)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _bare(name: str) -> str:
    """`HuggingFaceTB/SmolLM2-135M-Instruct` and `models/smollm2_135m_instruct` are one model."""
    return re.sub(r"[\W_]", "", name.rstrip("/").split("/")[-1]).lower()
