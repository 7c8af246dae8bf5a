"""Losses as a row's representation: what the model finds hard, untrained or a little trained."""

from pathlib import Path

import pandas
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rose.config.schema import Method, Numerics
from rose.data.chat import Encoded
from rose.methods.hidden import encoded_rows
from rose.methods.influence import Influence
from rose.models import loading
from rose.models.batching import IGNORED
from rose.models.log_probs import answer_log_probs
from rose.stages.graph import stage

BATCH_TOKENS = 4096  # padding included


def perplexity(method: Method, rows: pandas.DataFrame, losses: Path) -> Influence:
    """ln perplexity: mean cross-entropy CE(y|x) of the answers (Marion et al., arXiv 2309.04564).

    In nats. The paper's best choice is the middle (rule=middle); rule=mean_max takes the highest.
    """
    return Influence(_column(losses, rows).to_numpy()[:, None], ["loss"])


def ifd(method: Method, rows: pandas.DataFrame, losses: Path, answer_losses: Path) -> Influence:
    """Instruction-following difficulty CE(y|x)/CE(y), how little the prompt helps.

    From arXiv 2308.12032. Rows above 1, whose prompt makes the answer less likely, have no score.
    """
    ratio = _column(losses, rows) / _column(answer_losses, rows)
    return Influence(ratio.where(ratio <= 1).to_numpy()[:, None], ["ifd"])


def loss_drop(method: Method, rows: pandas.DataFrame, before: Path, after: Path) -> Influence:
    """(L − L')/L: the share of the row's loss L that is gone once the model has seen the targets.

    L' is the loss after SFT on the chosen answers (`method.target=chosen`) or DPO on the pairs
    (`preference`): to first order the influence of the targets on the row, without a gradient.
    """
    loss = _column(before, rows)
    return Influence(((loss - _column(after, rows)) / loss).to_numpy()[:, None], ["loss_drop"])


@stage("losses", version=1)
def row_losses(out: Path, numerics: Numerics, base: Path, adapter: Path, tokens: Path) -> None:
    """Writes losses.parquet of a tuned model: id, and loss in nats a token. The base model's: `hidden.pool_pass`."""
    _write(out, loading.load_adapter(loading.load_model(base, numerics), adapter), *encoded_rows(tokens))


@stage("answer_losses", version=1)
def answer_losses(out: Path, numerics: Numerics, base: Path, tokens: Path) -> None:
    """The same of each row's answers alone, CE(y), after a BOS (else EOS) token."""
    tokenizer, (ids, rows) = loading.load_tokenizer(base), encoded_rows(tokens)
    _write(out, loading.load_model(base, numerics), ids, [alone(tokenizer, row) for row in rows])


def alone(tokenizer: PreTrainedTokenizerBase, row: Encoded) -> Encoded:
    """The row's answers without its prompts, after the token that begins a text."""
    first = next(t for t in (tokenizer.bos_token_id, tokenizer.eos_token_id) if isinstance(t, int))
    answers = [label for label in row["labels"][1:] if label != IGNORED]
    return {"input_ids": [first, *answers], "labels": [IGNORED, *answers]}


def _write(out: Path, model: PreTrainedModel | PeftModel, ids: list[str], rows: list[Encoded]) -> None:
    """The mean cross-entropy of each row's labelled tokens."""
    sums, lengths = answer_log_probs(model, rows, BATCH_TOKENS)
    pandas.DataFrame({"id": ids, "loss": -sums / lengths}).to_parquet(out / "losses.parquet", index=False)


def _column(losses: Path, rows: pandas.DataFrame) -> pandas.Series:
    return pandas.read_parquet(losses / "losses.parquet").set_index("id")["loss"].loc[rows["id"]]
