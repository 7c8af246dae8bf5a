"""Adam's map against the optimizer itself and against the formulas written out."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import CUDA

from rose.config.choices import AdamMap
from rose.errors import RoseError
from rose.gradients import adam
from rose.gradients.adam import Moments, apply_adam

BETAS, EPS, STEPS = (0.9, 0.999), 1e-8, 7


def after_some_steps(size=40):
    """A real optimizer after STEPS updates, its weight, and gradients of the magnitudes LoRA weights see."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(size, dtype=torch.float64))
    optimizer = torch.optim.AdamW([weight], lr=1.0, betas=BETAS, eps=EPS, weight_decay=0.0)
    for _ in range(STEPS):
        weight.grad = 1e-6 * torch.randn(size, dtype=torch.float64, generator=generator)
        optimizer.step()
    state = optimizer.state[weight]
    moments = Moments(state["exp_avg"].clone(), state["exp_avg_sq"].clone(), STEPS, *BETAS, EPS)
    return optimizer, weight, moments, 1e-6 * torch.randn(3, size, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_is_the_change_that_one_real_step_makes(dtype):
    _, _, moments, gradients = after_some_steps()
    cast = Moments(moments.exp_avg.to(dtype), moments.exp_avg_sq.to(dtype), STEPS, *BETAS, EPS)
    updates = apply_adam(gradients.to(dtype, copy=True), cast, AdamMap.exact)
    for gradient, update in zip(gradients, updates, strict=True):
        optimizer, weight, _, _ = after_some_steps()
        before = weight.detach().clone()
        weight.grad = gradient.clone()
        optimizer.step()
        torch.testing.assert_close(
            update.double(),
            before - weight.detach(),
            rtol=1e-5 if dtype == torch.float32 else 1e-9,
            atol=1e-9,
        )


@pytest.mark.parametrize("limit", [1e-6, 1.0])
@pytest.mark.parametrize("how", [AdamMap.exact, AdamMap.no_momentum])
def test_a_row_is_clipped_as_a_real_step_would_clip_it(how, limit):
    _, _, moments, gradients = after_some_steps()
    gradients *= limit * torch.tensor([[1e4], [1e5], [8e6]])  # norms around the limit and far above
    updates = apply_adam(gradients.clone(), replace(moments, max_grad_norm=limit), how)
    for gradient, update in zip(gradients, updates, strict=True):
        optimizer, weight, _, _ = after_some_steps()
        if how == AdamMap.no_momentum:
            optimizer.state[weight]["exp_avg"].zero_()
        before = weight.detach().clone()
        weight.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_([weight], limit)
        optimizer.step()
        torch.testing.assert_close(update, before - weight.detach(), rtol=1e-9, atol=1e-9)


def test_published_has_epsilon_inside_the_root_and_no_bias_correction():
    _, _, moments, gradients = after_some_steps()
    first = 0.9 * moments.exp_avg + 0.1 * gradients
    second = 0.999 * moments.exp_avg_sq + 0.001 * gradients**2
    expected = first / torch.sqrt(second + 1e-8)
    clipping = replace(moments, max_grad_norm=1e-7)  # the code of LESS does not clip rows
    torch.testing.assert_close(apply_adam(gradients.clone(), clipping, AdamMap.published), expected)


def test_without_momentum_only_the_row_moves_the_weights():
    _, _, moments, gradients = after_some_steps()
    second = (0.999 * moments.exp_avg_sq + 0.001 * gradients**2) / (1 - 0.999 ** (STEPS + 1))
    expected = 0.1 * gradients / (1 - 0.9 ** (STEPS + 1)) / (second.sqrt() + EPS)
    torch.testing.assert_close(apply_adam(gradients.clone(), moments, AdamMap.no_momentum), expected)


def test_none_changes_nothing_and_needs_no_moments():
    gradients = torch.randn(2, 5)
    assert torch.equal(apply_adam(gradients.clone(), None, AdamMap.none), gradients)


def test_the_map_is_in_place_and_does_not_depend_on_its_chunks(monkeypatch):
    _, _, moments, gradients = after_some_steps()
    whole = apply_adam(gradients.clone(), moments, AdamMap.exact)
    monkeypatch.setattr(adam, "COLUMNS", 7)
    mapped = apply_adam(gradients, moments, AdamMap.exact)
    assert mapped is gradients
    assert torch.equal(mapped, whole)


def test_moments_are_loaded_in_the_order_of_the_names(tmp_path):
    stored = {}
    for name, value in (("a", 1.0), ("b", 2.0)):
        stored[f"{name}.exp_avg"] = torch.full((2, 2), value)
        stored[f"{name}.exp_avg_sq"] = torch.full((2, 2), value + 0.5)
    save_file(stored, tmp_path / "moments.safetensors")
    optimizer = {"beta1": 0.8, "beta2": 0.9, "eps": 1e-6, "max_grad_norm": 0.5}
    moments = Moments.load(tmp_path / "moments.safetensors", ["b", "a"], 4, optimizer)
    assert moments.exp_avg.tolist() == [2.0] * 4 + [1.0] * 4
    assert moments.exp_avg_sq.tolist() == [2.5] * 4 + [1.5] * 4
    assert (moments.step, moments.beta1, moments.beta2, moments.eps) == (4, 0.8, 0.9, 1e-6)
    assert moments.max_grad_norm == 0.5
    with pytest.raises(RoseError, match="no moments for c"):
        Moments.load(tmp_path / "moments.safetensors", ["a", "c"], 4, optimizer)


@CUDA
@pytest.mark.parametrize("how", [AdamMap.exact, AdamMap.published])
def test_a_gpu_maps_as_the_cpu_does(how):
    _, _, moments, gradients = after_some_steps(size=3 * adam.COLUMNS + 5)
    there = Moments(moments.exp_avg.cuda(), moments.exp_avg_sq.cuda(), STEPS, *BETAS, EPS)
    found = apply_adam(gradients.cuda(), there, how).cpu()
    torch.testing.assert_close(found, apply_adam(gradients, moments, how), rtol=1e-12, atol=0)
