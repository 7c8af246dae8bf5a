"""The scores stage: representation × rule → one score a pool row."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy
import pandas
import pyarrow
from safetensors.numpy import save_file

from rose.config.choices import Representation
from rose.config.schema import Method
from rose.data.planting import truth
from rose.methods import answer_states, embedding, gradient, hidden, lexical, losses, readout
from rose.methods.influence import Influence, column, lengths, nothing, rewards
from rose.methods.rules import RULES
from rose.models.batching import IGNORED
from rose.stages.graph import stage

log = logging.getLogger(__name__)

BATCH = 10_000  # rows whose tokens are counted at once


INFLUENCE: dict[Representation, Callable[..., Influence]] = {  # (method, rows, *representation)
    Representation.gradients: gradient.influence,
    Representation.readout: readout.influence,
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
    rows = table_of(tokens)
    influence = INFLUENCE[method.representation](method, rows, *representation)
    columns, rows["score"] = RULES[method.rule](method, rows, influence)
    missing = int(rows.score.isna().sum())
    if missing:
        log.warning("%d of %d rows have no score and cannot be selected", missing, len(rows))
    table = pandas.concat([rows[["id", "score"]], columns, rows[["length"]]], axis=1)
    if planted:
        known = truth(planted).set_index("id")
        table["planted"] = known["fault"].where(~known["intact"]).reindex(table["id"]).to_numpy()
    table.to_parquet(out / "scores.parquet", index=False)
    values = numpy.ascontiguousarray(influence.values, dtype=numpy.float32)
    save_file({"values": values}, out / "influence.safetensors", {"subtasks": json.dumps(influence.subtasks)})


def table_of(tokens: Path) -> pandas.DataFrame:
    """id, dataset (source), length and answer_tokens of each row of a `tokens` artifact."""
    rows = hidden.token_rows(tokens)
    columns = rows.select_columns(["input_ids", "labels"]).with_format("arrow")
    counts = pandas.concat([_counts(table) for table in columns.iter(BATCH)], ignore_index=True)
    return pandas.DataFrame({"id": rows["id"][:], "dataset": rows["dataset"][:]}).join(counts)


def _counts(table: pyarrow.Table) -> pandas.DataFrame:
    """Tokens, and labelled tokens, of each row; in bulk, as pools have 10⁸ tokens and more."""
    inputs, labels = (table[name].combine_chunks() for name in ("input_ids", "labels"))
    labelled = labels.value_parent_indices().to_numpy()[labels.flatten().to_numpy() != IGNORED]
    answers = numpy.bincount(labelled, minlength=len(labels))
    return pandas.DataFrame({"length": inputs.value_lengths().to_numpy(), "answer_tokens": answers})
