"""What the arms selected: sources, lengths, overlap, and the rows at both ends of their rankings.

Reads as little as it can: ids and sources from the front of each line, a pool once, and the texts
of the rows shown.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import pandas
import pyarrow
import pyarrow.parquet

from rose.data.files import load
from rose.errors import one_line
from rose.report.arms import Arm
from rose.report.results import JobRecord

SHOWN = 10  # rows of each end
MOST_ARMS = 20
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
PARSE = json.JSONDecoder()


class RankedRow(NamedTuple):
    id: str
    source: str
    score: float
    messages: list[dict]
    rank: int | None = None


class JobSelection(NamedTuple):
    pool: str  # the stage's directory; "" where the job does not say
    ids: set[str]


@dataclass
class ArmSelection:
    """Rows, sources and lengths are those of the arm's first seed that has them, `job`."""

    label: str
    job: str
    rows: int
    chance: float  # the Jaccard overlap of two random choices of as many rows
    sources: dict[str, float]
    lengths: list[float] = field(default_factory=list)  # tokens at QUANTILES
    top: list[RankedRow] = field(default_factory=list)
    bottom: list[RankedRow] = field(default_factory=list)
    unscored: int = 0  # rows of the pool without a score
    pool: Path | None = None  # the file with the texts of `bottom`


@dataclass
class SweepSelections:
    arms: list[ArmSelection] = field(default_factory=list)
    pool_sources: dict[str, float] = field(default_factory=dict)
    pool_lengths: list[float] = field(default_factory=list)
    overlap: numpy.ndarray = field(default_factory=lambda: numpy.zeros((0, 0)))  # of `overlap`
    left_out: int = 0  # arms beyond MOST_ARMS
    problems: list[str] = field(default_factory=list)


def read_selections(arms: list[Arm], jobs: list[JobRecord]) -> SweepSelections:
    """The selections of the first MOST_ARMS arms that have one.

    Files that are missing leave their part empty.
    """
    selecting = {job.dir.name: job for job in jobs if (job.dir / "selected.jsonl").exists()}
    having: list[tuple[str, list[JobRecord]]] = []
    for arm in arms:
        members = [selecting[name] for name in arm.members if name in selecting]
        if members and arm.method != "zero_shot":
            having.append((arm.label, members))
    result = SweepSelections(left_out=max(0, len(having) - MOST_ARMS))
    having = having[:MOST_ARMS]
    chosen = _chosen([job for _, members in having for job in members], result.problems)
    for label, (job, *_) in having:
        _describe(label, job, chosen[job.dir.name], result)
    _read_pools(result)
    selected = {name: JobSelection(selecting[name].directory("pool"), set(ids)) for name, ids in chosen.items()}
    result.overlap = overlap([{job.value("seed"): selected[job.dir.name] for job in members} for _, members in having])
    return result


def overlap(arms: list[dict[Any, JobSelection]]) -> numpy.ndarray:
    """Mean Jaccard overlap [arms, arms] over common seeds; on the diagonal over pairs of seeds.

    Only selections from one pool are compared, NaN where there are none: an id of another pool is
    another row. `arms` are by seed.
    """
    matrix = numpy.full((len(arms), len(arms)), numpy.nan)
    for i, one in enumerate(arms):
        matrix[i, i] = _mean_overlap(combinations(one.values(), 2))
        for j, other in enumerate(arms[:i]):
            shared = ((one[seed], other[seed]) for seed in one.keys() & other.keys())
            matrix[i, j] = matrix[j, i] = _mean_overlap(shared)
    return matrix


def _mean_overlap(pairs: Iterable[tuple[JobSelection, JobSelection]]) -> float:
    values = [jaccard(one.ids, other.ids) for one, other in pairs if one.pool and one.pool == other.pool]
    return sum(values) / len(values) if values else math.nan


def jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other) if one or other else math.nan


def _chosen(jobs: list[JobRecord], problems: list[str]) -> dict[str, dict[str, str]]:
    """By job, the ids it selected, best first, with their sources; what jobs share is read once."""
    by_stage: dict[str, dict[str, str]] = {}
    result = {}
    for job in jobs:
        name = job.directory("selection") or str(job.dir)
        if name not in by_stage:
            by_stage[name] = {}
            try:
                with open(job.dir / "selected.jsonl", encoding="utf-8") as file:
                    by_stage[name] = dict(map(front, file))
            except (ValueError, KeyError, OSError) as error:
                problems.append(f"{job.dir.name}/selected.jsonl cannot be read: {one_line(error)}")
        result[job.dir.name] = by_stage[name]
    return result


def _describe(label: str, job: JobRecord, chosen: dict[str, str], result: SweepSelections) -> None:
    """Adds an arm's selection to `result`; the texts of its worst rows are still to be read."""
    selection = ArmSelection(label, job.dir.name, len(chosen), math.nan, _shares(Counter(chosen.values())))
    result.arms.append(selection)
    try:
        selection.top = [_row(values) for values in islice(load(job.dir / "selected.jsonl"), SHOWN)]
        scores = pyarrow.parquet.read_table(job.dir / "scores.parquet", columns=["id", "score", "length"]).to_pandas()
    except (ValueError, KeyError, OSError, pyarrow.ArrowException) as error:
        result.problems.append(f"{job.dir.name}: scores.parquet cannot be read: {one_line(error)}")
        return
    selection.unscored = int(scores["score"].isna().sum())
    part = selection.rows / len(scores)
    selection.chance = part / (2 - part)
    selection.lengths = _quantiles(scores["length"][scores["id"].isin(chosen.keys())])
    result.pool_lengths = result.pool_lengths or _quantiles(scores["length"])
    worst = scores.dropna(subset="score").sort_values(["score", "id"], ascending=[True, False]).head(SHOWN)
    selection.bottom = [RankedRow(row.id, "", row.score, []) for row in worst.itertuples()]
    if pool := job.stage("pool"):
        selection.pool = pool / "pool.jsonl"


def _read_pools(result: SweepSelections) -> None:
    """Reads each pool once: its sources, and the texts of the worst rows."""
    for path in filter(None, dict.fromkeys(arm.pool for arm in result.arms)):
        arms = [arm for arm in result.arms if arm.pool == path]
        wanted = {row.id for arm in arms for row in arm.bottom}
        sources: Counter[str] = Counter()
        texts: dict[str, RankedRow] = {}
        try:
            with open(path, encoding="utf-8") as file:
                for line in file:
                    identity, source = front(line)
                    sources[source] += 1
                    if identity in wanted:
                        texts[identity] = _row(json.loads(line))
        except (ValueError, KeyError, OSError) as error:
            result.problems.append(f"{path.parent.name}/{path.name} cannot be read: {one_line(error)}")
        result.pool_sources = result.pool_sources or _shares(sources)
        for arm in arms:
            arm.bottom = [texts.get(row.id, row)._replace(score=row.score, rank=None) for row in arm.bottom]


def front(line: str) -> tuple[str, str]:
    """Id and source of a row; the rest is not parsed where they stand first, as Rose writes it."""
    if line.startswith('{"id": "'):
        identity, end = PARSE.raw_decode(line, 7)
        if line.startswith(', "dataset": "', end):
            return identity, PARSE.raw_decode(line, end + 13)[0]
    row = json.loads(line)
    return str(row["id"]), str(row.get("dataset", ""))


def _row(values: dict[str, Any]) -> RankedRow:
    score = values.get("score")
    return RankedRow(
        id=str(values["id"]),
        source=str(values.get("dataset", "")),
        score=float(score) if isinstance(score, int | float) else math.nan,
        messages=[message for message in values.get("messages", []) if isinstance(message, dict)],
        rank=values.get("rank") if isinstance(values.get("rank"), int) else None,
    )


def _shares(counts: Counter[str]) -> dict[str, float]:
    return {name: count / counts.total() for name, count in counts.most_common()}


def _quantiles(lengths: pandas.Series) -> list[float]:
    return [float(value) for value in lengths.quantile(list(QUANTILES))] if len(lengths) else []
