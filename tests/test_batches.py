"""features.batch_tokens=auto: what fits, and that features do not depend on it."""

import re
from types import SimpleNamespace

import pytest
import torch
from gradient_stages import pool, stages_before
from tiny_models import CUDA, adapted, distance, llama, random_rows
from transformers import Gemma2Config, GPT2Config

from rose.config.choices import ProjectionKind
from rose.config.compose import typed
from rose.config.schema import Projection
from rose.errors import RoseError
from rose.gradients import batches
from rose.gradients.batches import batch_sizes, fitting
from rose.gradients.per_example import PerExample
from rose.models import memory
from rose.models.memory import token_bytes, tokens_at_once

GPT2 = GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
GEMMA2 = Gemma2Config(  # its attention is not fused
    vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=8, sliding_window=8, max_position_embeddings=128,
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return stages_before(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [llama(), llama(hidden_size=64, num_hidden_layers=4), GPT2, GEMMA2])
def test_a_token_keeps_no_more_than_is_estimated_and_no_less_than_a_fourth(config, dtype):
    model, rows = adapted(config, "all-linear", dtype=dtype), random_rows([100] * 6)
    own = {weight.untyped_storage().data_ptr() for weight in [*model.parameters(), *model.buffers()]}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with PerExample(model) as engine, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        engine.forward(rows)
    taken = sum(storage.nbytes() for address, storage in kept.items() if address not in own) / 600
    assert taken <= token_bytes(model, 100) <= 4 * taken


def test_tokens_and_gradients_share_what_is_free():
    assert fitting(10**9, token=1000, gradient=10**6) == (398_500, 199)  # (0.8·10⁹ − 3·10⁶)/2 bytes each
    assert fitting(2 * 10**9, token=1000, gradient=10**6)[0] == 798_500
    assert fitting(1000, token=1000, gradient=10**6) == (1, 1)  # a row at a time, and then the device says so


def test_a_number_is_taken_as_it_is_and_a_cpu_has_one_of_its_own():
    engine = PerExample(adapted())
    assert batch_sizes(77, engine, 5, 10) == (77, 5)
    assert batch_sizes("auto", engine, 5, 10) == (2048, 5)


def test_all_processes_make_the_batches_of_the_one_with_the_least_room(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10**9, 0))
    for name in ("memory_reserved", "memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda _: 0)
    monkeypatch.setattr(batches.ranks, "together", lambda do: [do(), (5, 10**9)])
    engine = SimpleNamespace(device=torch.device("cuda", 0), model=adapted(), size=1000)
    rows = fitting(10**9, token_bytes(engine.model, 10), 4000)[1]
    assert batch_sizes("auto", engine, 3, 10) == (5, rows)


@pytest.mark.parametrize("sizes", [(1, 1), (64, 100), (10**6, 100)])
def test_features_are_the_same_but_for_rounding_however_many_tokens_fit(run, tmp_path, monkeypatch, sizes):
    sketch = Projection(kind=ProjectionKind.sketch, dim=256, seed=1)
    expected = pool(run, tmp_path / "expected", sketch, batch_tokens=2048)
    monkeypatch.setattr("rose.gradients.features.batch_sizes", lambda *_: sizes)
    store = pool(run, tmp_path / "auto", sketch, batch_tokens="auto")
    for checkpoint in range(len(store.checkpoints)):
        own, other = store.rows(checkpoint, 0, 7), expected.rows(checkpoint, 0, 7)
        assert distance(own, other.double()) < 1e-4  # not to the byte: a sum's order depends on the batch's shape


@CUDA
def test_a_gpu_takes_what_auto_gives_it():
    model = adapted(llama(), dtype=torch.bfloat16).to("cuda")
    engine = PerExample(model)
    tokens, rows = batch_sizes("auto", engine, 1, 100)
    assert tokens > 2048 and rows > 1


@pytest.mark.parametrize("key", ["features.batch_tokens", "evaluation.batch_tokens", "finetune.micro_batch_size"])
@pytest.mark.parametrize("value", ["0", "lots", "2.5", "true", "null"])
def test_other_values_are_refused(composed, key, value):
    with pytest.raises(RoseError, match=re.escape(key) + "=.*: must be 1 or more, or auto"):
        typed(composed(f"{key}={value}"))


def test_other_batches_take_all_that_a_gpu_has_room_for(monkeypatch):
    gpu = SimpleNamespace(device=torch.device("cuda"))
    monkeypatch.setattr(memory, "free_bytes", lambda _: 10**9)
    monkeypatch.setattr(memory, "token_bytes", lambda model, longest: 1000 * longest)
    assert tokens_at_once("auto", gpu, 10, on_a_cpu=7) == 80_000  # 0.8·10⁹ / (1000·10)
    assert tokens_at_once("auto", SimpleNamespace(device=torch.device("cpu")), 10, on_a_cpu=7) == 7
    assert tokens_at_once(77, gpu, 10, on_a_cpu=7) == 77
