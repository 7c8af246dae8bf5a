"""What a reward model says of the pool's own answers: method=reward."""

from pathlib import Path

import pandas

from rose.config.schema import Judge
from rose.data import files
from rose.data.dropping import list_dropped
from rose.data.rows import DroppedRow
from rose.evaluation import reward_model
from rose.models import loading
from rose.stages.graph import stage

KEY = "method.reward_model"  # or, where that is null, judge.model


@stage("rewards", version=1)
def pool_rewards(out: Path, judge: Judge, fingerprint: str, pool: Path) -> None:
    """Writes rewards.parquet: id, and the reward of the row's last answer after all that comes before it.

    NaN where the model's chat template refuses the conversation; dropped.jsonl lists these. Raises
    RoseError as `rose.evaluation.reward_model.score` does.
    """
    if fingerprint:
        loading.unchanged(reward_model.source(judge), fingerprint, KEY)
    ids, prompts, answers = [], [], []
    for row in files.load(pool / "pool.jsonl"):
        place = max(number for number, message in enumerate(row["messages"]) if message["role"] == "assistant")
        ids.append(row["id"])
        prompts.append(row["messages"][:place])
        answers.append(row["messages"][place]["content"])
    dropped: list[DroppedRow] = []
    rewards = reward_model.score(judge, prompts, answers, dropped, KEY)
    pandas.DataFrame({"id": ids, "reward": rewards}).to_parquet(out / "rewards.parquet", index=False)
    refused = [DroppedRow(id=ids[int(row["id"])], reason=row["reason"]) for row in dropped]
    list_dropped(out, refused, len(ids), "rows")
