"""Fine-tuning on the target pairs themselves: on their chosen answers, or by DPO."""

from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import Trainer

from rose.config.choices import Reference
from rose.config.schema import Lora, Numerics, Training
from rose.data.encoded_pairs import encoded_pairs
from rose.gradients.objectives import Loss, Objective, losses
from rose.models import loading
from rose.models.batching import IGNORED, collate
from rose.models.log_probs import token_log_probs
from rose.seeds import derive
from rose.stages.graph import stage
from rose.training.sharded import save_adapter
from rose.training.supervised import train


@stage("pairs_sft", version=1, resumable=True, together=True)
def tune_on_chosen(
    out: Path, training: Training, lora: Lora, numerics: Numerics, max_length: int, base: Path, preferences: Path
) -> None:
    """Writes an adapter trained on the target pairs' chosen answers, cut as the pairs are, and its training curve."""
    tokenizer = loading.load_tokenizer(base)
    pairs, encoded, dropped = encoded_pairs(tokenizer, preferences / "target.jsonl", max_length)
    rows = [{"id": pair["id"], **chosen} for pair, (chosen, _) in zip(pairs, encoded, strict=True)]
    model = loading.new_adapter(loading.load_for_training(base, numerics), lora, derive(training.seed, "adapter"))
    train(model, tokenizer, Dataset.from_list(rows), training, out, sharded=numerics.sharded, dropped=dropped)
    save_adapter(model, out)


@stage("pairs_dpo", version=2, resumable=True, together=True)
def tune_by_dpo(
    out: Path,
    training: Training,
    beta: float,
    lora: Lora,
    numerics: Numerics,
    max_length: int,
    base: Path,
    preferences: Path,
) -> None:
    """Writes an adapter trained by DPO (arXiv 2305.18290) on the target pairs, the base model as reference."""
    tokenizer = loading.load_tokenizer(base)
    pairs, encoded, dropped = encoded_pairs(tokenizer, preferences / "target.jsonl", max_length)
    rows = [
        {"id": pair["id"]} | {name: [side[name] for side in both] for name in ("input_ids", "labels")}
        for pair, both in zip(pairs, encoded, strict=True)
    ]
    model = loading.new_adapter(loading.load_for_training(base, numerics), lora, derive(training.seed, "adapter"))
    objective = Objective(Loss.dpo, beta, Reference.base)
    more = {"trainer": trainer_of(objective), "collator": interleave, "sharded": numerics.sharded, "dropped": dropped}
    train(model, tokenizer, Dataset.from_list(rows), training, out, **more)
    save_adapter(model, out)


def interleave(rows: Sequence[dict]) -> dict[str, torch.Tensor]:
    """Rows of two encoded answers each as one batch: chosen, rejected, chosen, …"""
    sides = [
        {"input_ids": ids, "labels": labels}
        for row in rows
        for ids, labels in zip(row["input_ids"], row["labels"], strict=True)
    ]
    inputs, targets = collate(sides)
    return {"inputs": inputs, "targets": targets}


def trainer_of(objective: Objective) -> type[Trainer]:
    """A Trainer whose loss is the mean of `objective` over the pairs of a step; idle pairs do not count."""

    class PairTrainer(Trainer):
        loss_is_scaled_for_ga = True

        def _get_num_items_in_batch(self, batch_samples, device):
            count = sum(answered(batch["targets"]).sum() for batch in batch_samples)
            return self.accelerator.gather(count.to(device)).sum()

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            each = preference_losses(model, objective, inputs["inputs"], inputs["targets"])
            total = (each * answered(inputs["targets"])).sum()
            return total * self.accelerator.num_processes / num_items_in_batch  # processes' gradients are averaged

    return PairTrainer


def answered(targets: torch.Tensor) -> torch.Tensor:
    """Which pairs of interleaved rows [2 · pairs, tokens] have labels: bool [pairs]."""
    return (targets[0::2] != IGNORED).any(1)


def preference_losses(
    model: PeftModel, objective: Objective, inputs: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """`objective` of each pair of interleaved rows [2 · pairs, tokens]; the reference is without adapter."""
    log_probs, mask = token_log_probs(model, inputs, targets)  # first: a sharded model remembers who had gradients
    plain = getattr(model, "module", model)  # several processes train a wrapped model
    with torch.no_grad(), plain.disable_adapter():
        reference, _ = token_log_probs(plain, inputs, targets)
    return losses(objective, log_probs, mask, reference.sum(1))
