"""What a row or a pair is differentiated by: small functions of token log-probabilities.

Preference losses take interleaved rows (chosen, rejected, chosen, …); the gradients of a pair's two
rows add up to the pair's. Balancing takes one forward pass, and a backward pass a token or segment.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch.nn.functional import logsigmoid

from rose.config.choices import Balance, Reference
from rose.gradients.per_example import PerExample
from rose.models.batching import Encoded

Loss = StrEnum("Loss", ["sft", "dpo", "ipo", "ipo_mean", "simpo", "contrast"])


@dataclass(frozen=True)
class Objective:
    """A target's loss; what cannot change its outcome is None, so that equal outcomes hash equal.

    loss: sft is the chosen answer's mean cross-entropy. beta None: the loss is linear in the
    margin. reference None: no reference's log-probabilities are subtracted, and none need be
    computed. segments: with balance=segments only. gamma: with simpo only. first_tokens: an
    answer's later tokens do not count; None: all do.
    """

    loss: Loss
    beta: float | None = None
    reference: Reference | None = None
    balance: Balance = Balance.none
    segments: int | None = None
    gamma: float | None = None
    first_tokens: int | None = None

    @property
    def paired(self) -> bool:
        """Whether rows are interleaved pairs; otherwise each row is an answer of its own."""
        return self.loss is not Loss.sft


SFT = Objective(Loss.sft)


def gradients(
    engine: PerExample, rows: Sequence[Encoded], objective: Objective, reference: torch.Tensor | None = None
) -> torch.Tensor:
    """Gradients [n, p], of pairs [n/2, p]; `reference` is each row's log-probability there, [n]."""
    if objective.balance is not Balance.none:
        each = _balanced(engine, rows, objective)
        return each[0::2] - each[1::2] if objective.paired else each
    log_probs, mask = engine.forward(rows)
    each = engine.backward(losses(objective, log_probs, mask, reference).sum())
    return each[0::2] + each[1::2] if objective.paired else each


def losses(
    objective: Objective, log_probs: torch.Tensor, mask: torch.Tensor, reference: torch.Tensor | None = None
) -> torch.Tensor:
    """Loss of each row (sft) or pair from log-probabilities [n, t], of which a row's sum counts.

    With sft, simpo and ipo_mean it is the row's mean. dpo: −log σ(β·margin), arXiv 2305.18290;
    ipo: (margin − 1/2β)², 2310.12036, whose equation sums an answer's log-ratios; ipo_mean: the same
    with their mean per token, as TRL has it (and, it says, the paper's experiments); simpo: −log σ(β·mean margin − γ),
    2405.14734; contrast (and β None): −margin.
    """
    scores = log_probs.sum(1)
    if objective.reference is not None:
        assert reference is not None
        scores = scores - reference
    if objective.loss in (Loss.sft, Loss.simpo, Loss.ipo_mean):
        scores = scores / mask.sum(1)
    if not objective.paired:
        return -scores
    margin = scores[0::2] - scores[1::2]
    if objective.beta is None:
        return -margin
    if objective.loss in (Loss.ipo, Loss.ipo_mean):
        return (margin - 1 / (2 * objective.beta)) ** 2
    return -logsigmoid(objective.beta * margin - (objective.gamma or 0.0))


def _balanced(engine: PerExample, rows: Sequence[Encoded], objective: Objective) -> torch.Tensor:
    """Sum (sft, simpo: mean) of a row's unit gradients of −log π by token or segment: [n, p]."""
    log_probs, mask = engine.forward(rows)
    part = places(mask, objective.segments)
    count = int(part.max()) + 1
    total = torch.zeros(len(rows), engine.size, dtype=engine.dtype, device=engine.device)
    for index in range(count):
        loss = -(log_probs * (part == index)).sum()
        each = engine.backward(loss, again=index + 1 < count)
        norms = torch.linalg.vector_norm(each, dim=1, keepdim=True)
        total.addcdiv_(each, torch.where(norms == 0, 1, norms))
    return total / (part.amax(1, keepdim=True) + 1) if objective.loss in (Loss.sft, Loss.simpo) else total


def places(mask: torch.Tensor, segments: int | None) -> torch.Tensor:
    """Which segment each token belongs to: [n, t], −1 outside `mask`.

    Segments are consecutive and as equal as can be. Where `segments` is None or an answer has fewer
    tokens, each token is one.
    """
    rank = mask.long().cumsum(1) - 1
    if segments is not None:
        count = mask.sum(1, keepdim=True)
        rank = torch.where(count > segments, rank * segments // count.clamp(min=1), rank)
    return rank.masked_fill(~mask, -1)
