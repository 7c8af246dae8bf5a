"""The product with a matrix of drawn signs (`dense.py`, its reference), in Triton: no sign is ever in memory."""

import math
from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports] — torch brings it along with CUDA
import triton.language as tl  # pyright: ignore[reportMissingImports]

ROWS, COORDINATES, WARPS = 32, 32, 8  # at most, and at a time: more rows do not fit into registers
PARTS = 32  # of the coordinates, to have programs for every core of a device


@triton.jit
def _signs(words):
    """[k] words of 64 bits to [k, 64] signs, in the order of numpy.unpackbits of their bytes."""
    place = tl.arange(0, 64)
    shift = (place // 8 * 8 + 7 - place % 8).to(tl.uint64)
    return ((words[:, None] >> shift[None, :]) & 1).to(tl.float32) * 2 - 1


@triton.jit
def _product(gradients, out, rows, size, stride, dim, groups, each, key, ROWS: tl.constexpr, COORDINATES: tl.constexpr):
    """A part's coordinates of ROWS rows, times their signs in one group of 256 columns."""
    row, group, part = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1), tl.program_id(2)
    is_row = row < rows
    start = gradients + row.to(tl.int64)[:, None] * stride
    zero = tl.zeros((COORDINATES,), tl.uint64)
    a = tl.zeros((ROWS, 64), tl.float32)
    b, c, d = a, a, a
    for first in range(part * each, tl.minimum(size, (part + 1) * each), COORDINATES):
        place = first + tl.arange(0, COORDINATES)
        inside = is_row[:, None] & (place < tl.minimum(size, (part + 1) * each))[None, :]
        value = tl.load(start + place[None, :], mask=inside, other=0.0)
        number = place.to(tl.uint64) * groups + group + 1
        one, two, three, four = tl.philox(key, number, zero, zero, zero)
        a += tl.dot(value, _signs(one), input_precision="tf32x3")  # a sign is exact in TF32: float32's precision
        b += tl.dot(value, _signs(two), input_precision="tf32x3")
        c += tl.dot(value, _signs(three), input_precision="tf32x3")
        d += tl.dot(value, _signs(four), input_precision="tf32x3")
    column = group * 256 + tl.arange(0, 64)[None, :]
    into = out + (part * rows + row).to(tl.int64)[:, None] * dim + column
    tl.store(into, a, mask=is_row[:, None] & (column < dim))
    tl.store(into + 64, b, mask=is_row[:, None] & (column + 64 < dim))
    tl.store(into + 128, c, mask=is_row[:, None] & (column + 128 < dim))
    tl.store(into + 192, d, mask=is_row[:, None] & (column + 192 < dim))


def project(gradients: torch.Tensor, dim: int, groups: int, key: int) -> torch.Tensor:
    """float32 [n, p] to [n, dim]; parts are added in a fixed order, so that a run that repeats has the same bytes."""
    count, size = gradients.shape
    each = math.ceil(size / PARTS / COORDINATES) * COORDINATES
    rows = min(ROWS, max(16, triton.next_power_of_2(count)))
    out = gradients.new_empty(math.ceil(size / each), count, dim)
    grid = math.ceil(count / rows), groups, len(out)
    kernel: Any = _product  # Triton makes of the function what its types do not say
    kernel[grid](
        *(gradients, out, count, size, gradients.stride(0), dim, groups, each, key),
        ROWS=rows,
        COORDINATES=COORDINATES,
        num_warps=WARPS,
    )
    return out.sum(0)
