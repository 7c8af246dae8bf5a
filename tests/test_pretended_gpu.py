"""Whatever runs a model, on a pretended GPU: nothing is left on the CPU, and nobody waits for a batch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gradient_stages import NONE, NUMERICS, places, pool, stages_before, targets
from judged_answers import save_reward_model
from pretended_device import PretendedGpu
from tiny_models import distance, encoder, random_rows
from transformers import masking_utils

from rose.config.choices import AdamMap, Balance, ProjectionKind, Reference
from rose.config.compose import typed
from rose.config.schema import Evaluation, Projection
from rose.evaluation import answers, reward_model
from rose.gradients import batches, trajectory, trak
from rose.gradients.feature_store import FeatureStore
from rose.gradients.features import pool_cosines
from rose.gradients.objectives import Loss, Objective
from rose.gradients.projection import make_projector
from rose.methods import embedding, hidden
from rose.methods.readout import Readout
from rose.models import batching, loading, log_probs, memory

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device: nothing need be pretended")
SKETCH = Projection(kind=ProjectionKind.sketch, dim=64, seed=1)
TRAK = ProjectionKind.trak, 512, 0
DPO = Objective(Loss.dpo, 0.1, Reference.base)
WORDS = ["tomato", "lantern flour anchor easel pedals", "tomato " * 20]
PROMPTS = [[{"role": "user", "content": text}] for text in WORDS]
GREEDY = Evaluation(batch_tokens="auto", max_new_tokens=5, temperature=0.0, seed=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return stages_before(tmp_path_factory.mktemp("run"))


@pytest.fixture
def gpu(monkeypatch):
    """gpu(moved, waited): inside, it is the device; it has a gigabyte."""
    load = trajectory.load_peft_weights

    def begin(moved: list[torch.Size], waited: list[str] | None = None) -> PretendedGpu:
        monkeypatch.setattr(loading, "device", lambda: "cuda")
        monkeypatch.setattr(trajectory, "load_peft_weights", lambda folder, device: load(folder, device="cpu"))
        for module in (memory, batches):
            monkeypatch.setattr(module, "free_bytes", lambda _: 10**9)
        # it asks each batch whether rows are packed, and waits for the answer: transformers' own, once a pass
        monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", lambda _: None)
        return PretendedGpu(moved, waited)

    return begin


@pytest.mark.parametrize("batch_tokens", [30, 1000, "auto"])
def test_features_are_those_of_the_cpu_and_wait_for_no_batch(run, tmp_path, gpu, batch_tokens):
    expected, moved, waited = pool(run, tmp_path / "cpu", SKETCH), [], []
    with gpu(moved, waited):
        found = pool(run, tmp_path / "gpu", SKETCH, batch_tokens=batch_tokens)
    for checkpoint in (0, 1):
        assert distance(found.rows(checkpoint, 0, 7), expected.rows(checkpoint, 0, 7).double()) < 1e-5
    assert moved
    assert waited == ["cpu", "item"] * 2  # a checkpoint: the projection's digest, the first batch's look


def test_targets_and_cosines_are_those_of_the_cpu(run, tmp_path, gpu):
    root, _, _ = run

    def both(out: Path) -> list[torch.Tensor]:
        aims = targets(run, out / "targets", DPO, projection=NONE)
        (out / "cosines").mkdir()
        before = (root / "base", root / "warmup", root / "tokens", places(out / "targets")[0])
        pool_cosines(out / "cosines", 1, AdamMap.exact, 64, NUMERICS, *before)
        return [aims.rows(0, 0, 3), FeatureStore.open(out / "cosines").rows(0, 0, 7)]

    expected, waited = both(tmp_path / "cpu"), []
    with gpu([], waited):
        found = both(tmp_path / "gpu")
    assert all(distance(one, other.double()) < 1e-5 for one, other in zip(found, expected, strict=True))
    assert waited == []


PASSES: dict[str, Callable[[Any], Any]] = {
    "losses": lambda model: log_probs.answer_log_probs(model, random_rows([9, 12, 7, 15, 8]), "auto"),
    "one_pass": lambda model: list(hidden.one_pass(model, random_rows([9, 12, 7]), 0.5)),
    "readout": lambda model: Readout(model, 24, 3).gradients(random_rows([9, 12, 7]), True, Balance.tokens).cpu(),
}


@pytest.mark.parametrize("name", PASSES)
def test_forward_passes_are_those_of_the_cpu(base, gpu, name):
    expected, moved = PASSES[name](loading.load_model(base, NUMERICS)), []
    with gpu(moved):
        found = PASSES[name](loading.load_model(base, NUMERICS))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert moved


def test_answers_embeddings_and_rewards_are_those_of_the_cpu(base, composed, tmp_path, gpu):
    small = encoder(tmp_path / "encoder")
    save_reward_model(tmp_path / "reward", pads=True)
    judge = typed(composed("judge=reward_model", "judge.model=x", "judge.dtype=float32")).judge
    judge = replace(judge, model=str(tmp_path / "reward"))

    def said() -> tuple[list[str], torch.Tensor, torch.Tensor]:
        model = loading.load_model(base, NUMERICS)
        texts = answers.generate(model, loading.load_tokenizer(base), PROMPTS, 64, GREEDY)
        return texts, embedding.embed(small, WORDS), torch.tensor(reward_model.score(judge, PROMPTS, WORDS))

    expected, moved = said(), []
    with gpu(moved):
        found = said()
    assert found[0] == expected[0]
    torch.testing.assert_close(found[1:], expected[1:], rtol=1e-5, atol=1e-6)
    assert moved


@pytest.mark.parametrize("kept", [True, False])
def test_traks_matrix_is_the_cpus_and_the_log_says_why_it_is_not_drawn_by_fast_jl(gpu, monkeypatch, caplog, kept):
    monkeypatch.setattr(trak, "MATRIX_BYTES", 1 << 30 if kept else 0)
    rows, trak_512 = torch.randn(3, 900, generator=torch.Generator().manual_seed(0)), Projection(*TRAK)
    expected = make_projector(trak_512, 900, torch.device("cpu"), 3, 1)
    with gpu([]), caplog.at_level("INFO"):
        found = make_projector(trak_512, 900, torch.device("cuda"), 3, 1)
        there = found.project(rows.to("cuda"))
        assert there.device.type == "cuda"
    torch.testing.assert_close(there, expected.project(rows), rtol=1e-5, atol=1e-5)
    assert found.describe() == expected.describe()
    assert "fast_jl, whose 0.1.3 cannot be built with CUDA 13" in caplog.text


def test_a_batch_goes_to_the_gpu_from_pinned_memory(monkeypatch):
    pinned, moved = [], []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor.shape) or tensor)
    with PretendedGpu(moved):
        assert batching.moved(torch.ones(3), "cuda").device.type == "cuda"
        assert batching.moved(torch.ones(4), "cpu").device.type == "cpu"
    assert pinned == moved == [torch.Size([3])]
