"""The instruction pool: any of the usual formats in, one row format out."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

from rose.config.data import Dataset
from rose.data import files, world
from rose.data.bad_rows import BadRow, kind
from rose.data.files import FileRow, Location
from rose.data.messages import is_answer, numbered, says_something
from rose.data.pool_layouts import conversations
from rose.data.rows import PoolRow
from rose.data.sources import Split
from rose.errors import RoseError
from rose.seeds import numpy_generator
from rose.stages.disk import replace, write_lines
from rose.stages.graph import stage

log = logging.getLogger(__name__)


def fingerprint(dataset: Dataset) -> str:
    """Tells contents apart: `source` of `read_pool`."""
    return "world" if dataset.world is not None else files.fingerprint(_source(dataset))


def try_layout(dataset: Dataset) -> None:
    """Raises RoseError where the first rows of a local file could not be read."""
    if dataset.world is None:
        files.try_first(_source(dataset), parse, "dataset.on_bad_row", dataset.on_bad_row)


@stage("pool", version=3)
def read_pool(out: Path, dataset: Dataset, source: str) -> None:
    """Writes pool.jsonl, a PoolRow a line; on_bad_row=skip adds skipped.jsonl.

    Rows without id or dataset get `<file>-<line>` and what `rose.data.sources` calls their file.
    Memory: one row, and every id. `source` is `fingerprint(dataset)`. Raises RoseError for a
    missing source, a bad row or an empty pool.
    """
    path, skipped = out / "pool.jsonl", out / "skipped.jsonl"
    lines: dict[str, list[int]] = defaultdict(list)
    others: Counter[str] = Counter()
    ends: Counter[str] = Counter()

    def counted() -> Iterator[PoolRow]:
        rows = files.sift(_rows(dataset), parse, "dataset.on_bad_row", dataset.on_bad_row, skipped)
        for number, row in enumerate(rows):
            lines[row["dataset"]].append(number)
            others.update(row.keys() - PoolRow.__annotations__.keys())
            ends.update([row["messages"][-1]["role"]])
            yield row

    write_lines(path, counted())
    count = sum(map(len, lines.values()))
    bad = files.count(skipped)
    if bad:
        log.warning("pool: skipped %d bad rows; they are listed in %s", bad, skipped.name)
    if not count:
        raise RoseError(f"dataset.path={dataset.path}: the pool is empty ({bad} bad rows skipped)")
    if dataset.per_source is not None:
        count = _thin(path, lines, dataset.per_source, dataset.seed)
    log.info("pool: %d rows of %s", count, ", ".join(lines))
    if asking := ends.total() - ends["assistant"]:
        what = "end in a turn that is not the assistant's: what follows their last answer is not learned"
        log.warning("pool: %d of %d rows %s", asking, ends.total(), what)
    if others:
        log.info("pool: columns that are kept, but shown to no model: %s", files.counts(others))


def parse(row: FileRow) -> list[PoolRow]:
    """The pool rows that `row` stands for: one, or one an answer, then called ID-1, ID-2, … Raises BadRow."""
    values = dict(row.values)
    values.pop("id", None)
    origin = values.pop("dataset", None)
    found = conversations(values)  # leaves the other columns
    for messages in found:
        if not any(map(says_something, messages)):
            raise BadRow("has no answer: no assistant message with text")
        if not any(map(is_answer, messages)):
            raise BadRow("has no answer to learn: each has weight 0 or train=false")
    if origin is not None and not isinstance(origin, str):
        raise BadRow(f"dataset is {kind(origin)}: must be a text")
    for name in ("planted", "control"):  # ours say what `plant` does (rose.data.planting)
        if name in values:
            values[f"pool_{name}"] = values.pop(name)
    named, source = zip(numbered(files.row_id(row), len(found)), found, strict=True), origin or row.source
    return [cast(PoolRow, {"id": name, "dataset": source, "messages": messages, **values}) for name, messages in named]


def _thin(path: Path, lines: dict[str, list[int]], per_source: int, seed: int) -> int:
    """Leaves at most so many rows of each source, in order; fewer are a subset of the same draw."""
    picks: set[int] = set()
    for source, numbers in lines.items():
        order = numpy_generator(seed, f"pool {source}").permutation(len(numbers))
        picks.update(numbers[index] for index in order[:per_source])

    def write(part: Path) -> None:
        with open(path, encoding="utf-8") as whole, open(part, "w", encoding="utf-8") as file:
            file.writelines(line for number, line in enumerate(whole) if number in picks)

    replace(path, write)
    return len(picks)


def _rows(dataset: Dataset) -> Iterable[FileRow]:
    if dataset.world is not None:
        return files.numbered("world", world.pool(dataset.world))
    return files.read_rows(_source(dataset))


def _source(dataset: Dataset) -> Location:
    return Location("dataset.path", dataset.path, list(dataset.files), dataset.revision, Split.train)
