"""The scores stage: representation × rule → one score a pool row."""

import logging
from pathlib import Path

import numpy
import pandas
from datasets import load_from_disk

from rose.artifacts import stage
from rose.config import Method, Representation
from rose.methods import gradient, rules

log = logging.getLogger(__name__)

INFLUENCE = {
    Representation.gradients: gradient.influence,
    Representation.none: None,
}


@stage("scores", version=1)
def score(out: Path, method: Method, tokens: Path, representation: tuple) -> None:
    """Writes scores.parquet: id, score, one column per subtask, length (tokens); rows without a score hold NaN.

    `representation` is what the method's representation is made of, upstream: nothing, or its artifacts.
    """
    rows = load_from_disk(str(tokens / "rows"))
    table = pandas.DataFrame({"id": rows["id"], "length": [len(ids) for ids in rows["input_ids"]]})
    influence = INFLUENCE[method.representation]
    if influence is not None:
        values, subtasks = influence(method, table["id"].tolist(), *representation)
    else:
        values, subtasks = numpy.zeros((len(table), 0)), []
    columns, table["score"] = rules.RULES[method.rule](method, table["id"].tolist(), values, subtasks)
    table = table.join(columns)[["id", "score", *columns.columns, "length"]]
    missing = int(table["score"].isna().sum())
    if missing:
        log.warning("%d of %d rows have no score and cannot be selected", missing, len(table))
    table.to_parquet(out / "scores.parquet", index=False)
