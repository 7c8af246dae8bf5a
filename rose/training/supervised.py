"""The one supervised fine-tuning loop, on transformers.Trainer: pretraining, warm-up and fine-tuning all run it."""

import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from datasets import Dataset
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from rose import ranks
from rose.config.schema import Training
from rose.data.files import append, some_ids
from rose.seeds import derive
from rose.training import finite, resume
from rose.training.processes import evened, micro_batches, ordered
from rose.training.sharded import shard, trainable, unwrapped

log = logging.getLogger(__name__)


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    training: Training,
    out: Path,
    callbacks: Sequence[TrainerCallback] = (),
    trainer: type[Trainer] = Trainer,
    collator: Callable[[Sequence[dict]], dict] | None = None,
    memory: dict | None = None,
    sharded: bool = False,
    dropped: Sequence[dict] = (),
) -> None:
    """Trains the trainable weights of `model` on `rows` (input_ids, labels) and writes the curve to out/log.jsonl.

    `trainer` may hold another loss, with `collator` to make its batches. By themselves the loss is the mean over the
    labelled tokens of a step, whatever `micro_batch_size` and a job's processes split it into. Rows whose loss or
    gradient is not finite are left out as if they had never been there, and listed in out/dropped.jsonl {"id",
    "reason"}, with `dropped`, those that did not come this far. Raises RoseError where that is so for most of them.

    With `sharded` the job's processes share the weights as well as the rows (`rose.training.sharded`).
    Goes on from what a killed process left in `out`; `memory` is what `callbacks` keep from step to step, in JSON.
    """
    if dropped:
        total = len(dropped) + len(rows)
        log.warning("training goes without %d of %d rows: %s", len(dropped), total, some_ids(dropped))
    size, accumulated = micro_batches(training)
    seed = derive(training.seed, "training") % 2**32  # what numpy's global seed, set by Trainer, can hold
    collator = collator or DataCollatorForSeq2Seq(tokenizer, padding=True, label_pad_token_id=-100)
    memory = {} if memory is None else memory
    checkpoint = resume.begin(out, memory)
    if sharded and ranks.world_size() > 1:
        shard(model)
        trainer = unwrapped(trainer)
    start = {name: weight.detach().clone() for name, weight in trainable(model)}
    while True:
        run = ordered(trainer, len(rows))(
            model=model,
            args=_arguments(training, size, accumulated, seed, out),
            train_dataset=evened(rows.select_columns(["input_ids", "labels"]), size),
            data_collator=collator,
            callbacks=[*callbacks, finite.Watch(), resume.Save(memory)],
        )
        run.remove_callback(PrinterCallback)
        try:
            run.train(resume_from_checkpoint=checkpoint)
            break
        except finite.NotFinite as stopped:
            rows = finite.without_bad_rows(run, rows, collator, out, str(stopped))
            finite.restore(model, start)
            resume.forget(out)
            checkpoint = None
    model.eval()
    if ranks.is_first():
        resume.forget(out)
        for row in dropped:  # not before: a dropped.jsonl would keep a killed process from being continued
            append(out / "dropped.jsonl", row)
        _write_log(out, run.state.log_history)


def _arguments(training: Training, size: int, accumulated: int, seed: int, out: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(resume.folder(out)),
        num_train_epochs=training.epochs,
        learning_rate=training.learning_rate,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulated,
        lr_scheduler_type=training.schedule,
        warmup_steps=training.warmup_ratio,  # below 1: a share of the steps
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        activation_checkpointing=training.gradient_checkpointing,
        optim="adamw_torch",
        seed=(seed + ranks.rank()) % 2**32,  # of dropout: a process's masks are its own
        data_seed=seed,
        use_cpu=not torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
        save_strategy="no",  # resume.Save says when
        save_total_limit=2,
        logging_steps=1,
        report_to=[],
        disable_tqdm=not sys.stderr.isatty(),
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
    )


def _write_log(out: Path, history: list[dict]) -> None:
    steps = [entry for entry in history if "loss" in entry]
    lines = (
        json.dumps({name: entry[name] for name in ("step", "loss", "grad_norm", "learning_rate")}) for entry in steps
    )
    (out / "log.jsonl").write_text("".join(line + "\n" for line in lines))
