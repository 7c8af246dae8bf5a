"""The exact gradient of every row of a batch by the LoRA weights, in one forward and backward pass.

Only the LoRA branch is ours; base layers are left to autograd, so frozen half-precision bases work
as they are. For a layer y = Wx + s·B(Ax), a row with inputs x [t, in] and output gradients g
[t, out] contributes dA = s·(gB)ᵀx and dB = s·gᵀ(xAᵀ): two small matrix products a row, batched over
rows, instead of one backward pass a row.
"""

import functools
from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear, LoraLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from rose.errors import RoseError
from rose.models.batching import Encoded, collate
from rose.models.log_probs import token_log_probs

HALF_SCALE = 1024.0  # of losses on float16 bases, lest gradients below 6e-8 vanish on the way


class _Branch(torch.autograd.Function):
    """base + s·(xAᵀ)Bᵀ, whose backward pass writes each row's dA and dB into the engine's buffer."""

    @staticmethod
    def forward(
        ctx: Any,
        base: torch.Tensor,
        x: torch.Tensor,
        a: nn.Parameter,
        b: nn.Parameter,
        scaling: float,
        engine: "PerExample",
        name: str,
    ) -> torch.Tensor:
        inner = engine.widened(x) @ a.T  # [n, t, rank]
        ctx.save_for_backward(x, inner, a, b)
        ctx.scaling, ctx.engine, ctx.name = scaling, engine, name
        if base.dtype != a.dtype:
            return (base + scaling * (inner @ b.T)).to(base.dtype)
        flat = torch.addmm(base.flatten(0, 1), inner.flatten(0, 1), b.T, alpha=scaling)
        return flat.view(base.shape)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = grad_outputs
        x, inner, a, b = ctx.saved_tensors
        g = gradient.to(a.dtype)
        outer = (g @ b).mul_(ctx.scaling)  # [n, t, rank]
        (into_a, into_b), beta = ctx.engine.into(ctx.name, a, b)
        into_a.baddbmm_(outer.mT, ctx.engine.widened(x), beta=beta)
        into_b.baddbmm_(g.mT, inner, beta=beta, alpha=ctx.scaling)
        passed = (outer @ a).to(x.dtype) if ctx.needs_input_grad[1] else None
        return gradient, passed, None, None, None, None, None


class PerExample:
    """Per-example gradients of a PEFT model, whose LoRA layers it changes while inside.

        with PerExample(model) as engine:
            log_probs, mask = engine.forward(rows)
            gradients = engine.backward(-(log_probs.sum(1) / mask.sum(1)).sum())  # [n, p]

    `names` are the adapter's parameters in the order of `model.named_parameters()`, `slices` their
    columns, `size` the number of columns p. LoRA dropout is off inside; any other dropout is the
    caller's (`model.eval()`). Gradients are float32 (float64 for a float64 adapter) in a buffer
    that the next forward pass overwrites.

    Raises RoseError for weights it cannot account for: anything trainable beside plain LoRA on
    linear layers (DoRA, LoRA biases, embeddings, modules_to_save), or more than one active adapter.
    """

    def __init__(self, model: PeftModel) -> None:
        self.model = model
        self.layers = {name: layer for name, layer in model.named_modules() if _linear(layer)}
        self.names, self.slices = _columns(model, self.layers)
        self.size = max((columns.stop for columns in self.slices.values()), default=0)
        first = model.get_parameter(self.names[0])
        self.dtype, self.device = first.dtype, first.device
        self._buffer: torch.Tensor | None = None
        self._shape = torch.Size()  # of the batch: rows, tokens
        self._met: set[str] = set()  # layers that the backward pass has come to
        self._wide: tuple[torch.Tensor, torch.Tensor] | None = None  # a layer's input, and what it was cast to
        self._replaced: list[tuple[Linear, Any]] = []

    def __enter__(self) -> "PerExample":
        for name, layer in self.layers.items():
            self._replaced.append((layer, vars(layer).get("forward")))
            layer.forward = functools.partial(self._layer_forward, name, layer, layer.forward)
        return self

    def __exit__(self, *_: object) -> None:
        for layer, forward in self._replaced:
            if forward is None:
                del layer.forward
            else:
                layer.forward = forward
        self._replaced.clear()
        self._buffer = self._wide = None

    def forward(self, rows: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities of the rows' labels, 0 elsewhere, and where labels are: [n, t] both."""
        inputs, targets = collate(rows)
        self._buffer = None  # the one before is free first
        self._buffer = torch.empty(len(rows), self.size, dtype=self.dtype, device=self.device)
        self._shape = inputs.shape
        with torch.enable_grad():
            return token_log_probs(self.model, inputs, targets)

    def backward(self, loss: torch.Tensor, again: bool = False) -> torch.Tensor:
        """Gradients [n, p] of a scalar `loss`, each row's by that row's own use of the weights.

        For a sum of per-row losses that is every row's gradient; for losses of pairs, the two rows
        of a pair add up to the pair's gradient. `again` keeps the graph for another backward pass
        from the same forward pass.
        """
        if self._buffer is None:
            raise RuntimeError("backward before forward, or outside the engine's context")
        scale = HALF_SCALE if self.model.dtype == torch.float16 else 1.0
        self._met.clear()
        (loss * scale).backward(retain_graph=again)
        self._wide = None
        for name in self.names:
            if name.rpartition(".lora_")[0] not in self._met:  # the loss does not reach it
                self._buffer[:, self.slices[name]].zero_()
        return self._buffer.div_(scale) if scale != 1.0 else self._buffer

    def into(self, name: str, a: torch.Tensor, b: torch.Tensor) -> tuple[list[torch.Tensor], float]:
        """A layer's slices of the buffer, shaped as its `a` and `b`, and how much of what they hold is to stay.

        All of it where the pass has come to the layer before, else none: the buffer begins undefined.
        """
        if self._buffer is None:
            raise RuntimeError("a backward pass outside the engine's context")
        keys = (f"{name}.lora_{part}.{self.layers[name].active_adapters[0]}.weight" for part in "AB")
        parts = [
            self._buffer[:, self.slices[key]].view(-1, *weight.shape) for key, weight in zip(keys, (a, b), strict=True)
        ]
        met = name in self._met
        self._met.add(name)
        return parts, float(met)

    def widened(self, x: torch.Tensor) -> torch.Tensor:
        """A layer's input in the adapter's type, cast once for neighbours that share it, such as q, k and v."""
        if self._wide is None or self._wide[0] is not x:
            self._wide = x, x.to(self.dtype)
        return self._wide[1]

    def _layer_forward(
        self, name: str, layer: Linear, original: Any, x: torch.Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        if self._buffer is None or not torch.is_grad_enabled() or layer.disable_adapters or layer.merged:
            return original(x, *args, **kwargs)
        (rows, tokens), adapter = self._shape, layer.active_adapters[0]
        flat = x.dim() == 2 and len(x) == rows * tokens  # one row after the other, as OPT's fc1 sees them
        if not flat and (x.dim() != 3 or len(x) != rows):
            raise RoseError(
                f"model.lora.targets: layer {name} sees inputs of shape {tuple(x.shape)}, not [rows={rows}, "
                "tokens, features]; per-example gradients need layers that keep a row's tokens together"
            )
        a, b = (layer.get_parameter(f"{part}.{adapter}.weight") for part in ("lora_A", "lora_B"))
        base, scaling = layer.base_layer(x, *args, **kwargs), layer.scaling[adapter]
        if not flat:
            return _Branch.apply(base, x, a, b, scaling, self, name)
        by_row = (part.unflatten(0, (rows, tokens)) for part in (base, x))
        return _Branch.apply(*by_row, a, b, scaling, self, name).flatten(0, 1)


def _linear(layer: nn.Module) -> TypeGuard[Linear]:
    """LoRA on a linear layer; PEFT has classes of its own for it where the layer is quantised, which are alike."""
    return isinstance(layer, LoraLayer) and isinstance(layer.get_base_layer(), (nn.Linear, Conv1D))


def _columns(model: PeftModel, layers: dict[str, Linear]) -> tuple[list[str], dict[str, slice]]:
    """Names of the adapter's parameters in the model's order, and the columns each takes."""
    ours: set[str] = set()
    for name, layer in layers.items():
        active = [adapter for adapter in layer.active_adapters if adapter in layer.lora_A]
        if len(active) != 1 or layer.lora_variant.get(active[0]) is not None or layer.lora_bias.get(active[0]):
            raise RoseError(f"adapter on {name}: one active plain LoRA is allowed (no DoRA, no bias), got {active}")
        ours |= {f"{name}.{part}.{active[0]}.weight" for part in ("lora_A", "lora_B")}
    slices, stop = {}, 0
    for name, weight in model.named_parameters():
        if name in ours:
            slices[name] = slice(stop, stop + weight.numel())
            stop += weight.numel()
        elif weight.requires_grad:
            raise RoseError(f"adapter: trainable weight {name} is not a LoRA matrix of a linear layer")
    if not slices:
        raise RoseError("adapter: the model has no LoRA weights on linear layers")
    return list(slices), slices
