"""Fine-tuning: a fresh adapter on the base model, trained on the selected rows alone."""

import logging
from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset
from peft import PeftModel

from rose import ranks
from rose.config.schema import Lora, Numerics, Training
from rose.data import files
from rose.data.rows import DroppedRow
from rose.errors import RoseError
from rose.models import loading
from rose.stages.graph import stage
from rose.training.sharded import fresh_adapter, save_adapter
from rose.training.supervised import RowLoss, answer_loss, train

log = logging.getLogger(__name__)


@stage("finetune", version=1, resumable=True, together=True)
def fine_tune(
    out: Path, training: Training, lora: Lora, numerics: Numerics, base: Path, tokens: Path, selection: Path
) -> None:
    """Writes the adapter (PEFT's own format) and its training curve."""
    rows, dropped = selected_rows(tokens, selection)
    model = fresh_adapter(base, lora, numerics, training.seed)
    tune(model, rows, answer_loss(loading.load_tokenizer(base)), training, out, dropped)


def tune(
    model: PeftModel, rows: Dataset, loss: RowLoss, training: Training, out: Path, dropped: Sequence[DroppedRow]
) -> None:
    """Trains and writes the adapter; also lists `dropped`, which did not come so far."""
    if dropped:
        total = len(dropped) + len(rows)
        log.warning("training goes without %d of %d rows: %s", len(dropped), total, files.some_ids(dropped))
    train(model, rows, loss, training, out)
    save_adapter(model, out)
    if ranks.is_first():
        for row in dropped:  # not before: a killed process's training is not continued then
            files.append(out / "dropped.jsonl", row)


def selected_rows(tokens: Path, selection: Path) -> tuple[Dataset, list[DroppedRow]]:
    """The selection's tokenised rows, in pool order, and {"id", "reason"} of those without tokens.

    Where another model than the student selects, the student's tokenizer or length may refuse rows.
    Raises RoseError where it refuses all.
    """
    rows = Dataset.load_from_disk(str(tokens / "rows"))
    ids = {row["id"] for row in files.load(selection / "selected.jsonl")}
    dropped = [row for row in files.load(tokens / "dropped.jsonl") if row["id"] in ids]
    if len(dropped) == len(ids):
        reason = dropped[0]["reason"] if dropped else "there are none"
        raise RoseError(f"student.max_length: none of the {len(ids)} selected rows can be trained on ({reason})")
    return rows.select([index for index, row_id in enumerate(rows["id"]) if row_id in ids]), dropped
