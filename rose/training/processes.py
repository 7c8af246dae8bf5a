"""How several processes (`rose.ranks`) share a training's rows and make a single one's steps."""

from collections.abc import Iterator
from typing import Any

from accelerate.data_loader import SeedableRandomSampler
from datasets import Dataset, concatenate_datasets
from torch.utils.data import Sampler
from transformers import Trainer

from rose import ranks
from rose.config.schema import Training
from rose.errors import RoseError
from rose.models.batching import IGNORED
from rose.models.log_probs import unwrapped
from rose.models.memory import tokens_at_once

ON_A_CPU = 2048  # tokens in memory at once, for auto


def micro_batches(training: Training, group: str = "") -> tuple[int, int]:
    """Rows a process holds at once, at most `micro_batch_size`, and how many times a step.

    For auto one row, in place of which `rows_at_once` puts a better number. Raises RoseError where the
    processes cannot share the batch equally; `group` is what the keys in its message begin with.
    """
    batch, count = training.batch_size, ranks.world_size()
    each = batch // count
    if batch % count:
        raise RoseError(f"{group}batch_size={batch}: must be a multiple of the {count} processes")
    size = 1 if training.micro_batch_size == "auto" else min(training.micro_batch_size, each)
    if each % size:
        rows = f"the {each} rows of a batch that are each process's"
        raise RoseError(f"{group}micro_batch_size={size}: must divide {rows}")
    return size, each // size


def rows_at_once(model: Any, rows: Dataset, training: Training) -> int:
    """`micro_batch_size`; for auto the largest equal part of a step for which every process has room."""
    if isinstance(training.micro_batch_size, int):
        return training.micro_batch_size
    longest = max(map(_tokens, rows["input_ids"]), default=1)
    here = tokens_at_once("auto", unwrapped(model), longest, ON_A_CPU) // longest
    room, each = min(ranks.together(lambda: here)), training.batch_size // ranks.world_size()
    return max(part for part in range(1, each + 1) if each % part == 0 and part <= max(1, room))


def _tokens(row: Any) -> int:
    """Of a row, or of a pair, which has two of them."""
    return sum(map(len, row)) if row and isinstance(row[0], list) else len(row)


def evened(rows: Dataset, size: int) -> Dataset:
    """The rows, and idle ones, without labels, that fill every process's batches of `size`."""
    missing = -len(rows) % (size * ranks.world_size())
    if ranks.world_size() == 1 or not missing:
        return rows
    idle = {"input_ids": rows[0]["input_ids"], "labels": _ignored(rows[0]["labels"])}
    return concatenate_datasets([rows, Dataset.from_list([idle] * missing, features=rows.features)])


def ordered(trainer: type[Trainer], count: int, total: int) -> type[Trainer]:
    """A Trainer that shuffles the first `count` rows as a single process does; idle ones come last.

    accelerate would fill up the last batch with rows from the front, which then count twice.
    """

    class Ordered(trainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
            assert self.args.data_seed is not None
            return IdleLast(count, total, self.args.data_seed)

    return trainer if ranks.world_size() == 1 else Ordered


class IdleLast(Sampler):
    """accelerate's seeded order of `count` rows, new each epoch, then the rows up to `total`."""

    def __init__(self, count: int, total: int, seed: int) -> None:
        self.order, self.idle = SeedableRandomSampler(range(count), data_seed=seed), range(count, total)

    def __iter__(self) -> Iterator[int]:
        yield from self.order
        yield from self.idle

    def __len__(self) -> int:
        return len(self.order) + len(self.idle)

    def set_epoch(self, epoch: int) -> None:
        self.order.set_epoch(epoch)


def _ignored(labels: Any) -> Any:
    return [_ignored(label) for label in labels] if isinstance(labels, list) else IGNORED
