"""Fine-tuning on the target pairs themselves: on their chosen answers, or by DPO."""

from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset
from torch.nn.modules.dropout import _DropoutNd
from transformers import Trainer

from rose.config.choices import Reference
from rose.config.schema import Lora, Numerics, Training
from rose.data.encoded_pairs import encoded_pairs
from rose.gradients.objectives import Loss, Objective, losses
from rose.models import loading
from rose.models.batching import IGNORED, Encoded, collate
from rose.models.log_probs import token_log_probs, unwrapped
from rose.stages.graph import stage
from rose.training.finetune import tune
from rose.training.sharded import fresh_adapter
from rose.training.supervised import RowLoss, answer_loss


@stage("pairs_sft", version=1, resumable=True, together=True)
def tune_on_chosen(
    out: Path, training: Training, lora: Lora, numerics: Numerics, max_length: int, base: Path, preferences: Path
) -> None:
    """Writes an adapter trained on the target pairs' chosen answers, and its training curve."""
    tokenizer = loading.load_tokenizer(base)
    pairs, encoded, dropped = encoded_pairs(tokenizer, preferences / "target.jsonl", max_length)
    rows = [{"id": pair["id"], **chosen} for pair, (chosen, _) in zip(pairs, encoded, strict=True)]
    model = fresh_adapter(base, lora, numerics, training.seed)
    tune(model, Dataset.from_list(rows), answer_loss(tokenizer), training, out, dropped)


@stage("pairs_dpo", version=3, resumable=True, together=True)
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
    """Writes an adapter trained by DPO (arXiv 2305.18290), the base model as reference."""
    tokenizer = loading.load_tokenizer(base)
    pairs, encoded, dropped = encoded_pairs(tokenizer, preferences / "target.jsonl", max_length)
    rows = Dataset.from_dict(
        {
            "id": [pair["id"] for pair in pairs],
            "input_ids": [[chosen["input_ids"], rejected["input_ids"]] for chosen, rejected in encoded],
            "labels": [[chosen["labels"], rejected["labels"]] for chosen, rejected in encoded],
        }
    )
    model = fresh_adapter(base, lora, numerics, training.seed)
    tune(model, rows, pair_loss(Objective(Loss.dpo, beta, Reference.base)), training, out, dropped)


def interleave(rows: Sequence[dict]) -> dict[str, torch.Tensor]:
    """Rows of two encoded answers each as one batch: chosen, rejected, chosen, …"""
    pairs = (zip(row["input_ids"], row["labels"], strict=True) for row in rows)
    inputs, targets = collate([Encoded(input_ids=ids, labels=labels) for both in pairs for ids, labels in both])
    return {"inputs": inputs, "targets": targets}


def pair_loss(objective: Objective) -> RowLoss:
    """The mean of `objective` over the pairs of a step; idle pairs do not count."""

    class PairTrainer(Trainer):
        loss_is_scaled_for_ga = True

        def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor:
            count = torch.stack([answered(batch["targets"]).sum() for batch in batch_samples]).sum()
            counts = self.accelerator.gather(count.to(device))
            assert isinstance(counts, torch.Tensor)
            return counts.sum()

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None) -> torch.Tensor:
            assert num_items_in_batch is not None
            each = preference_losses(model, objective, inputs["inputs"], inputs["targets"])
            total = (each * answered(inputs["targets"])).sum()
            # processes' gradients are averaged
            return total * self.accelerator.num_processes / num_items_in_batch

    return RowLoss(interleave, PairTrainer)


def answered(targets: torch.Tensor) -> torch.Tensor:
    """Which pairs of interleaved rows [n, t] have labels: bool [n/2]."""
    return (targets[0::2] != IGNORED).any(1)


def preference_losses(
    model: torch.nn.Module, objective: Objective, inputs: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """`objective` of each pair of interleaved rows [n, t], the reference without adapter: [n/2].

    Both without the model's own dropout, as an adapter that says nothing leaves the model as it is.
    """
    without_own_dropout(model)
    # first: a sharded model remembers who had gradients
    log_probs, mask = token_log_probs(model, inputs, targets)
    plain = unwrapped(model)
    with torch.no_grad(), plain.disable_adapter():
        reference, _ = token_log_probs(plain, inputs, targets)
    return losses(objective, log_probs, mask, reference.sum(1))


def without_own_dropout(model: torch.nn.Module) -> None:
    """Turns off, for good, what a model drops at random; the adapter's own dropout stays.

    Not by `eval()`: a layer that is checkpointed runs again in the backward pass, in training mode.
    """
    for name, module in model.named_modules():
        if "lora_dropout" not in name:
            for key, value in list(vars(module).items()):
                if isinstance(value, float) and ("drop" in key or (key == "p" and isinstance(module, _DropoutNd))):
                    setattr(module, key, 0.0)
