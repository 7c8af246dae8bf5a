"""Candidates: the rows that a cheap method leaves to an expensive one, and their scores in the whole pool."""

import logging
from pathlib import Path
from typing import Any

import numpy
import pandas
from safetensors import safe_open
from safetensors.numpy import save_file

from rose.config.choices import Lesson
from rose.config.schema import Config
from rose.data import files
from rose.data.chat import save_rows
from rose.data.planting import faults_in
from rose.errors import RoseError
from rose.methods.hidden import token_rows
from rose.methods.scores import table_of
from rose.methods.selection import best_first
from rose.shares import rounded
from rose.stages.disk import write_lines
from rose.stages.graph import stage

log = logging.getLogger(__name__)


def leave_enough(config: Config, tokens: Path) -> None:
    """Raises RoseError where more rows are to be selected than can be candidates, as soon as there are `tokens`."""
    asked, share = config.selection.count, config.candidates.share
    selects = config.candidates.method is not None and config.method.lesson is Lesson.selection
    if asked and selects and tokens.exists():
        rows = len(token_rows(tokens))
        if asked > (most := rounded(share, rows)):
            few = f"more rows than candidates.share={share} of {rows} rows leaves"
            raise RoseError(f"selection.count={asked}: {few}; must be at most {most}, or candidates=none")


@stage("candidates", version=1)
def best_share(out: Path, share: float, scores: Path, tokens: Path, pool: Path) -> None:
    """Writes what `tokenize` and `read_pool` write, of the best-scored rows alone, in the pool's order.

    They are `share` of the rows that could be tokenised, at least one, ties broken by id; fewer
    where fewer have a score. Raises RoseError where none has.
    """
    table = pandas.read_parquet(scores / "scores.parquet", columns=["id", "score"])
    count = rounded(share, len(table))
    best = set(best_first(table)["id"].head(count))
    if not best:
        raise RoseError("candidates: no row of the pool has a score by candidates.method, so none is a candidate")
    rows = token_rows(tokens)
    kept: Any = rows.select([number for number, name in enumerate(rows["id"][:]) if name in best])
    save_rows(out, iter(kept))
    write_lines(out / "pool.jsonl", (row for row in files.load(pool / "pool.jsonl") if row["id"] in best))
    log.info("candidates: %d of %d rows", len(best), len(table))
    if len(best) < count:
        log.warning("candidates: %d rows, not %d: no other row has a score", len(best), count)


@stage("scores_in_pool", version=1)
def scores_in_pool(out: Path, scores: Path, tokens: Path, planted: Path | None = None) -> None:
    """Writes what `scores` writes, of the pool whose candidates have these `scores`, and a column `candidate`.

    A row that is no candidate has no score and no influence.
    """
    of_candidates = pandas.read_parquet(scores / "scores.parquet")
    rows = table_of(tokens)
    table = pandas.merge(rows.loc[:, ["id"]], of_candidates.drop(columns="length"), how="left", on="id")
    places = pandas.Index(rows["id"]).get_indexer(pandas.Index(of_candidates["id"]))
    table["length"], table["candidate"] = rows["length"], table["id"].isin(of_candidates["id"].tolist())
    if planted:
        table["planted"] = faults_in(planted, rows["id"])
    table.to_parquet(out / "scores.parquet", index=False)
    with safe_open(scores / "influence.safetensors", "numpy") as stored:
        found, named = stored.get_tensor("values"), stored.metadata()
    values = numpy.full((len(table), found.shape[1]), numpy.nan, dtype=numpy.float32)
    values[places] = found
    save_file({"values": values}, out / "influence.safetensors", named)
