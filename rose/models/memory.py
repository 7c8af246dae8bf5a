"""Batches that do not fit the device's memory are halved."""

import logging
from collections.abc import Callable

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from rose.errors import RoseError, one_line

log = logging.getLogger(__name__)

Batch = list[int]  # row numbers


def fitting(do: Callable[[Batch], None], remedy: str) -> Callable[[Batch], None]:
    """`do` of a batch, by halves, quarters, … where the device has no room for all of it.

    Rows do not depend on one another, so what becomes of them is the same but for rounding. Later
    batches are cut into as many parts at once. Raises RoseError where a row alone does not fit;
    `remedy` says what to set.
    """
    parts = 1

    def by_parts(batch: Batch) -> None:
        nonlocal parts
        done, size = 0, -(-len(batch) // parts)
        while done < len(batch):
            part = batch[done : done + size]
            fault = _attempt(do, part)
            if fault is None:
                done += len(part)
                continue
            if len(part) == 1:
                reason = f"a row alone does not fit the device's memory ({one_line(fault, 150)})"
                raise RoseError(f"{reason}; {remedy}") from fault
            size, parts = -(-len(part) // 2), 2 * parts
            log.warning("%d rows do not fit the device's memory at once: batches are cut into %d", len(part), parts)

    return by_parts


def _attempt(do: Callable[[Batch], None], part: Batch) -> RuntimeError | None:
    """What the device said if it lacked the memory; all that was taken for it is free again."""
    try:
        do(part)
        return None
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not should_reduce_batch_size(error):
            raise
        fault = error.with_traceback(None)  # its frames hold the batch's tensors
    clear_device_cache(garbage_collection=True)
    return fault
