"""A contest of two answers to one prompt, and its verdict."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rose.data import files
from rose.data.chat import Message
from rose.errors import RoseError
from rose.evaluation.items import Item, prompt_text


class Contest(NamedTuple):
    item: Item
    prompt: list[Message]
    answer: str
    opponent: str


class Verdict(NamedTuple):
    win: float | None  # 1, ½, 0, or None where the judge gave no verdict
    reward: float | None = None  # the answer's score, from judges that score
    opponent_reward: float | None = None
    order: tuple[str, str] | None = None  # win | tie | lose, with the answer first and second
    reason: str | None = None
    problem: str | None = None  # malformed | refused, where there is no verdict


def contests(answers: Path, opponent: Path | None) -> list[Contest]:
    """A folder's answers against their references, or against another model's answers.

    Raises RoseError where the two folders do not answer the same prompts under the same ids.
    """
    rows = list(files.load(answers / "answers.jsonl"))
    if opponent is None:
        opposed = {row["id"]: row["reference"] for row in rows}
    else:
        others = {row["id"]: row for row in files.load(opponent / "answers.jsonl")}
        differ = [row["id"] for row in rows if others.get(row["id"], {}).get("prompt") != row["prompt"]]
        if differ or len(others) != len(rows):
            raise RoseError(
                f"{answers.name}, {opponent.name}: answer different test prompts "
                f"({len(differ)} of {len(rows)} ids differ); only models tested on the same pairs can be compared"
            )
        opposed = {identity: row["answer"] for identity, row in others.items()}
    items = [Item(row["id"], prompt_text(row["prompt"]), row["subtask"]) for row in rows]
    return [
        Contest(item, row["prompt"], row["answer"], opposed[item.id]) for item, row in zip(items, rows, strict=True)
    ]


def by_score(scores: Sequence[float], opponents: Sequence[float]) -> list[Verdict]:
    """The higher score wins; equal scores tie."""
    return [
        Verdict((score > other) + 0.5 * (score == other), score, other)
        for score, other in zip(scores, opponents, strict=True)
    ]
