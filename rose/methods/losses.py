"""Losses as a row's representation: what the model finds hard, before any training or after a little of it."""

from collections.abc import Sequence
from pathlib import Path

import numpy
import pandas
from datasets import load_from_disk
from transformers import PreTrainedTokenizerBase

from rose import models
from rose.artifacts import stage
from rose.config import Method, Numerics
from rose.evaluation.likelihood import answer_log_probs
from rose.gradients.batching import IGNORED
from rose.methods.influence import Influence

BATCH_TOKENS = 4096  # padding included


def perplexity(method: Method, rows: pandas.DataFrame, losses: Path) -> Influence:
    """ln perplexity: the mean cross-entropy CE(y|x) of the answer tokens, in nats (Marion et al., arXiv 2309.04564).

    The paper's best choice is the middle (rule=middle); rule=mean_max takes the highest.
    """
    return Influence(_table(losses, rows)[["conditional"]].to_numpy(), ["loss"])


def ifd(method: Method, rows: pandas.DataFrame, losses: Path) -> Influence:
    """Instruction-following difficulty CE(y|x)/CE(y) (arXiv 2308.12032): how little the prompt helps with the answer.

    Rows above 1, whose prompt makes the answer less likely, have no score.
    """
    table = _table(losses, rows)
    ratio = table["conditional"] / table["unconditional"]
    return Influence(ratio.where(ratio <= 1).to_numpy()[:, None], ["ifd"])


@stage("losses", version=1)
def row_losses(out: Path, numerics: Numerics, base: Path, tokens: Path) -> None:
    """Writes losses.parquet: id, conditional CE(y|x) and unconditional CE(y) of each row, nats a token.

    Both are means over the same tokens: CE(y) is that of the answers alone, after a BOS (else EOS) token.
    """
    rows = load_from_disk(str(tokens / "rows"))
    encoded = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in rows]
    tokenizer, model = models.load_tokenizer(base), models.load_model(base, numerics)
    table = {"id": rows["id"], "conditional": mean_losses(model, encoded)}
    table["unconditional"] = mean_losses(model, [alone(tokenizer, row) for row in encoded])
    pandas.DataFrame(table).to_parquet(out / "losses.parquet", index=False)


def mean_losses(model, rows: Sequence[dict]) -> numpy.ndarray:
    """Mean cross-entropy of each encoded row's labelled tokens."""
    sums, lengths = answer_log_probs(model, rows, BATCH_TOKENS)
    return -sums / lengths


def alone(tokenizer: PreTrainedTokenizerBase, row: dict) -> dict:
    """The row's answers without its prompts, after the token that begins a text."""
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    answers = [label for label in row["labels"][1:] if label != IGNORED]
    return {"input_ids": [first, *answers], "labels": [IGNORED, *answers]}


def _table(losses: Path, rows: pandas.DataFrame) -> pandas.DataFrame:
    return pandas.read_parquet(losses / "losses.parquet").set_index("id").loc[rows["id"]]
