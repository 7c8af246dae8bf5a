"""What every evaluating stage leaves: metrics.json, and items.parquet with one row a test item."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy
import pandas

from rose.stages.disk import write_json

COLUMNS = ["id", "prompt", "subtask"]


class Item(NamedTuple):
    """What a test item is called. `prompt` is the unit that is resampled: items that share it are not independent."""

    id: str
    prompt: str
    subtask: str


def prompt_text(messages: Sequence[dict]) -> str:
    """The prompt as text: a single message's content, else each message after its role."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def write_items(out: Path, items: Sequence[Item], columns: dict[str, Sequence[float]], more: dict[str, float]) -> None:
    """Writes items.parquet, a float column a metric, NaN where an item has none; and metrics.json.

    The flat metric of a column's name is the mean of its known values; a column without any has no metric. `more` are
    the metrics that are no mean over items.
    """
    frame = pandas.DataFrame(items, columns=COLUMNS).astype("str")
    values = {name: numpy.asarray(column, dtype=numpy.float64) for name, column in columns.items()}
    frame.assign(**values).to_parquet(out / "items.parquet", index=False)
    means = {name: float(numpy.nanmean(known)) for name, known in values.items() if not numpy.isnan(known).all()}
    write_json(out / "metrics.json", means | more)


def merge_items(paths: Sequence[Path]) -> pandas.DataFrame:
    """Several stages' items side by side, by what the items are called: the union of rows, NaN where one has none."""
    merged = pandas.DataFrame({name: pandas.Series(dtype="str") for name in COLUMNS})
    for path in paths:
        merged = merged.merge(pandas.read_parquet(path), how="outer", on=COLUMNS, sort=False)
    return merged
