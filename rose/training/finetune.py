"""Fine-tuning: a fresh adapter on the base model, trained on the selected rows alone."""

from pathlib import Path

from datasets import Dataset, load_from_disk

from rose.config.schema import Lora, Numerics, Training
from rose.data import files
from rose.errors import RoseError
from rose.models import loading
from rose.seeds import derive
from rose.stages.graph import stage
from rose.training.sharded import save_adapter
from rose.training.supervised import train


@stage("finetune", version=1, resumable=True, together=True)
def fine_tune(
    out: Path, training: Training, lora: Lora, numerics: Numerics, base: Path, tokens: Path, selection: Path
) -> None:
    """Writes the adapter (PEFT's own format) and its training curve."""
    rows, dropped = selected_rows(tokens, selection)
    model = loading.new_adapter(loading.load_for_training(base, numerics), lora, derive(training.seed, "adapter"))
    train(model, loading.load_tokenizer(base), rows, training, out, sharded=numerics.sharded, dropped=dropped)
    save_adapter(model, out)


def selected_rows(tokens: Path, selection: Path) -> tuple[Dataset, list[dict]]:
    """The tokenised rows of the selection, in pool order (the trainer's own seed shuffles them), and those without.

    Another model than the student selects rows that the student's tokenizer or length may refuse: {"id", "reason"}.
    Raises RoseError where it refuses all.
    """
    rows = load_from_disk(str(tokens / "rows"))
    chosen = {row["id"] for row in files.load(selection / "selected.jsonl")}
    dropped = [row for row in files.load(tokens / "dropped.jsonl") if row["id"] in chosen]
    if len(dropped) == len(chosen):
        reason = dropped[0]["reason"] if dropped else "there are none"
        raise RoseError(f"student.max_length: none of the {len(chosen)} selected rows can be trained on ({reason})")
    return rows.select([index for index, row_id in enumerate(rows["id"]) if row_id in chosen]), dropped
