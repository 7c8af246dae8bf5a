"""What the arms selected: sources, lengths, overlap, and the rows at both ends of their rankings.

Reads as little as it can: ids and sources from the front of each line, a pool once, and the texts
of the rows shown.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
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


@dataclass(frozen=True)
class RankedRow:
    id: str
    source: str
    score: float
    messages: list[dict]
    rank: int | None = None


class JobSelection(NamedTuple):
    pool: str | None  # the stage's directory
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


@dataclass
class SweepSelections:
    arms: list[ArmSelection] = field(default_factory=list)
    pool_sources: dict[str, float] = field(default_factory=dict)
    pool_lengths: list[float] = field(default_factory=list)
    overlap: numpy.ndarray = field(default_factory=lambda: numpy.zeros((0, 0)))  # of `overlap`
    left_out: int = 0  # arms beyond MOST_ARMS
    problems: list[str] = field(default_factory=list)


class Selecting(NamedTuple):
    """An arm's jobs that have selected."""

    label: str
    jobs: list[JobRecord]


def read_selections(arms: list[Arm], jobs: list[JobRecord]) -> SweepSelections:
    """The selections of the first MOST_ARMS arms that have one.

    Files that are missing leave their part empty.
    """
    selecting = {job.dir.name: job for job in jobs if (job.dir / "selected.jsonl").exists()}
    tuned = [arm for arm in arms if arm.method != "zero_shot"]
    having = [Selecting(arm.label, [selecting[name] for name in arm.members if name in selecting]) for arm in tuned]
    having = [arm for arm in having if arm.jobs]
    result = SweepSelections(left_out=max(0, len(having) - MOST_ARMS))
    having = having[:MOST_ARMS]
    chosen = _chosen([job for arm in having for job in arm.jobs], result.problems)
    wanted: dict[Path, set[str]] = {}
    for arm in having:
        _describe(arm, chosen[arm.jobs[0].dir.name], result, wanted)
    _from_pools(having, wanted, result)
    result.overlap = overlap([{job.value("seed"): _of_job(job, chosen) for job in arm.jobs} for arm in having])
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


def _of_job(job: JobRecord, chosen: dict[str, dict[str, str]]) -> JobSelection:
    return JobSelection(job.stages.get("pool", {}).get("dir"), set(chosen[job.dir.name]))


def _mean_overlap(pairs: Iterable[tuple[JobSelection, JobSelection]]) -> float:
    values = [jaccard(one.ids, other.ids) for one, other in pairs if one.pool is not None and one.pool == other.pool]
    return sum(values) / len(values) if values else math.nan


def jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other) if one or other else math.nan


def _chosen(jobs: list[JobRecord], problems: list[str]) -> dict[str, dict[str, str]]:
    """By job, the ids it selected, best first, with their sources; what jobs share is read once."""
    by_stage: dict[str, dict[str, str]] = {}
    result = {}
    for job in jobs:
        name = job.stages.get("selection", {}).get("dir") or str(job.dir)
        if name not in by_stage:
            by_stage[name] = {}
            try:
                with open(job.dir / "selected.jsonl", encoding="utf-8") as file:
                    by_stage[name] = dict(map(front, file))
            except (ValueError, KeyError, OSError) as error:
                problems.append(f"{job.dir.name}/selected.jsonl cannot be read: {one_line(error)}")
        result[job.dir.name] = by_stage[name]
    return result


def _describe(arm: Selecting, chosen: dict[str, str], result: SweepSelections, wanted: dict[Path, set[str]]) -> None:
    """Adds the arm's selection to `result`, and to `wanted` the rows of its pool to be read."""
    job = arm.jobs[0]
    selection = ArmSelection(arm.label, job.dir.name, len(chosen), math.nan, _shares(Counter(chosen.values())))
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
        wanted.setdefault(pool / "pool.jsonl", set()).update(worst["id"])


def _from_pools(having: list[Selecting], wanted: dict[Path, set[str]], result: SweepSelections) -> None:
    """Reads each pool once: its sources, and the texts of the worst rows."""
    texts: dict[Path, dict[str, RankedRow]] = {path: {} for path in wanted}
    for path, ids in wanted.items():
        sources: Counter[str] = Counter()
        try:
            with open(path, encoding="utf-8") as file:
                for line in file:
                    identity, source = front(line)
                    sources[source] += 1
                    if identity in ids:
                        texts[path][identity] = _row(json.loads(line))
        except (ValueError, KeyError, OSError) as error:
            result.problems.append(f"{path.parent.name}/{path.name} cannot be read: {one_line(error)}")
        result.pool_sources = result.pool_sources or _shares(sources)
    for selection, arm in zip(result.arms, having, strict=True):
        pool = arm.jobs[0].stage("pool")
        rows = texts.get(pool / "pool.jsonl", {}) if pool else {}
        selection.bottom = [
            replace(rows[row.id], score=row.score, rank=None) if row.id in rows else row for row in selection.bottom
        ]


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
