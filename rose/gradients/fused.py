"""Adam's map, clipping and the sketch in one pass over the gradients: a Triton kernel for CUDA devices.

What it computes is `Sketch.project(apply_adam(gradients, moments, how))` (`adam.py`, `sketch.py`), its
reference, up to the rounding of float32. A gradient is read once, the moments once for ROWS rows, a
sign is a bit, and nothing of a gradient's size is written.
"""

import math
from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports] — torch brings it along with CUDA
import triton.language as tl  # pyright: ignore[reportMissingImports]

from rose.config.choices import AdamMap
from rose.gradients.adam import Moments, Weights, clipping
from rose.gradients.sketch import Sketch

ROWS, BLOCK = 8, 512  # rows and buckets of a program
PARTS = 16  # of the chunks, to have programs for every core of a device


@triton.jit
def _fold(
    gradients,
    scales,
    first,
    second,
    bits,
    shifts,
    out,
    rows,
    size,
    stride,
    chunks,
    each,
    momentum,
    old,
    new,
    inside,
    outside,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    ADAM: tl.constexpr,
):
    """A part's chunks of ROWS rows, summed into BLOCK of DIM buckets, in the chunks' order."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    bucket = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    part = tl.program_id(2)
    is_row, is_bucket = row < rows, bucket < DIM
    start = gradients + row.to(tl.int64)[:, None] * stride
    scale = tl.load(scales + row, mask=is_row, other=0.0)[:, None]
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for chunk in range(part * each, tl.minimum(chunks, (part + 1) * each)):
        column = bucket - tl.load(shifts + chunk)  # what is rolled into the bucket
        column = tl.where(column < 0, column + DIM, column) + chunk * DIM
        is_column = is_bucket & (column < size)
        value = tl.load(start + column[None, :], mask=is_row[:, None] & is_column[None, :], other=0.0) * scale
        if ADAM:
            mean = tl.load(first + column, mask=is_column, other=0.0) * momentum
            square = tl.load(second + column, mask=is_column, other=1.0) * old + inside
            value = (mean[None, :] + value) / (tl.sqrt(square[None, :] + new * (value * value)) + outside)
        byte = tl.load(bits + column // 8, mask=is_column, other=0).to(tl.int32)
        sign = ((byte >> (7 - column % 8)) & 1) * 2 - 1
        total += tl.where(is_column, sign.to(tl.float32), 0.0)[None, :] * value
    place = (part * rows + row).to(tl.int64)[:, None] * DIM + bucket[None, :]
    tl.store(out + place, total, mask=is_row[:, None] & is_bucket[None, :])


def project(gradients: torch.Tensor, moments: Moments | None, how: AdamMap, sketch: Sketch) -> torch.Tensor:
    """float32 [n, p] to [n, d], `gradients` left as they are; a run that repeats has the same bytes."""
    if moments is None or how == AdamMap.none:
        weights, clipped, first, second = Weights(), None, gradients, gradients
    else:
        weights, clipped = Weights.of(moments, how), clipping(gradients, moments, how)
        first, second = moments.exp_avg, moments.exp_avg_sq
    scales = gradients.new_full((len(gradients), 1), weights.share)
    scales = scales if clipped is None else scales * clipped
    chunks = len(sketch.shifts)
    each = math.ceil(chunks / min(PARTS, chunks))
    parts = math.ceil(chunks / each)
    rows = min(ROWS, triton.next_power_of_2(len(gradients)))
    out = gradients.new_empty(parts, len(gradients), sketch.dim)
    grid = math.ceil(len(gradients) / rows), math.ceil(sketch.dim / BLOCK), parts
    kernel: Any = _fold  # Triton makes of the function what its types do not say
    kernel[grid](
        *(gradients, scales, first, second, sketch.bits, sketch.rolls, out),
        *(len(gradients), sketch.size, gradients.stride(0), chunks, each),
        *(weights.momentum, weights.old, weights.new, weights.inside, weights.outside),
        DIM=sketch.dim,
        ROWS=rows,
        BLOCK=BLOCK,
        ADAM=how != AdamMap.none,
    )
    return out.sum(0)
