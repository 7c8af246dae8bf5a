"""Warm-up: LoRA fine-tuning on a small random part of the pool; its checkpoints are where gradients are taken."""

import json
import logging
from pathlib import Path

from datasets import Dataset, load_from_disk
from peft import PeftModel
from safetensors.torch import save_file
from transformers import TrainerCallback

from rose import ranks
from rose.config.schema import Lora, Numerics, Warmup
from rose.models import loading
from rose.seeds import derive, numpy_generator
from rose.shares import part
from rose.stages.graph import stage
from rose.training.sharded import save_adapter, trainable, whole
from rose.training.supervised import train

log = logging.getLogger(__name__)


@stage("warmup", version=2, resumable=True, together=True)
def warm_up(out: Path, warmup: Warmup, lora: Lora, numerics: Numerics, base: Path, tokens: Path) -> None:
    """Writes one checkpoint an epoch: adapter, Adam moments, and in manifest.json the epoch's mean learning rate."""
    rows = sample(load_from_disk(str(tokens / "rows")), warmup)
    log.info("warm-up on %d rows, %d epochs", len(rows), warmup.epochs)
    model = loading.new_adapter(loading.load_for_training(base, numerics), lora, derive(warmup.seed, "adapter"))
    memory: dict = {}
    saver = Checkpoints(out, model, memory)
    train(model, loading.load_tokenizer(base), rows, warmup, out, [saver], memory=memory, sharded=numerics.sharded)
    if ranks.is_first():
        optimizer = memory["optimizer"] | {"max_grad_norm": warmup.max_grad_norm}
        manifest = {"optimizer": optimizer, "checkpoints": memory["entries"]}
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
    chosen = numpy_generator(warmup.seed, "warmup rows").choice(len(rows), size=count, replace=False)
    return rows.select(sorted(chosen.tolist()))


class Checkpoints(TrainerCallback):
    """Saves the adapter and the optimizer's moments at the end of each epoch."""

    def __init__(self, out: Path, model: PeftModel, memory: dict):
        self.out, self.model, self.memory = out, model, memory

    def on_train_begin(self, args, state, control, **_):
        if state.global_step == 0:  # also when training begins again, without a bad row
            self.memory |= {"rates": [], "entries": [], "optimizer": {}}

    def on_optimizer_step(self, args, state, control, optimizer, **_):
        rate = optimizer.param_groups[0]["lr"]  # before the scheduler moves on: the rate just used
        self.memory["rates"].append(rate)

    def on_epoch_end(self, args, state, control, optimizer, **_):
        entries, rates = self.memory["entries"], self.memory["rates"]
        directory = self.out / f"checkpoint-{len(entries) + 1}"
        save_adapter(self.model, directory)
        moments = _moments(self.model, optimizer)
        if ranks.is_first():
            save_file(moments, directory / "moments.safetensors")
        entry = {"dir": directory.name, "epoch": len(entries) + 1, "step": state.global_step}
        entries.append(entry | {"learning_rate": sum(rates) / len(rates)})
        rates.clear()
        beta1, beta2 = optimizer.param_groups[0]["betas"]
        self.memory["optimizer"] = {"beta1": beta1, "beta2": beta2, "eps": optimizer.param_groups[0]["eps"]}


def _moments(model: PeftModel, optimizer) -> dict:
    states = getattr(optimizer, "optimizer", optimizer).state  # accelerate wraps the optimizer
    return {
        f"{name}.{moment}": whole(states[parameter][moment].detach()).cpu().contiguous()
        for name, parameter in trainable(model)
        for moment in ("exp_avg", "exp_avg_sq")
    }
