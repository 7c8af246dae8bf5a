"""A device with room for so many rows, on a machine without one."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

FULL = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 5.00 MiB is free."
)


def lacking(room: int, do: Callable[..., Any], seen: list[int], rows: int = 1) -> Callable[..., Any]:
    """`do`, of whose arguments number `rows` may have `room` entries; `seen` hears how many it had."""

    def limited(*arguments: Any, **named: Any) -> Any:
        count = len(arguments[rows]) if isinstance(arguments[rows], Sequence | torch.Tensor) else 1
        seen.append(count)
        if count > room:
            raise torch.OutOfMemoryError(FULL)
        return do(*arguments, **named)

    return limited
