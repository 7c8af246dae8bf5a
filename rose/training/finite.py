"""Rows that would poison a model: found when a step's gradient is not finite, before the step."""

import logging
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import Trainer, TrainerCallback

from rose import ranks
from rose.data.files import append, some_ids
from rose.errors import RoseError
from rose.training.sharded import trainable, whole

log = logging.getLogger(__name__)


class NotFinite(Exception):
    """A step's gradient has a NaN or an infinity; the weights are as they were before the step."""


class Watch(TrainerCallback):
    """Raises NotFinite before such a step is made."""

    def on_pre_optimizer_step(self, args, state, control, **kwargs: Any) -> None:
        if not torch.stack([gradient.isfinite().all() for gradient in _gradients(kwargs["model"])]).all():
            raise NotFinite(f"step {state.global_step + 1}")


def restore(model: torch.nn.Module, start: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, weight in trainable(model):
            weight.copy_(start[name])
            weight.grad = None


def without_bad_rows(run: Trainer, rows: Dataset, out: Path, when: str) -> Dataset:
    """The rows whose own loss and gradient are finite at the present weights; lists the others.

    Raises RoseError where no row is to blame, or most of them: then training has diverged.
    """
    bad = [number for number in range(len(rows)) if not _finite(run, rows[number])]
    names = rows["id"] if "id" in rows.column_names else [f"row {number + 1}" for number in range(len(rows))]
    if not bad or 2 * len(bad) > len(rows):
        raise RoseError(
            f"training diverged at {when}: loss or gradient is not finite for {len(bad)} of {len(rows)} rows by "
            "themselves; a lower learning_rate, or model.numerics.dtype=float32 or bfloat16, may help"
        )
    dropped = [{"id": names[number], "reason": f"loss or gradient not finite at {when}"} for number in bad]
    for row in dropped if ranks.is_first() else ():
        append(out / "dropped.jsonl", row)
    shown = some_ids(dropped)
    log.warning("training begins again without %d rows whose loss or gradient is not finite: %s", len(bad), shown)
    return rows.select(sorted(set(range(len(rows))) - set(bad)))


def _finite(run: Trainer, row: dict) -> bool:
    model = run.model
    assert model is not None
    batch = run._prepare_inputs(run.data_collator([{name: row[name] for name in ("input_ids", "labels")}]))
    loss = run.compute_loss(model, batch, num_items_in_batch=torch.tensor(1, device=run.args.device))
    assert isinstance(loss, torch.Tensor)
    model.zero_grad()
    loss.backward()
    return all(value.isfinite().all() for value in (loss, *_gradients(model)))


def _gradients(model: torch.nn.Module) -> list[torch.Tensor]:
    return [whole(weight.grad) for _, weight in trainable(model) if weight.grad is not None]
