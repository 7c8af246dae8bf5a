"""What every system is measured on: one model, its rows, batches and Adam moments, and the exact answer."""

from pathlib import Path

import numpy
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from rose.gradients.adam import Moments
from rose.gradients.batching import collate, length_batches

ROWS, TARGETS = 256, 8
VOCABULARY, BATCH_TOKENS = 32_000, 2048
STEPS, STEP_ROWS = 20, 16  # of the Adam run that the moments come from
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


def model() -> PeftModel:
    """A random Llama of 8 layers × 512 with LoRA r=8 on q, k, v, o: p = 262,144."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=512,
    )
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
    adapted = get_peft_model(LlamaForCausalLM(config), lora).eval()
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    return adapted


def targets() -> list[dict]:
    """Rows of 30 to 512 random tokens, most of them short; loss on the last two thirds."""
    rng = numpy.random.default_rng(1)
    return [_row(rng.integers(0, VOCABULARY, length)) for length in _lengths(rng, TARGETS)]


def pool() -> list[dict]:
    """Rows that begin like one of the targets, each for another share of its length: some are near it, most
    are not.
    """
    rng = numpy.random.default_rng(2)
    made, aims = [], targets()
    for number, length in enumerate(_lengths(rng, ROWS)):
        ids = rng.integers(0, VOCABULARY, length)
        start = aims[number % TARGETS]["input_ids"][: round(rng.random() * length)]
        ids[: len(start)] = start
        made.append(_row(ids))
    return made


def _lengths(rng: numpy.random.Generator, count: int) -> list[int]:
    return numpy.clip(numpy.exp(rng.normal(4.7, 0.7, count)), 30, 512).astype(int).tolist()


def _row(ids: numpy.ndarray) -> dict:
    prompt = len(ids) // 3
    return {"input_ids": ids.tolist(), "labels": [-100] * prompt + ids[prompt:].tolist()}


def batches(of: list[dict]) -> list[list[int]]:
    return length_batches([len(row["input_ids"]) for row in of], BATCH_TOKENS)


def loop(adapted: PeftModel, of: list[dict]) -> torch.Tensor:
    """Gradients [rows, p] of each row's mean token loss, by one plain backward pass a row."""
    weights = [weight for weight in adapted.parameters() if weight.requires_grad]
    gradients = torch.empty(len(of), sum(weight.numel() for weight in weights))
    for row, into in zip(of, gradients, strict=True):
        inputs, labels = collate([row])
        logits = adapted(input_ids=inputs, use_cache=False).logits[0]
        loss = torch.nn.functional.cross_entropy(logits, labels[0])
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)], out=into)
    return gradients


def moments(gradients: torch.Tensor) -> Moments:
    """Adam's state after STEPS batches of STEP_ROWS pool rows, the weights held still."""
    rng = numpy.random.default_rng(3)
    first, second = torch.zeros(gradients.shape[1]), torch.zeros(gradients.shape[1])
    for _ in range(STEPS):
        step = gradients[rng.choice(len(gradients), STEP_ROWS, replace=False)].mean(0)
        first.mul_(BETA1).add_(step, alpha=1 - BETA1)
        second.mul_(BETA2).addcmul_(step, step, value=1 - BETA2)
    return Moments(first, second, STEPS, BETA1, BETA2, EPS)


def cosines(features: torch.Tensor, aims: torch.Tensor) -> torch.Tensor:
    """Cosine of each pool feature with each target feature: [rows, targets]."""
    return torch.nn.functional.normalize(features.float()) @ torch.nn.functional.normalize(aims.float()).T


def quality(found: torch.Tensor, exact: torch.Tensor) -> dict:
    """Error of cosines [rows, targets], and the share of each target's true top 5 % that is found, on
    average.
    """
    rmse = (found - exact).square().mean().sqrt().item()
    top = round(0.05 * len(exact))
    if len(exact) < ROWS:  # a handful of rows has no top 5 % to speak of
        return {"rmse_cos": rmse, "overlap_top5": None}
    pairs = zip(found.topk(top, dim=0).indices.T, exact.topk(top, dim=0).indices.T, strict=True)
    shared = [len(set(one.tolist()) & set(other.tolist())) / top for one, other in pairs]
    return {"rmse_cos": rmse, "overlap_top5": sum(shared) / len(shared)}


def save(folder: Path) -> None:
    """Exact gradients of pool and targets, and the moments: what all start from and are judged by."""
    adapted = model()
    gradients = loop(adapted, pool())
    state = moments(gradients)
    torch.save({"pool": gradients, "targets": loop(adapted, targets())}, folder / "exact.pt")
    torch.save({"exp_avg": state.exp_avg, "exp_avg_sq": state.exp_avg_sq}, folder / "moments.pt")


def load_moments(folder: Path) -> Moments:
    stored = torch.load(folder / "moments.pt")
    return Moments(stored["exp_avg"], stored["exp_avg_sq"], STEPS, BETA1, BETA2, EPS)


def load_exact(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients [rows, p] of the pool and of the targets."""
    stored = torch.load(folder / "exact.pt", mmap=True)
    return stored["pool"], stored["targets"]
