"""What each test item was worth: the jobs' items.parquet with items and prompts numbered as one."""

from collections.abc import Iterable
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet

from rose.errors import one_line
from rose.report.results import JobRecord

KEYS = ["id", "prompt", "subtask"]
Table = dict[str, numpy.ndarray]  # "item": numbers, ascending; then a column of values a metric


class Items:
    """Numbers for the items and prompts of all jobs: equal ones are the same item of any job."""

    def __init__(self) -> None:
        self._items: dict[tuple[str, str, str], int] = {}
        self._prompts: dict[str, int] = {}
        self._prompt_of: list[int] = []
        self.problems: list[str] = []  # files that cannot be read, a line each

    def prompts(self, items: numpy.ndarray) -> numpy.ndarray:
        """The number of each item's prompt."""
        return numpy.array(self._prompt_of)[items]

    def read(self, paths: Iterable[Path]) -> Table:
        """The items of several stages or of a job, with all files' metrics; empty without files."""
        tables = [table for path in paths if path.exists() and (table := self._read(path))]
        if len(tables) < 2:
            return tables[0] if tables else {}
        items = all_items(tables)
        merged: Table = {"item": items}
        for table in tables:
            for name in table.keys() - merged.keys():
                merged[name] = align(table, name, items)
        return merged

    def _read(self, path: Path) -> Table:
        try:
            frame = pyarrow.parquet.read_table(path).to_pandas()
            numbers = numpy.array([self._number(*key) for key in zip(*(frame[key] for key in KEYS), strict=True)], int)
        except (OSError, KeyError, pyarrow.ArrowException) as error:
            self.problems.append(f"{path.parent.name}/{path.name} cannot be read: {one_line(error)}")
            return {}
        items, first = numpy.unique(numbers, return_index=True)
        columns = frame.drop(columns=KEYS).select_dtypes("number")
        return {"item": items} | {name: columns[name].to_numpy(float)[first] for name in columns}

    def _number(self, identity: str, prompt: str, subtask: str) -> int:
        key = (identity, prompt, subtask)
        if key not in self._items:
            self._items[key] = len(self._prompt_of)
            self._prompt_of.append(self._prompts.setdefault(prompt, len(self._prompts)))
        return self._items[key]


def all_items(tables: Iterable[Table]) -> numpy.ndarray:
    return numpy.unique(numpy.concatenate([table["item"] for table in tables]))


def align(table: Table, metric: str, items: numpy.ndarray) -> numpy.ndarray:
    """The values of a metric for `items`, NaN where the table has none."""
    values = numpy.full(len(items), numpy.nan)
    _, theirs, ours = numpy.intersect1d(table["item"], items, assume_unique=True, return_indices=True)
    values[ours] = table[metric][theirs]
    return values


def read_items(jobs: list[JobRecord], items: Items) -> tuple[dict[str, Table], dict[str, Table]]:
    """The items of each job, and of the base model as it was measured against, by job name."""
    tuned = {job.dir.name: items.read([job.dir / "items.parquet"]) for job in jobs}
    by_stages: dict[tuple[Path, ...], Table] = {}
    base = {}
    for job in jobs:
        stages = tuple(path for name in job.stages if name.startswith("zero_shot") and (path := job.stage(name)))
        if stages not in by_stages:
            by_stages[stages] = items.read(path / "items.parquet" for path in stages)
        base[job.dir.name] = by_stages[stages]
    return tuned, base
