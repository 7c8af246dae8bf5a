"""The one training loop, on transformers' Trainer, of pretraining, warm-up and fine-tuning."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from torch.distributed.fsdp import FSDPModule
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from rose import ranks
from rose.config.schema import Training
from rose.errors import RoseError, one_line
from rose.models.batching import IGNORED
from rose.progress import Pace, on_terminal
from rose.seeds import derive
from rose.stages.disk import write_lines
from rose.training import finite, resume
from rose.training.processes import evened, micro_batches, ordered, rows_at_once
from rose.training.sharded import trainable, unwrapped, whole

log = logging.getLogger(__name__)

# what Trainer calls it: the second name until transformers 5.18
CHECKPOINTING = next(n for n in ("activation_checkpointing", "gradient_checkpointing") if hasattr(TrainingArguments, n))


class RowLoss(NamedTuple):
    """How rows become a loss: what makes a batch of them, and the Trainer that makes its loss."""

    collator: Callable[[Sequence[Any]], dict[str, Any]]
    trainer: type[Trainer] = Trainer


def answer_loss(tokenizer: PreTrainedTokenizerBase) -> RowLoss:
    """The mean over the labelled tokens of a step, whatever holds a part of it at once."""
    collate = DataCollatorForSeq2Seq(tokenizer, padding=True, label_pad_token_id=IGNORED)

    def masked(rows: Sequence[Any]) -> dict[str, Any]:
        batch = collate(rows)
        # a padding token may be one that the model has no embedding of; behind the mask any will do
        return {**batch, "input_ids": batch["input_ids"] * batch["attention_mask"]}

    return RowLoss(masked)


def train(
    model: torch.nn.Module, rows: Dataset, loss: RowLoss, training: Training, out: Path, save: resume.Save | None = None
) -> None:
    """Trains the trainable weights of `model` on `rows` (input_ids, labels); writes out/log.jsonl.

    Rows whose loss or gradient is not finite are left out as if they had never been there, and
    listed in out/dropped.jsonl {"id", "reason"}. Raises RoseError where that is so for most.
    Goes on from what a killed process left in `out`, with the memory of `save`.
    """
    save = save or resume.Save()
    checkpoint = resume.begin(out, save.memory)
    start = {name: weight.detach().clone() for name, weight in trainable(model)}
    size = save.memory.setdefault("rows_at_once", rows_at_once(model, rows, training))  # as before it was killed
    while True:
        run = _trainer(model, rows, loss, replace(training, micro_batch_size=size), out, save)
        try:
            run.train(resume_from_checkpoint=checkpoint)
            break
        except torch.OutOfMemoryError as error:
            if training.micro_batch_size != "auto" or size == 1 or ranks.world_size() > 1:
                raise RoseError(
                    f"micro_batch_size={size}: so many rows do not fit the device's memory at once "
                    f"({one_line(error, 150)}); say fewer, gradient_checkpointing=true, or a smaller model.max_length"
                ) from error
            size = save.memory["rows_at_once"] = max(part for part in range(1, size) if size % part == 0)
            log.warning("so many rows do not fit the device's memory at once: training begins again with %d", size)
        except finite.NotFinite as stopped:
            rows = finite.without_bad_rows(run, rows, out, str(stopped))
        finite.restore(model, start)
        ranks.alone(lambda: resume.forget(out))
        checkpoint = None
    model.eval()
    if all(torch.equal(whole(weight.detach()), whole(start[name])) for name, weight in trainable(model)):
        log.warning(
            "training moved no weight in %d steps: look at learning_rate=%g, warmup_ratio=%g, epochs=%d, batch_size=%d",
            *(run.state.global_step, training.learning_rate, training.warmup_ratio),
            *(training.epochs, training.batch_size),
        )
    if ranks.is_first():
        resume.forget(out)
        names = ("step", "loss", "grad_norm", "learning_rate")
        steps = [entry for entry in run.state.log_history if "loss" in entry]
        write_lines(out / "log.jsonl", ({name: step[name] for name in names} for step in steps))


def _trainer(
    model: torch.nn.Module, rows: Dataset, loss: RowLoss, training: Training, out: Path, save: resume.Save
) -> Trainer:
    arguments = _arguments(training, out, training.epochs * math.ceil(len(rows) / training.batch_size))
    padded = evened(rows.select_columns(["input_ids", "labels"]), arguments.per_device_train_batch_size)
    kind = ordered(loss.trainer, len(rows), len(padded))
    kind = unwrapped(kind) if isinstance(model, FSDPModule) else kind
    told = Bar() if on_terminal() else Lines(out.parent.name)
    run = kind(model, arguments, loss.collator, padded, callbacks=[save, finite.Watch(), told])
    run.remove_callback(PrinterCallback)
    return run


class Bar(ProgressCallback):
    """Trainer's own, with the loss on it in place of a dictionary above it every step."""

    def on_log(self, args, state, control, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix_str(f"loss {logs['loss']:.4g}", refresh=False)


class Lines(TrainerCallback):
    """Where there is no terminal: a line a minute."""

    def __init__(self, stage: str):
        self.stage = stage

    def on_train_begin(self, args, state, control, **kwargs: Any) -> None:
        self.pace = Pace(self.stage, state.max_steps, "steps", state.global_step)

    def on_step_end(self, args, state, control, **kwargs: Any) -> None:
        self.pace.step()


class OneDevice(TrainingArguments):
    """With several GPUs at hand Trainer would take DataParallel, larger batches and fewer steps."""

    @property
    def n_gpu(self) -> int:
        return min(1, super().n_gpu)


def _arguments(training: Training, out: Path, steps: int) -> TrainingArguments:
    size, accumulated = micro_batches(training)
    seed = derive(training.seed, "training") % 2**32  # numpy's global seed holds no more
    return OneDevice(
        output_dir=str(resume.folder(out)),
        num_train_epochs=training.epochs,
        learning_rate=training.learning_rate,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulated,
        lr_scheduler_type=training.schedule,
        warmup_steps=_warm_up(training.warmup_ratio, steps),
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        optim="adamw_torch",
        seed=(seed + ranks.rank()) % 2**32,  # of dropout: a process's masks are its own
        data_seed=seed,
        use_cpu=not torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
        save_strategy="no",  # resume.Save says when
        save_total_limit=2,
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,  # Bar and Lines say how far it is
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        **{CHECKPOINTING: training.gradient_checkpointing},  # pyright: ignore[reportArgumentType] — of any option
    )


def _warm_up(ratio: float, steps: int) -> float:
    """The share of the steps over which the learning rate rises from 0; none where they are too few.

    Trainer rounds a share up: of one step it would take the whole, at a rate of 0.
    """
    return 0 if ratio * steps < 0.5 or math.ceil(ratio * steps) >= steps else ratio
