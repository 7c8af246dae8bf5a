"""What the arms selected: sources, lengths, overlap, and the rows at both ends of their rankings.

Reads as little as it can: ids and sources from the front of each line, a pool once, and texts of the rows shown.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import pandas
import pyarrow
import pyarrow.parquet

from rose.errors import one_line
from rose.report.arms import Arm
from rose.report.results import JobRecord

SHOWN = 10  # rows of each end
MOST_ARMS = 20
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
PARSE = json.JSONDecoder()


@dataclass(frozen=True)
class Row:
    id: str
    source: str
    score: float
    messages: list[dict]
    rank: int | None = None


class Taken(NamedTuple):
    """What one job selected."""

    pool: str | None  # the stage's directory
    ids: set[str]


@dataclass
class Selection:
    """Of one arm; rows, sources and lengths are those of its first seed that has them, `job`."""

    label: str
    job: str
    rows: int
    chance: float  # the Jaccard overlap of two random choices of as many rows
    sources: dict[str, float]
    lengths: list[float] = field(default_factory=list)  # tokens at QUANTILES
    top: list[Row] = field(default_factory=list)
    bottom: list[Row] = field(default_factory=list)
    unscored: int = 0  # rows of the pool without a score


@dataclass
class Selections:
    arms: list[Selection] = field(default_factory=list)
    pool_sources: dict[str, float] = field(default_factory=dict)
    pool_lengths: list[float] = field(default_factory=list)
    # Mean Jaccard overlap [arms, arms] of the same seed, on the diagonal of different seeds; NaN without a shared pool.
    overlap: numpy.ndarray = field(default_factory=lambda: numpy.zeros((0, 0)))
    left_out: int = 0  # arms beyond MOST_ARMS
    problems: list[str] = field(default_factory=list)


def read_selections(arms: list[Arm], jobs: list[JobRecord]) -> Selections:
    """The selections of the first MOST_ARMS arms that have one; files that are missing leave their part empty."""
    named = {job.dir.name: job for job in jobs}
    members = [[named[name] for name in arm.members if name in named] for arm in arms if arm.method != "zero_shot"]
    labels = [arm.label for arm in arms if arm.method != "zero_shot"]
    having = [
        (label, found)
        for label, own in zip(labels, members, strict=True)
        if (found := [job for job in own if (job.dir / "selected.jsonl").exists()])
    ]
    result = Selections(left_out=max(0, len(having) - MOST_ARMS))
    having = having[:MOST_ARMS]
    chosen = _chosen(having, result.problems)
    wanted: dict[Path, set[str]] = {}
    for label, own in having:
        _describe(label, own[0], chosen[own[0].dir.name], result, wanted)
    _from_pools(having, wanted, result)
    result.overlap = overlap([{job.value("seed"): _taken(job, chosen) for job in own} for _, own in having])
    return result


def overlap(arms: list[dict[Any, Taken]]) -> numpy.ndarray:
    """Mean Jaccard overlap between arms, by seed, over their common seeds, and within each arm over its pairs of seeds.

    Only what was taken from one pool is compared: an id of another pool is another row.
    """
    matrix = numpy.full((len(arms), len(arms)), numpy.nan)
    for i, one in enumerate(arms):
        matrix[i, i] = _mean_overlap(combinations(one.values(), 2))
        for j, other in enumerate(arms[:i]):
            shared = ((one[seed], other[seed]) for seed in one.keys() & other.keys())
            matrix[i, j] = matrix[j, i] = _mean_overlap(shared)
    return matrix


def _taken(job: JobRecord, chosen: dict[str, dict[str, str]]) -> Taken:
    return Taken(job.stages.get("pool", {}).get("dir"), set(chosen[job.dir.name]))


def _mean_overlap(pairs: Iterable[tuple[Taken, Taken]]) -> float:
    values = [jaccard(one.ids, other.ids) for one, other in pairs if one.pool is not None and one.pool == other.pool]
    return sum(values) / len(values) if values else math.nan


def jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other) if one or other else math.nan


def _chosen(having: list[tuple[str, list[JobRecord]]], problems: list[str]) -> dict[str, dict[str, str]]:
    """By job, the ids it selected, best first, with their sources; a selection that jobs share is read once."""
    known: dict[str, dict[str, str]] = {}
    result = {}
    for _, own in having:
        for job in own:
            name = job.stages.get("selection", {}).get("dir") or str(job.dir)
            if name not in known:
                known[name] = {}
                try:
                    known[name] = dict(fronts(job.dir / "selected.jsonl"))
                except (ValueError, KeyError, OSError) as error:
                    problems.append(f"{job.dir.name}/selected.jsonl cannot be read: {one_line(error)}")
            result[job.dir.name] = known[name]
    return result


def _describe(
    label: str, job: JobRecord, chosen: dict[str, str], result: Selections, wanted: dict[Path, set[str]]
) -> None:
    """Adds the arm's selection to `result`, and to `wanted` the rows of its pool that are to be read."""
    arm = Selection(label, job.dir.name, len(chosen), math.nan, _shares(Counter(chosen.values())))
    result.arms.append(arm)
    try:
        with open(job.dir / "selected.jsonl", encoding="utf-8") as file:
            arm.top = [_row(json.loads(line)) for _, line in zip(range(SHOWN), file, strict=False)]
        scores = pyarrow.parquet.read_table(job.dir / "scores.parquet", columns=["id", "score", "length"]).to_pandas()
    except (ValueError, KeyError, OSError, pyarrow.ArrowException) as error:
        result.problems.append(f"{job.dir.name}: scores.parquet cannot be read: {one_line(error)}")
        return
    arm.unscored = int(scores["score"].isna().sum())
    part = arm.rows / len(scores)
    arm.chance = part / (2 - part)
    arm.lengths = _quantiles(scores["length"][scores["id"].isin(chosen.keys())])
    result.pool_lengths = result.pool_lengths or _quantiles(scores["length"])
    worst = scores.dropna(subset="score").sort_values(["score", "id"], ascending=[True, False]).head(SHOWN)
    arm.bottom = [Row(row.id, "", row.score, []) for row in worst.itertuples()]
    if pool := job.stage("pool"):
        wanted.setdefault(pool / "pool.jsonl", set()).update(worst["id"])


def _from_pools(having: list[tuple[str, list[JobRecord]]], wanted: dict[Path, set[str]], result: Selections) -> None:
    """Reads each pool once: its sources, and the texts of the worst rows."""
    texts: dict[Path, dict[str, Row]] = {path: {} for path in wanted}
    for path, ids in wanted.items():
        sources: Counter = Counter()
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
    for arm, (_, own) in zip(result.arms, having, strict=True):
        pool = own[0].stage("pool")
        known = texts.get(pool / "pool.jsonl", {}) if pool else {}
        arm.bottom = [
            Row(row.id, known[row.id].source, row.score, known[row.id].messages) if row.id in known else row
            for row in arm.bottom
        ]


def fronts(path: Path) -> Iterator[tuple[str, str]]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield front(line)


def front(line: str) -> tuple[str, str]:
    """Id and source of a row; without parsing the conversation where they stand first, as Rose writes them."""
    if line.startswith('{"id": "'):
        identity, end = PARSE.raw_decode(line, 7)
        if line.startswith(', "dataset": "', end):
            return identity, PARSE.raw_decode(line, end + 13)[0]
    row = json.loads(line)
    return str(row["id"]), str(row.get("dataset", ""))


def _row(values: dict) -> Row:
    score = values.get("score")
    return Row(
        id=str(values["id"]),
        source=str(values.get("dataset", "")),
        score=float(score) if isinstance(score, int | float) else math.nan,
        messages=[message for message in values.get("messages", []) if isinstance(message, dict)],
        rank=values.get("rank") if isinstance(values.get("rank"), int) else None,
    )


def _shares(counts: Counter) -> dict[str, float]:
    return {name: count / counts.total() for name, count in counts.most_common()}


def _quantiles(lengths: pandas.Series) -> list[float]:
    return [float(value) for value in lengths.quantile(list(QUANTILES))] if len(lengths) else []
