"""The scores stage: representation × rule → one score a pool row."""

import json
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy
import pandas
import pyarrow
from pyarrow import parquet

from rose.config.choices import Representation
from rose.config.schema import Method
from rose.data.planting import faults_in
from rose.methods import answer_states, embedding, gradient, hidden, lexical, losses
from rose.methods.influence import Influence, column, lengths, nothing, rewards
from rose.methods.rules import OF_ONE_ROW, RULES
from rose.models.batching import IGNORED
from rose.stages.graph import stage

log = logging.getLogger(__name__)

BATCH = 10_000  # rows whose tokens are counted at once
GROUP = 1 << 20  # rows that a parquet file has together, as pyarrow writes them

INFLUENCE: dict[Representation, Callable[..., Influence]] = {  # (method, rows, *representation)
    Representation.gradients: gradient.influence,
    Representation.readout: gradient.influence,
    Representation.hidden: hidden.influence,
    Representation.answer_states: answer_states.influence,
    Representation.embeddings: embedding.influence,
    Representation.words: lexical.bm25,
    Representation.ngrams: lexical.dsir,
    Representation.lengths: lengths,
    Representation.perplexity: losses.perplexity,
    Representation.ifd: losses.ifd,
    Representation.loss_drop: losses.loss_drop,
    Representation.reward: rewards,
    Representation.column: column,
    Representation.none: nothing,
}


@stage("scores", version=5)
def score(out: Path, method: Method, tokens: Path, representation: tuple, planted: Path | None = None) -> None:
    """Writes scores.parquet: id, score (NaN: none), a column a subtask, length (tokens).

    Of a `planted` pool, whose artifact that is, also the fault a row has, if any, as `planted`.

    influence.safetensors holds what they were made of: values, float32 [rows, targets], and
    subtasks as metadata. `representation` is the artifacts that the method's is made of, if any.
    """
    rows: Any = table_of(tokens)
    influence = INFLUENCE[method.representation](method, rows, *representation)
    parts = _parts(len(rows), influence.step) if method.rule in OF_ONE_ROW else [(0, len(rows))]
    shape, missing = (len(rows), len(influence.subtasks)), 0
    faults = faults_in(planted, rows["id"]) if planted else None
    with _Parquet(out / "scores.parquet", ["planted"]) as table, open(out / "influence.safetensors", "wb") as file:
        file.write(_header(shape, {"subtasks": json.dumps(influence.subtasks)}))
        for start, stop in parts:
            some, its = rows[start:stop].reset_index(drop=True), influence.part(start, stop) if parts[1:] else influence
            columns, some["score"] = RULES[method.rule](method, some, its)
            missing += int(some.score.isna().sum())
            scored = pandas.concat([some[["id", "score"]], columns, some[["length"]]], axis=1)
            if faults is not None:
                scored["planted"] = faults[start:stop]
            table.write(scored)
            file.write(numpy.ascontiguousarray(its.values, dtype="<f4").data)
    if missing:
        log.warning("%d of %d rows have no score and cannot be selected", missing, len(rows))


def _parts(count: int, step: int) -> list[tuple[int, int]]:
    """Rows start to stop of each part; the last has what is left over too."""
    starts = range(0, max(1, count - count % step), step)
    return list(zip(starts, [*starts[1:], count], strict=True))


class _Parquet:
    """Writes tables one after another into the bytes that `DataFrame.to_parquet` makes of all of them at once.

    `texts` are columns that may be text in some rows alone: a table without any would have them of another type.
    """

    def __init__(self, path: Path, texts: Sequence[str]) -> None:
        self.path, self.texts, self.rows = path, texts, 0
        self.columns: dict[str, list[pyarrow.Array]] = defaultdict(list)  # what waits until a group is full
        self.writer: parquet.ParquetWriter | None = None

    def __enter__(self) -> "_Parquet":
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None and self.rows:
            self._flush()
        if self.writer is not None:
            self.writer.close()

    def write(self, table: pandas.DataFrame) -> None:
        if self.writer is None:
            text = numpy.full(len(table), "", dtype=object)
            example = table.assign(**{name: text for name in self.texts if name in table})
            schema = pyarrow.Schema.from_pandas(example, preserve_index=False)
            self.writer = parquet.ParquetWriter(self.path, schema)
        found = pyarrow.Table.from_pandas(table, schema=self.writer.schema, preserve_index=False)
        while len(found):
            some, found = found[: GROUP - self.rows], found[GROUP - self.rows :]
            for name in some.column_names:
                self.columns[name].append(pyarrow.concat_arrays(some[name].chunks))  # a copy, lest all of `table` wait
            self.rows += len(some)
            if self.rows == GROUP:
                self._flush()

    def _flush(self) -> None:
        assert self.writer is not None
        whole = {name: pyarrow.concat_arrays(self.columns.pop(name)) for name in self.writer.schema.names}
        self.writer.write_table(pyarrow.table(whole, schema=self.writer.schema), row_group_size=GROUP)
        self.rows = 0


def _header(shape: tuple[int, int], metadata: dict[str, str]) -> bytes:
    """What safetensors' format has before float32 `values`."""
    values = {"dtype": "F32", "shape": shape, "data_offsets": (0, 4 * math.prod(shape))}
    text = json.dumps({"__metadata__": metadata, "values": values}, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def table_of(tokens: Path) -> pandas.DataFrame:
    """id, dataset (source), length and answer_tokens of each row of a `tokens` artifact."""
    rows = hidden.token_rows(tokens).with_format("arrow")
    columns = rows.select_columns(["input_ids", "labels"])
    counts = pandas.concat([_counts(table) for table in columns.iter(BATCH)], ignore_index=True)
    named = rows.select_columns(["id", "dataset"])[:]  # a view of the file
    sources = named["dataset"].dictionary_encode().to_pandas()
    return pandas.DataFrame({"id": named["id"].to_pandas(), "dataset": sources}).join(counts)


def _counts(table: pyarrow.Table) -> pandas.DataFrame:
    """Tokens, and labelled tokens, of each row; in bulk, as pools have 10⁸ tokens and more."""
    inputs, labels = (table[name].combine_chunks() for name in ("input_ids", "labels"))
    labelled = labels.value_parent_indices().to_numpy()[labels.flatten().to_numpy() != IGNORED]
    answers = numpy.bincount(labelled, minlength=len(labels)).astype(numpy.int32)
    return pandas.DataFrame({"length": inputs.value_lengths().to_numpy(), "answer_tokens": answers})
