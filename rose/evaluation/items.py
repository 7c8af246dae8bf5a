"""What every evaluating stage leaves: metrics.json, and items.parquet with one row a test item.

The unit of all their means is the prompt: items that share one, such as the pairs of a question with
many answers, are not independent, so each prompt weighs the same whatever the number of its items.
A report has the same unit, and resamples it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy
import pandas
from numpy.typing import ArrayLike

from rose.data.chat import Message
from rose.stages.disk import write_json

COLUMNS = ["id", "prompt", "subtask"]


class Item(NamedTuple):
    """What a test item is called."""

    id: str
    prompt: str  # the unit of means and intervals
    subtask: str


def prompt_text(messages: Sequence[Message]) -> str:
    """The prompt as text: a single message's content, else each message after its role."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def write_items(out: Path, items: Sequence[Item], columns: Mapping[str, ArrayLike], more: Mapping[str, float]) -> None:
    """Writes items.parquet, a float column a metric, NaN where an item has none; and metrics.json.

    The metric of a column's name is the mean over prompts of the means of their known values, if it
    has any. `more` are the metrics that are no mean over items.
    """
    values = {name: numpy.asarray(column, dtype=numpy.float64) for name, column in columns.items()}
    frame = pandas.DataFrame(items, columns=COLUMNS).astype("str").assign(**values)
    frame.to_parquet(out / "items.parquet", index=False)
    by_prompt = numpy.asarray(pandas.DataFrame(values).groupby(frame["prompt"]).mean()).T
    known = {name: column[~numpy.isnan(column)] for name, column in zip(values, by_prompt, strict=True)}
    means = {name: float(column.mean()) for name, column in known.items() if len(column)}
    write_json(out / "metrics.json", means | dict(more))


def merge_items(paths: Sequence[Path]) -> pandas.DataFrame:
    """Several stages' items side by side: the union of rows, NaN where a stage has none."""
    merged = pandas.DataFrame({name: pandas.Series(dtype="str") for name in COLUMNS})
    for path in paths:
        merged = merged.merge(pandas.read_parquet(path), how="outer", on=COLUMNS, sort=False)
    return merged
