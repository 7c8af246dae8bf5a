"""Token log-probabilities of a batch, at the price of its labelled tokens."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy
import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear
from torch import nn
from transformers import PreTrainedModel

from rose.models.batching import IGNORED, Encoded, collate, length_batches, moved
from rose.models.memory import fitting, tokens_at_once
from rose.progress import track


def token_log_probs(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of `targets` after `inputs`, [n, t] both (`collate`), and where labels are.

    Both returned are [n, t], on the model's device; log-probabilities are float32 at least, and 0
    where the mask is False. The vocabulary is scored at labelled tokens only. What is kept for the
    backward pass is each log-probability's slope along its hidden state, not the logits; several
    passes can share it. A batch that is on the CPU still says there which tokens are labelled: of
    tensors on a GPU that would have to be waited for.
    """
    mask = targets != IGNORED
    places = mask.flatten().nonzero()[:, 0]
    labels = targets.flatten()[places]
    head = unwrapped(model).get_output_embeddings()
    inputs, mask, places, labels = (moved(each, head.weight.device) for each in (inputs, mask, places, labels))
    if isinstance(head, Linear):  # an adapted head: rows stay apart, for its per-example gradients
        logits = model(input_ids=inputs, use_cache=False).logits.flatten(0, 1)[places]
        picked = _log_softmax(logits).gather(1, labels[:, None])[:, 0]
    elif torch.is_grad_enabled():
        picked = _attached(model, head, inputs, labels, places)
    else:
        with head_input(head, lambda hidden: hidden.flatten(0, 1)[places][None]):
            logits = model(input_ids=inputs, use_cache=False).logits[0]
        picked = _log_softmax(logits).gather(1, labels[:, None])[:, 0]
    every = torch.zeros(mask.numel(), dtype=picked.dtype, device=mask.device)
    return every.index_put((places,), picked).view(mask.shape), mask


def unwrapped(model: nn.Module) -> Any:
    """The model itself: several processes train it in a wrapper."""
    return getattr(model, "module", model)


@torch.no_grad()
def answer_log_probs(
    model: PreTrainedModel | PeftModel, rows: Sequence[Encoded], budget: int | str
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Summed log-probability and number of the labelled tokens of each row; `budget`: tokens a batch, or auto."""
    sums, lengths = numpy.zeros(len(rows)), numpy.zeros(len(rows))

    def measure(batch: list[int]) -> None:
        log_probs, mask = token_log_probs(model, *collate([rows[index] for index in batch]))
        sums[batch] = log_probs.double().sum(1).cpu().numpy()
        lengths[batch] = mask.sum(1).cpu().numpy()

    fits = fitting(measure, "say a smaller model.max_length")
    sizes = [len(row["input_ids"]) for row in rows]
    tokens = tokens_at_once(budget, model, max(sizes, default=1), on_a_cpu=4096)
    for batch in track(length_batches(sizes, tokens), "log-probabilities"):
        fits(batch)
    return sums, lengths


def _attached(
    model: nn.Module, head: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, labelled: torch.Tensor
) -> torch.Tensor:
    """Log-probabilities [labelled tokens], their slopes by the hidden states taken on the spot."""
    states: list[torch.Tensor] = []

    def detach(hidden: torch.Tensor) -> torch.Tensor:
        chosen = hidden.flatten(0, 1)[labelled][None]
        states.extend((chosen, chosen.detach().requires_grad_()))
        return states[1]

    with head_input(head, detach):
        logits = model(input_ids=inputs, use_cache=False).logits  # [1, labelled tokens, vocabulary]
    hidden, leaf = states
    scores, places = _log_softmax(logits.detach()), labels[None, :, None]
    values = scores.gather(2, places)
    error = scores.exp_().scatter_add_(2, places, torch.full_like(values, -1))  # −∂log π/∂logits
    (slope,) = torch.autograd.grad(logits, leaf, error.to(logits.dtype))
    # the second term is zero; its gradient is the log-probability's
    return (values[..., 0] + ((leaf.detach() - hidden) * slope).sum(-1))[0]


def _log_softmax(logits: torch.Tensor) -> torch.Tensor:
    return nn.functional.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), dim=-1)


@contextmanager
def head_input(head: nn.Module, replace: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Has `replace` change the head's input in the model's own forward pass, soft caps and all."""
    hook = head.register_forward_pre_hook(lambda module, args: (replace(args[0]), *args[1:]))
    try:
        yield
    finally:
        hook.remove()
