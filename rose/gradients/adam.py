"""From a raw gradient to the update Adam would make of it at a checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open

from rose.config.choices import AdamMap
from rose.errors import RoseError

COLUMNS = 1 << 16  # mapped at a time, so that temporaries stay in cache however wide gradients are
ELEMENTS = 1 << 26  # the same where a launch costs more than a cache miss: 256 MiB a temporary


@dataclass
class Moments:
    """Adam's state after `step` updates: means [p] of the gradient and of its square."""

    exp_avg: torch.Tensor
    exp_avg_sq: torch.Tensor
    step: int
    beta1: float
    beta2: float
    eps: float
    max_grad_norm: float = 0.0  # a longer gradient was cut to it before each update; 0: none was

    @classmethod
    def load(
        cls, file: Path, names: Sequence[str], step: int, settings: dict[str, float], device: torch.device | str = "cpu"
    ) -> "Moments":
        """Moments of the parameters `names`, in that order, from a warm-up's moments.safetensors.

        `settings` are the fields below `step`. Raises RoseError where a parameter is missing.
        """
        with safe_open(file, "pt") as stored:
            missing = {f"{name}.exp_avg" for name in names} - set(stored.keys())
            if missing:
                raise RoseError(f"{file}: no moments for {min(missing)}; the adapter is not the one it was saved with")
            first, second = (
                torch.cat([stored.get_tensor(f"{name}.{moment}").flatten() for name in names]).float().to(device)
                for moment in ("exp_avg", "exp_avg_sq")
            )
        return cls(first, second, step, **settings)


class Weights(NamedTuple):
    """Adam's map in numbers: g' = share·g, then (momentum·m + g') / (√(old·v + new·g'² + inside) + outside).

    Bias corrections are folded in, to save passes over the gradient.
    """

    share: float = 1.0
    momentum: float = 0.0
    old: float = 1.0
    new: float = 0.0
    inside: float = 0.0
    outside: float = 0.0

    @classmethod
    def of(cls, moments: Moments, how: AdamMap) -> "Weights":
        published = how == AdamMap.published
        first = 1.0 if published else 1 / (1 - moments.beta1 ** (moments.step + 1))
        second = 1.0 if published else 1 / (1 - moments.beta2 ** (moments.step + 1))
        share = (1 - moments.beta1) * first
        momentum = 0.0 if how == AdamMap.no_momentum else moments.beta1 * first
        new = (1 - moments.beta2) * second / share**2
        inside, outside = (1e-8, 0.0) if published else (0.0, moments.eps)
        return cls(share, momentum, moments.beta2 * second, new, inside, outside)


def clipping(gradients: torch.Tensor, moments: Moments, how: AdamMap) -> torch.Tensor | None:
    """What torch's clip_grad_norm_ would multiply each row by, [n, 1]; None where nothing is clipped."""
    if not moments.max_grad_norm or how == AdamMap.published:
        return None
    norms = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
    return (moments.max_grad_norm / (norms + 1e-6)).clamp(max=1)


def apply_adam(gradients: torch.Tensor, moments: Moments | None, how: AdamMap) -> torch.Tensor:
    """Turns raw gradients [n, p] into Adam's updates, in place.

    exact: what the optimizer's next step t would change, per unit learning rate and with its sign
    turned: m'/(1−β₁ᵗ) / (√(v'/(1−β₂ᵗ)) + ε), arXiv 1412.6980 with both bias corrections and ε
    outside the root. The gradient is clipped first, as the moments' own were.
    published: m'/√(v' + 1e-8) of the whole gradient, as the code of LESS and ROSE has it.
    no_momentum: exact without the old momentum in m', which all rows share:
    (1−β₁)g/(1−β₁ᵗ) / (√(v'/(1−β₂ᵗ)) + ε). Its scale does not matter to features of unit norm.
    none: unchanged.
    """
    if how == AdamMap.none:
        return gradients
    if moments is None:
        raise ValueError(f"features.adam={how} needs the checkpoint's moments")
    weights, clipped = Weights.of(moments, how), clipping(gradients, moments, how)
    scale = weights.share if clipped is None else weights.share * clipped
    width = COLUMNS if gradients.device.type == "cpu" else max(COLUMNS, ELEMENTS // max(1, len(gradients)))
    for start in range(0, gradients.shape[1], width):
        columns = slice(start, start + width)
        gradient = gradients[:, columns].mul_(scale)
        spread = moments.exp_avg_sq[columns] * weights.old
        spread = torch.addcmul(spread, gradient, gradient, value=weights.new)
        spread = spread.add_(weights.inside).sqrt_() if weights.inside else spread.sqrt_().add_(weights.outside)
        gradient.add_(moments.exp_avg[columns] * weights.momentum).div_(spread)
    return gradients
