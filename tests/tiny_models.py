"""Random models of a few thousand weights, settings to train them by, and the slow way to a gradient."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.functional import log_softmax
from transformers import AutoModelForCausalLM, BertConfig, BertModel, LlamaConfig, PreTrainedConfig

from rose.config.choices import Dtype
from rose.config.schema import Base, Lora, Numerics, Training
from rose.data import world
from rose.gradients.per_example import PerExample

VOCABULARY = 61
LENGTHS = [5, 23, 11, 40, 2]  # of rows
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=CUDA)]
SAME_BYTES = pytest.mark.skipif(torch.cuda.is_available(), reason="the same bytes are for CPUs: CUDA_VISIBLE_DEVICES=")
NUMERICS = Numerics(dtype=Dtype.float32, attention="sdpa", sharded=False)
LORA = Lora(rank=4, alpha=8, dropout=0.0, targets=["q_proj", "v_proj"], rank_stabilized=False)
TRAINING = Training(
    epochs=12,
    learning_rate=0.02,
    batch_size=2,
    micro_batch_size=1,
    schedule="linear",
    warmup_ratio=0.0,
    weight_decay=0.0,
    max_grad_norm=1.0,
    gradient_checkpointing=False,
    seed=0,
)


def llama(**changes) -> LlamaConfig:
    sizes = dict(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    return LlamaConfig(**(sizes | changes))


def adapted(
    config: PreTrainedConfig | None = None,
    targets: list[str] | str = ("q_proj", "k_proj", "v_proj", "o_proj"),
    dtype: torch.dtype = torch.float64,
    **lora,
) -> PeftModel:
    """A random model with random LoRA weights (B too: at zero, A has no gradient)."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config or llama(), dtype=dtype).eval()
    targets = targets if isinstance(targets, str) else list(targets)
    options = {"r": 3, "lora_alpha": 5, "lora_dropout": 0.0} | lora
    cast = dtype != torch.float64
    model = get_peft_model(model, LoraConfig(target_modules=targets, **options), autocast_adapter_dtype=cast).eval()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    return model


def random_rows(lengths: list[int], seed: int = 0) -> list[dict]:
    """Encoded rows with a prompt of a third; the odd ones have two answers and end without a label."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for number, length in enumerate(lengths):
        ids = torch.randint(0, VOCABULARY, (length,), generator=generator).tolist()
        labels = [-100] * (length // 3) + ids[length // 3 :]
        if number % 2 and length > 6:
            labels[length // 2] = labels[-1] = -100
        rows.append({"input_ids": ids, "labels": labels})
    return rows


def slow_log_probs(model: PeftModel, row: dict) -> torch.Tensor:
    """Log-probabilities of one row's labelled tokens, through the whole row and the whole vocabulary."""
    logits = model(input_ids=torch.tensor([row["input_ids"]], device=model.device)).logits[0].double()
    return torch.stack(
        [log_softmax(logits[t - 1], -1)[label] for t, label in enumerate(row["labels"]) if label != -100 and t > 0]
    )


def slow_gradient(model: PeftModel, loss: torch.Tensor) -> torch.Tensor:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    # those that the loss does not reach, as of a model that also sees, have gradients of zero
    gradients = torch.autograd.grad(loss, weights, retain_graph=True, materialize_grads=True)
    return torch.cat([gradient.flatten().double() for gradient in gradients])


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """To the last bit on a CPU; on a GPU but for what its order of additions makes of it (docs/GPU.md)."""
    return torch.allclose(one, other, rtol=1e-4, atol=1e-6) if torch.cuda.is_available() else torch.equal(one, other)


def distance(gradients: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest relative error of a row."""
    return ((gradients.double() - expected).norm(dim=-1) / expected.norm(dim=-1)).max().item()


def engine_gradients(model, rows):
    with PerExample(model) as engine:
        log_probs, mask = engine.forward(rows)
        return engine.backward(-(log_probs.sum(1) / mask.sum(1)).sum()).clone()


def loop_gradients(model, rows):
    return torch.stack([slow_gradient(model, -slow_log_probs(model, row).mean()) for row in rows])


def encoder(folder: Path) -> Base:
    """A random two-layer BERT with the world's tokenizer, in `folder`."""
    tokenizer = world.tokenizer()
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=32, **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Base(str(folder), revision=None, gguf=None, trust_remote_code=False, pretraining=None)
