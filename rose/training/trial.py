"""The trial stage: one short row through a model, before hours of work rest on it."""

from pathlib import Path
from typing import Any

import torch

from rose.config.schema import Lora, Numerics
from rose.data import chat
from rose.data.rows import Message
from rose.errors import RoseError
from rose.gradients.objectives import SFT, gradients
from rose.gradients.per_example import PerExample
from rose.models import loading
from rose.models.batching import collate
from rose.models.log_probs import token_log_probs
from rose.stages.graph import stage
from rose.training.bare import positions, refuse_positions
from rose.training.sharded import fresh_adapter

TURNS = [Message(role="user", content="Who is there?"), Message(role="assistant", content="A rose.")]
LENGTH = 1024  # tokens that the turns and a template's own words must fit in


@stage("trial", version=1, together=True)
def try_out(
    out: Path,
    max_length: int,
    answer: tuple[str, int] | None,
    lora: Lora | None,
    per_example: bool,
    numerics: Numerics,
    base: Path,
) -> None:
    """Writes nothing; fails where the model, its tokenizer, chat template or adapter would fail later.

    A forward pass; with an adapter (`lora`) a backward pass as in training, and one of per-example
    gradients where they will be taken.
    """
    tokenizer = loading.load_tokenizer(base)
    row = chat.encode(tokenizer, TURNS, LENGTH)
    if row is None:
        fault = "its chat template leaves no answer to learn in a short conversation"
        raise RoseError(f"{tokenizer.name_or_path}: {fault}")
    adapted = None if lora is None else fresh_adapter(base, lora, numerics, seed=0)
    model: Any = loading.load_model(base, numerics) if adapted is None else adapted.get_base_model()
    if (places := positions(model)) is not None:
        refuse_positions(places, max_length, answer, "model")
    if adapted is None:
        with torch.no_grad():
            token_log_probs(model, *collate([row], loading.device()))
        return
    with torch.random.fork_rng():  # dropout draws
        log_probs, _ = token_log_probs(adapted.train(), *collate([row], loading.device()))
        log_probs.sum().backward()
    if per_example and not numerics.sharded:  # for its gradients a model that is shared out is loaded whole
        with PerExample(adapted.eval()) as engine:
            gradients(engine, [row, row], SFT)
