"""features.batch_tokens=auto: batches of the pool as large as a GPU's free memory takes."""

from rose import ranks
from rose.gradients.per_example import PerExample
from rose.models.memory import USABLE, free_bytes, token_bytes

ON_A_CPU = 2048  # tokens, as conf/features has them
VECTORS = 3  # as long as a gradient: Adam's two moments and a projection's signs


def batch_sizes(asked: int | str, engine: PerExample, most_rows: int, longest: int) -> tuple[int, int]:
    """Tokens and rows of a batch: as `asked`, or, for auto, what all of a job's processes have room for."""
    if isinstance(asked, int):
        return asked, most_rows
    if engine.device.type != "cuda":
        return ON_A_CPU, most_rows
    here = fitting(free_bytes(engine.device), token_bytes(engine.model, longest), 4 * engine.size)
    tokens, rows = zip(*ranks.together(lambda: here), strict=True)
    return min(tokens), min(rows)


def fitting(free: int, token: int, gradient: int) -> tuple[int, int]:
    """Tokens and rows of a batch that fit into `free` bytes, where a token and a row's gradient take so many.

    One half is for what is kept of the tokens for the backward pass, one for the gradients, which
    are there twice while Adam's map and the projection are at them.
    """
    half = max(0.0, USABLE * free - VECTORS * gradient) / 2
    return max(1, int(half / token)), max(1, int(half / (2 * gradient)))
