"""What every system is measured on: one model, its rows, batches and Adam moments, and the exact answer."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from rose.gradients.adam import Moments
from rose.gradients.features import GRADIENT_BYTES
from rose.models.batching import collate, length_batches

TARGETS = 8
STEPS, STEP_ROWS = 20, 16  # of the Adam run that the moments come from
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
MANY = 100  # rows from which on there is a top 5 % to speak of


@dataclass(frozen=True)
class Setting:
    """A random Llama with float32 LoRA on q, k, v, o (alpha 2 × rank), and the rows it is measured on."""

    layers: int
    width: int
    inner: int
    heads: int
    key_value_heads: int
    vocabulary: int
    rank: int
    rows: int
    batch_tokens: int = 2048
    dtype: torch.dtype = torch.float32
    device: str = "cpu"

    @property
    def size(self) -> int:
        """Weights of the adapter, p."""
        narrow = self.width * self.key_value_heads // self.heads
        return self.layers * self.rank * (6 * self.width + 2 * narrow)

    def model(self) -> PeftModel:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_value_heads,
            max_position_embeddings=512,
        )
        with torch.device(self.device):
            base = LlamaForCausalLM(config).to(self.dtype)
        lora = LoraConfig(
            r=self.rank, lora_alpha=2 * self.rank, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]
        )
        adapted = get_peft_model(base, lora).eval()
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.02)
        return adapted

    def targets(self) -> list[dict]:
        """Rows of 30 to 512 random tokens, most of them short; loss on the last two thirds."""
        rng = numpy.random.default_rng(1)
        return [_row(rng.integers(0, self.vocabulary, length)) for length in _lengths(rng, TARGETS)]

    def pool(self) -> list[dict]:
        """Rows that begin like one of the targets, each for another share of its length: some are near it, most
        are not.
        """
        rng = numpy.random.default_rng(2)
        made, aims = [], self.targets()
        for number, length in enumerate(_lengths(rng, self.rows)):
            ids = rng.integers(0, self.vocabulary, length)
            start = aims[number % TARGETS]["input_ids"][: round(rng.random() * length)]
            ids[: len(start)] = start
            made.append(_row(ids))
        return made

    def batches(self, of: list[dict]) -> list[list[int]]:
        lengths = [len(row["input_ids"]) for row in of]
        return length_batches(lengths, self.batch_tokens, max(1, GRADIENT_BYTES // (4 * self.size)))


SETTINGS = {
    "cpu": Setting(8, 512, 1376, 8, 8, 32_000, rank=8, rows=256),
    "tiny": Setting(1, 64, 64, 2, 2, 512, rank=8, rows=32),
}


def clock() -> float:
    """Seconds, once all that a GPU was asked to do is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def loop(adapted: PeftModel, of: list[dict]) -> torch.Tensor:
    """Gradients [rows, p] of each row's mean token loss, by one plain backward pass a row."""
    weights = [weight for weight in adapted.parameters() if weight.requires_grad]
    device = weights[0].device
    size, dtype = sum(weight.numel() for weight in weights), weights[0].dtype
    gradients = torch.empty(len(of), size, device=device, dtype=dtype)
    for row, into in zip(of, gradients, strict=True):
        inputs, labels = collate([row], device)
        logits = adapted(input_ids=inputs, use_cache=False).logits[0].to(dtype)
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
    if len(exact) < MANY:
        return {"rmse_cos": rmse, "overlap_top5": None}
    top = round(0.05 * len(exact))
    pairs = zip(found.topk(top, dim=0).indices.T, exact.topk(top, dim=0).indices.T, strict=True)
    shared = [len(set(one.tolist()) & set(other.tolist())) / top for one, other in pairs]
    return {"rmse_cos": rmse, "overlap_top5": sum(shared) / len(shared)}


def save(setting: Setting, folder: Path) -> dict:
    """Exact gradients of pool and targets, and the moments: what all start from and are judged by."""
    adapted = setting.model()
    gradients, aims = loop(adapted, setting.pool()).cpu(), loop(adapted, setting.targets()).cpu()
    state = moments(gradients)
    torch.save({"pool": gradients, "targets": aims}, folder / "exact.pt")
    torch.save({"exp_avg": state.exp_avg, "exp_avg_sq": state.exp_avg_sq}, folder / "moments.pt")
    return {}


def load_moments(folder: Path, device: str) -> Moments:
    stored = torch.load(folder / "moments.pt", map_location=device)
    return Moments(stored["exp_avg"], stored["exp_avg_sq"], STEPS, BETA1, BETA2, EPS)


def load_exact(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients [rows, p] of the pool and of the targets."""
    stored = torch.load(folder / "exact.pt", mmap=True)
    return stored["pool"], stored["targets"]


def _lengths(rng: numpy.random.Generator, count: int) -> list[int]:
    return numpy.clip(numpy.exp(rng.normal(4.7, 0.7, count)), 30, 512).astype(int).tolist()


def _row(ids: numpy.ndarray) -> dict:
    prompt = len(ids) // 3
    return {"input_ids": ids.tolist(), "labels": [-100] * prompt + ids[prompt:].tolist()}
