"""The instruction pool: any of the usual formats in, one row format out."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from rose.config.data import Dataset
from rose.data import files, world
from rose.data.bad_rows import BadRow
from rose.data.files import FileRow, Location
from rose.data.messages import as_messages, as_prompt, followed, given, is_answer, kind, opened
from rose.data.rows import Message, PoolRow
from rose.data.sources import Split
from rose.errors import RoseError
from rose.seeds import numpy_generator
from rose.stages.disk import replace, write_lines
from rose.stages.graph import stage

log = logging.getLogger(__name__)


def fingerprint(dataset: Dataset) -> str:
    """Tells contents apart: `source` of `read_pool`."""
    return "world" if dataset.world is not None else files.fingerprint(_source(dataset))


@stage("pool", version=2)
def read_pool(out: Path, dataset: Dataset, source: str) -> None:
    """Writes pool.jsonl, a PoolRow a line; on_bad_row=skip adds skipped.jsonl.

    Rows without id or dataset get `<file>-<line>` and what `rose.data.sources` calls their file.
    Memory: one row, and every id. `source` is `fingerprint(dataset)`. Raises RoseError for a
    missing source, a bad row or an empty pool.
    """
    path, skipped = out / "pool.jsonl", out / "skipped.jsonl"
    lines: dict[str, list[int]] = defaultdict(list)
    others: Counter[str] = Counter()

    def counted() -> Iterator[PoolRow]:
        rows = files.sift(_rows(dataset), parse, "dataset.on_bad_row", dataset.on_bad_row, skipped)
        for number, row in enumerate(rows):
            lines[row["dataset"]].append(number)
            others.update(row.keys() - PoolRow.__annotations__.keys())
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
    if others:
        log.info("pool: columns that are kept, but shown to no model: %s", files.counts(others))


def parse(row: FileRow) -> list[PoolRow]:
    """The pool row that `row` stands for, alone in a list. Raises BadRow."""
    values = dict(row.values)
    values.pop("id", None)
    origin = values.pop("dataset", None)
    messages = _messages(values)
    if not any(message["role"] == "assistant" and message["content"].strip() for message in messages):
        raise BadRow("has no answer: no assistant message with text")
    if not any(map(is_answer, messages)):
        raise BadRow("has no answer to learn: each has weight 0 or train=false")
    if origin is not None and not isinstance(origin, str):
        raise BadRow(f"dataset is {kind(origin)}: must be a text")
    for name in ("planted", "control"):  # ours say what `plant` does (rose.data.planting)
        if name in values:
            values[f"pool_{name}"] = values.pop(name)
    return [cast(PoolRow, {"id": files.row_id(row), "dataset": origin or row.source, "messages": messages, **values})]


def _messages(values: dict[str, Any]) -> list[Message]:
    """Takes the conversation out of `values`, which keep the other columns."""
    _liked(values)
    if values.get("messages") is not None:
        return opened(values, as_messages(values.pop("messages"), "messages"), whole=True)
    values.pop("messages", None)
    if {"prompt", "completion"} <= values.keys():
        prompt = opened(values, as_prompt(values.pop("prompt"), "prompt"))
        return followed(prompt, as_messages(values.pop("completion"), "completion", "assistant"), "completion")
    answer = next((name for name in ("output", "response") if name in values), None)
    if "instruction" in values and answer:
        question = opened(values, as_prompt(values.pop("instruction"), "instruction"))
        for name in ("input", "context"):
            text = values.pop(name, None)
            if given(text):
                question[-1]["content"] += "\n\n" + as_messages(text, name, "user")[0]["content"]
        return question + as_messages(values.pop(answer), answer, "assistant")
    raise BadRow(
        "needs messages, or prompt and completion, or instruction and output (or response); "
        f"found {', '.join(values) or 'no columns'}"
    )


def _liked(values: dict[str, Any]) -> None:
    """Raises BadRow for an answer marked as a bad one, as KTO's data have them."""
    labelled = ("label",) if {"prompt", "completion"} <= values.keys() else ()
    for name in (*labelled, "kto_tag"):
        if str(values.get(name)).strip().lower() in ("false", "0"):
            remedy = "a pool has answers to learn; leave such rows out, or rename the column if it means something else"
            raise BadRow(f"{name} is {kind(values[name])}, which marks the answer as a bad one: {remedy}")


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
