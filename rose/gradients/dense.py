"""A dense matrix of random signs too large to keep: drawn by number wherever it is wanted, the same on every device."""

import math

import numpy
import torch

from rose.gradients import spaces, updates

GROUP = 256  # signs that a number has: what Philox makes of one
DRAWN = 1 << 24  # signs at a time where no kernel draws them


class Dense:
    """[n, p] @ [p, d] with a projector's names in traker; signs are the bits of numpy's Philox 4x64.

    Row i's signs have the numbers from i × ⌈d / GROUP⌉ on, so that any part of the matrix can be had
    without the rest. On CUDA devices with Triton a kernel draws them into registers.
    """

    def __init__(self, size: int, dim: int, key: int, device: torch.device) -> None:
        self.grad_dim, self.proj_dim, self.key, self.device = size, dim, key, device
        self.groups = math.ceil(dim / GROUP)

    def project(self, gradients: torch.Tensor, model_id: int = 0) -> torch.Tensor:
        if gradients.is_cuda and self.grad_dim < 2**31 and updates.fused() is not None:
            from rose.gradients import dense_kernel

            return dense_kernel.project(gradients, self.proj_dim, self.groups, self.key)
        out = gradients.new_zeros(len(gradients), self.proj_dim)
        rows = max(1, DRAWN // (self.groups * GROUP))
        for start in range(0, self.grad_dim, rows):
            part = gradients[:, start : start + rows]
            out.addmm_(part, self.signs(start, part.shape[1]).to(gradients.device))
        return out

    def signs(self, start: int, count: int) -> torch.Tensor:
        """Rows of the matrix: [count, dim]."""
        # numpy counts up before it draws, from 1 on
        raw = numpy.random.Philox(key=self.key, counter=start * self.groups).random_raw(4 * count * self.groups)
        return spaces.signs(raw, 64 * len(raw)).view(count, -1)[:, : self.proj_dim]
