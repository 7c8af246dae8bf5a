"""A contest of two answers to one prompt, and its verdict."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rose.data import files
from rose.errors import RoseError
from rose.evaluation.items import Item, prompt_text


class Contest(NamedTuple):
    item: Item
    prompt: list[dict]  # messages
    answer: str
    opponent: str


class Verdict(NamedTuple):
    win: float | None  # 1, ½, 0, or None where the judge gave no verdict
    reward: float | None = None  # the answer's score, from judges that score
    opponent_reward: float | None = None
    order: tuple[str, str] | None = None  # win | tie | lose, the answer shown first and shown second
    reason: str | None = None
    problem: str | None = None  # malformed | refused, where there is no verdict


def contests(answers: Path, opponent: Path | None) -> list[Contest]:
    """The rows of a folder's answers.jsonl against their references, or against another model's answers.

    Raises RoseError where the two folders do not answer the same prompts under the same ids.
    """
    own = list(files.load(answers / "answers.jsonl"))
    if opponent is None:
        others = {row["id"]: row["reference"] for row in own}
    else:
        rows = {row["id"]: row for row in files.load(opponent / "answers.jsonl")}
        differ = [row["id"] for row in own if rows.get(row["id"], {}).get("prompt") != row["prompt"]]
        if differ or len(rows) != len(own):
            raise RoseError(
                f"{answers.name}, {opponent.name}: answer different test prompts "
                f"({len(differ)} of {len(own)} ids differ); only models tested on the same pairs can be compared"
            )
        others = {identity: row["answer"] for identity, row in rows.items()}
    return [
        Contest(
            Item(row["id"], prompt_text(row["prompt"]), row["subtask"]), row["prompt"], row["answer"], others[row["id"]]
        )
        for row in own
    ]


def by_score(scores: Sequence[float], opponents: Sequence[float]) -> list[Verdict]:
    """The higher score wins; equal scores tie."""
    return [
        Verdict(win=(own > other) + 0.5 * (own == other), reward=own, opponent_reward=other)
        for own, other in zip(scores, opponents, strict=True)
    ]
