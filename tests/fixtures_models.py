"""Small models for tests, and the arithmetic that they are checked with."""

import pytest
import torch
from method_toys import lines
from tiny_models import llama
from transformers import AutoModelForCausalLM

from rose.data import world


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A random model of the world's words, as the stage `base` leaves one."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = world.tokenizer()
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(llama(vocab_size=len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """Three preference pairs, as the stage `preferences` leaves them."""
    path = tmp_path_factory.mktemp("pairs")
    said = [("tomato", "rope lantern", "flour flour"), ("easel", "anchor", "pedals rope"), ("rope", "flour", "tomato")]
    rows = [
        {
            "id": str(i),
            "subtask": "a",
            "prompt": [{"role": "user", "content": prompt}],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
        }
        for i, (prompt, chosen, rejected) in enumerate(said)
    ]
    lines(path / "target.jsonl", rows)
    return path


@pytest.fixture
def double(monkeypatch):
    in_float64(monkeypatch)


def in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers computes norms, softmax and rotations in float32 whatever the model's type: here in
    float64.
    """
    softmax, to = torch.nn.functional.softmax, torch.Tensor.to
    monkeypatch.setattr(torch.nn.functional, "softmax", lambda x, dim=None, dtype=None: softmax(x, dim=dim))
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    widened = {torch.float32: torch.float64}

    def wide(value: object) -> object:
        return widened.get(value, value) if isinstance(value, torch.dtype) else value

    monkeypatch.setattr(torch.Tensor, "to", lambda x, *args, **kwargs: to(
        x, *map(wide, args), **{name: wide(value) for name, value in kwargs.items()}
    ))  # fmt: skip
