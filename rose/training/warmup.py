"""Warm-up: fine-tuning on a small random part of the pool, for checkpoints to take gradients at."""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import save_file

from rose import ranks
from rose.config.schema import Lora, Numerics, Warmup
from rose.gradients.trajectory import Checkpoint
from rose.models import loading
from rose.seeds import numpy_generator
from rose.shares import part
from rose.stages.graph import stage
from rose.training.resume import Save
from rose.training.sharded import fresh_adapter, save_adapter, trainable, whole
from rose.training.supervised import answer_loss, train

log = logging.getLogger(__name__)


@stage("warmup", version=2, resumable=True, together=True)
def warm_up(out: Path, warmup: Warmup, lora: Lora, numerics: Numerics, base: Path, tokens: Path) -> None:
    """Writes a checkpoint an epoch, adapter and Adam's moments, and lists them in manifest.json."""
    rows = sample(Dataset.load_from_disk(str(tokens / "rows")), warmup)
    log.info("warm-up on %d rows, %d epochs", len(rows), warmup.epochs)
    model = fresh_adapter(base, lora, numerics, warmup.seed)
    saver = Checkpoints(out, model)
    train(model, rows, answer_loss(loading.load_tokenizer(base)), warmup, out, saver)
    if ranks.is_first():
        optimizer = saver.memory["optimizer"] | {"max_grad_norm": warmup.max_grad_norm}
        manifest = {"optimizer": optimizer, "checkpoints": saver.memory["entries"]}
        (out / "manifest.json").write_text(json.dumps(manifest, indent=1))


def sample(rows: Dataset, warmup: Warmup) -> Dataset:
    """A uniform `ratio` of the rows, at least one batch where the pool has it, in pool order."""
    share = round(part(warmup.ratio, len(rows)))
    count = min(len(rows), max(warmup.batch_size, share))
    if count > share:
        log.warning(
            "warmup.ratio=%g of %d rows is %d, less than a batch: the warm-up takes %d (warmup.batch_size=%d)",
            *(warmup.ratio, len(rows), share, count, warmup.batch_size),
        )
    numbers = numpy_generator(warmup.seed, "warmup rows").choice(len(rows), size=count, replace=False)
    return rows.select(sorted(numbers.tolist()))


class Checkpoints(Save):
    """Saves the adapter and the optimizer's moments at the end of each epoch."""

    def __init__(self, out: Path, model: PeftModel) -> None:
        super().__init__()
        self.out, self.model = out, model

    def on_train_begin(self, args, state, control, **kwargs: Any) -> None:
        if state.global_step == 0:  # also when training begins again, without a bad row
            self.memory |= {"rates": [], "entries": [], "optimizer": {}}

    def on_optimizer_step(self, args, state, control, **kwargs: Any) -> None:
        # before the scheduler moves on: the rate just used
        self.memory["rates"].append(kwargs["optimizer"].param_groups[0]["lr"])

    def on_epoch_end(self, args, state, control, **kwargs: Any) -> None:
        entries: list[Checkpoint] = self.memory["entries"]
        rates, optimizer, epoch = self.memory["rates"], kwargs["optimizer"], len(entries) + 1
        directory = self.out / f"checkpoint-{epoch}"
        save_adapter(self.model, directory)
        moments = _moments(self.model, optimizer)
        if ranks.is_first():
            save_file(moments, directory / "moments.safetensors")
        rate = sum(rates) / len(rates)
        entries.append({"dir": directory.name, "epoch": epoch, "step": state.global_step, "learning_rate": rate})
        rates.clear()
        group = optimizer.param_groups[0]
        self.memory["optimizer"] = {"beta1": group["betas"][0], "beta2": group["betas"][1], "eps": group["eps"]}
        super().on_epoch_end(args, state, control)


def _moments(model: PeftModel, optimizer: Any) -> dict[str, torch.Tensor]:
    states = getattr(optimizer, "optimizer", optimizer).state  # accelerate wraps the optimizer
    nothing: dict[str, torch.Tensor] = {}  # of a weight that no row's loss depends on, as of a tower for images
    return {
        f"{name}.{moment}": whole(states.get(weight, nothing).get(moment, torch.zeros_like(weight)).detach())
        .cpu()
        .contiguous()
        for name, weight in trainable(model)
        for moment in ("exp_avg", "exp_avg_sq")
    }
