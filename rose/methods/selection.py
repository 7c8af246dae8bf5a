"""Selection: the best-scored rows of the pool, as the pool wrote them."""

import json
import logging
import math
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

import pandas

from rose.config.schema import Selection
from rose.data import files
from rose.data.chat import said
from rose.data.planting import truth
from rose.errors import RoseError
from rose.methods import detection
from rose.methods.duplicates import SEEN
from rose.methods.subtasks import spearman
from rose.shares import part, rounded
from rose.stages.disk import write_json
from rose.stages.graph import stage

log = logging.getLogger(__name__)


@stage("selection", version=4)
def select(out: Path, selection: Selection, in_world: bool, scores: Path, pool: Path, planted: bool = False) -> None:
    """Writes selected.jsonl: the pool's rows with `score` and `rank` (1 = best), ties broken by id.

    The ratio counts the rows that could be tokenised, a slice those with a score that pass the
    length limits; rows without a score are never selected. metrics.json holds rows, tokens,
    Spearman's correlation of score and length, and in the world `precision`, the share of rows that
    are useful; of a `planted` pool, whether faults are seen (`rose.methods.detection`). Raises
    RoseError where no row is left to select.
    """
    table = pandas.read_parquet(scores / "scores.parquet", columns=["id", "score", "length"])
    ranked = _slice(_of_length(best_first(table), selection), selection)
    best = ranked[ranked["id"].isin(taken(selection, len(table), ranked, pool))]
    ranks = enumerate(zip(best["id"], best["score"], strict=True), start=1)
    wanted = {identity: {"score": score, "rank": rank} for rank, (identity, score) in ranks}
    rows = sorted((_renamed(row) | wanted[row["id"]] for row in _lines(pool, wanted)), key=lambda row: row["rank"])
    with open(out / "selected.jsonl", "w") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    metrics: dict[str, float] = {"selected_rows": len(rows), "selected_tokens": sum(best["length"].tolist())}
    correlation = spearman(table.score, table.length)
    if correlation is not None:
        metrics["length_correlation"] = correlation
    if in_world:
        metrics["precision"] = sum(row["useful"] for row in rows) / len(rows)
    if planted:
        metrics |= detection.measured(truth(pool), table, set(wanted))
    write_json(out / "metrics.json", metrics)


def taken(selection: Selection, total: int, ranked: pandas.DataFrame, pool: Path) -> list[str]:
    """The ids of the best rows of `ranked` (id, length) that fill the budget, at least one.

    The budget is a number of rows, or of tokens: then rows are taken until one does not fit. A
    duplicate of a taken row is passed over, and so is a row whose source has had its share.
    """
    budget = selection.tokens or selection.count or rounded(selection.ratio, total)
    budget = len(ranked) if selection.slice else budget
    source, text = {}, {}
    if selection.per_source or selection.dedup in SEEN:
        for row in _lines(pool, set(ranked["id"])):
            source[row["id"]], text[row["id"]] = row.get("dataset"), said(row["messages"])
    seen = SEEN[selection.dedup]() if selection.dedup in SEEN else None
    limit = part(selection.per_source, budget) if selection.per_source else math.inf
    spent, chosen = Counter(), []
    for identity, length in zip(ranked["id"], ranked["length"], strict=True):
        cost, origin = length if selection.tokens else 1, source.get(identity)
        if (spent[origin] + cost > limit and spent[origin]) or (seen is not None and seen.holds(text[identity])):
            continue
        if spent.total() + cost > budget and chosen:
            break
        spent[origin] += cost
        chosen.append(identity)
    if not selection.tokens and len(chosen) < budget:
        log.warning("selected %d rows, not %d: no other row has a score and passes", len(chosen), budget)
    return chosen


def best_first(table: pandas.DataFrame) -> pandas.DataFrame:
    """The rows of a scores.parquet that have a score, ties broken by id."""
    return table.dropna(subset="score").sort_values(["score", "id"], ascending=[False, True])


def _of_length(ranked: pandas.DataFrame, selection: Selection) -> pandas.DataFrame:
    """The rows that pass the length limits; without any, a later stage would name another key."""
    if ranked.empty:
        raise RoseError("selection: no row of the pool has a score, so none can be selected")
    shortest, longest = selection.min_length or 0, selection.max_length or math.inf
    passing = ranked.loc[ranked["length"].between(shortest, longest)]
    if passing.empty:
        limits = {"min_length": selection.min_length, "max_length": selection.max_length}
        keys = ", ".join(f"selection.{name}={limit}" for name, limit in limits.items() if limit)
        fewest, most = ranked["length"].min(), ranked["length"].max()
        scored = f"{len(ranked)} rows that have a score"
        raise RoseError(f"{keys}: leaves none of the {scored}; they have {fewest} to {most} tokens")
    return passing


def _slice(ranked: pandas.DataFrame, selection: Selection) -> pandas.DataFrame:
    """The slice asked for, without which all; slices differ by one row at most."""
    if not selection.slice:
        return ranked
    start, stop = (number * len(ranked) // selection.slices for number in (selection.slice - 1, selection.slice))
    if start == stop:
        raise RoseError(f"selection.slices={selection.slices}: more than the {len(ranked)} rows that have a score")
    return ranked.iloc[start:stop]


def _lines(pool: Path, wanted: Collection[str]) -> Iterator[dict]:
    return (row for row in files.load(pool / "pool.jsonl") if row["id"] in wanted)


def _renamed(row: dict) -> dict:
    """The pool's own columns of these names make room."""
    return {f"pool_{name}" if name in ("score", "rank") else name: value for name, value in row.items()}
