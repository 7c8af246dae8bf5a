"""Fine-tuning: a fresh adapter on the base model, trained on the selected rows alone."""

import json
from pathlib import Path

from datasets import Dataset, load_from_disk

from rose import models
from rose.artifacts import stage
from rose.config import Lora, Numerics, Training
from rose.seeds import derive
from rose.training.sharded import save_adapter
from rose.training.supervised import train


@stage("finetune", version=1, resumable=True, together=True)
def fine_tune(
    out: Path, training: Training, lora: Lora, numerics: Numerics, base: Path, tokens: Path, selection: Path
) -> None:
    """Writes the adapter (PEFT's own format) and its training curve."""
    rows = selected_rows(load_from_disk(str(tokens / "rows")), selection)
    model = models.new_adapter(models.load_for_training(base, numerics), lora, derive(training.seed, "adapter"))
    train(model, models.load_tokenizer(base), rows, training, out, sharded=numerics.sharded)
    save_adapter(model, out)


def selected_rows(rows: Dataset, selection: Path) -> Dataset:
    """The tokenised rows of the selection, in pool order: the trainer's own seed shuffles them."""
    with open(selection / "selected.jsonl") as file:
        chosen = {json.loads(line)["id"] for line in file}
    return rows.select([index for index, row_id in enumerate(rows["id"]) if row_id in chosen])
