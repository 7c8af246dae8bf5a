"""Selection: the best-scored rows of the pool, as the pool wrote them."""

import json
import logging
from pathlib import Path

import pandas

from rose.artifacts import stage, write_json
from rose.config import Method, Selection, Share, Training, Warmup
from rose.errors import RoseError

log = logging.getLogger(__name__)


def effective(method: Method, selection: Selection, warmup: Warmup, finetune: Training) -> float:
    """The ratio that is really selected: `method=full` takes the whole pool, whatever `selection.ratio` says.

    share=matched takes as many rows as a gradient method's whole cost would have trained on: its warm-up, one pass over
    the pool a checkpoint (forward and backward, as training) and its fine-tuning, at `finetune.epochs` passes a row; at
    most the whole pool.
    """
    if not 0 < selection.ratio <= 1:
        raise RoseError(f"selection.ratio={selection.ratio}: must be in (0, 1]")
    spent = (1 + warmup.ratio) * warmup.epochs
    return {
        Share.selection: selection.ratio,
        Share.everything: 1.0,
        Share.matched: min(1.0, selection.ratio + spent / finetune.epochs),
    }[method.share]


@stage("selection", version=1)
def select(out: Path, ratio: float, scores: Path, pool: Path) -> None:
    """Writes selected.jsonl: the pool's rows with `score` and `rank` (1 = best), ties broken by id.

    The ratio counts the rows that could be tokenised; rows without a score are never selected. metrics.json holds
    rows, tokens, Spearman's correlation of score and length, and in the world the useful fraction (`precision`).
    """
    table = pandas.read_parquet(scores / "scores.parquet")
    count = max(1, round(ratio * len(table)))
    best = table.dropna(subset="score").sort_values(["score", "id"], ascending=[False, True]).head(count)
    if len(best) < count:
        log.warning("selected %d rows, not %d: no other row has a score", len(best), count)
    wanted = {row.id: {"score": row.score, "rank": rank} for rank, row in enumerate(best.itertuples(), start=1)}
    rows = _pool_rows(pool, wanted)
    with open(out / "selected.jsonl", "w") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    metrics = {"selected_rows": len(rows), "selected_tokens": int(best["length"].sum())}
    if table["score"].nunique() > 1 and table["length"].nunique() > 1:
        metrics["length_correlation"] = float(table["score"].corr(table["length"], method="spearman"))
    if rows and all("useful" in row for row in rows):
        metrics["precision"] = sum(row["useful"] for row in rows) / len(rows)
    write_json(out / "metrics.json", metrics)


def _pool_rows(pool: Path, wanted: dict[str, dict]) -> list[dict]:
    with open(pool / "pool.jsonl") as file:
        rows = [row | wanted[row["id"]] for row in map(json.loads, file) if row["id"] in wanted]
    return sorted(rows, key=lambda row: row["rank"])
