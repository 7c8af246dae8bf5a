"""Preference losses

Gradients with regard to the adapter of a random Llama (one layer, width 64, float32) for six pairs
of answers of unequal length; theirs by autograd through TRL's own loss, a pair at a time. The
reference is the model without its adapter. Of IPO there are two: ours sums an answer's log-ratios,
as the paper's equation does, and TRL's formula makes the same of sums (CPOTrainer); TRL's
DPOTrainer averages them over the tokens, and our formula makes the same of means.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace

import torch
from datasets import Dataset
from peft import PeftModel
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer
from trl.experimental.cpo import CPOTrainer

from bench.peers.row import Row, relative, version
from bench.setting import SETTINGS
from rose.config.choices import Reference
from rose.gradients.objectives import SFT, Loss, Objective, gradients, losses
from rose.gradients.per_example import PerExample

SETTING = SETTINGS["tiny"]
BETA, GAMMA, PROMPT = 0.1, 0.7, 7
LENGTHS = [(20, 31), (25, 12), (9, 9), (40, 17), (13, 28), (33, 32)]  # of the chosen answer and the rejected one
DPO, IPO = (Objective(loss, BETA, Reference.base) for loss in (Loss.dpo, Loss.ipo))
SIMPO = Objective(Loss.simpo, BETA, gamma=GAMMA)
Pair = tuple[dict, dict]


def rows() -> Iterator[Row]:
    model, pairs = SETTING.model(), made_pairs()
    with tempfile.TemporaryDirectory() as folder:
        trainer = dpo_trainer(folder)
    for name, objective, whose, loss in (
        ("DPO", DPO, trainer.model, lambda pair: dpo(trainer, pair, "sigmoid")),
        ("SimPO", SIMPO, model, lambda pair: cpo(model, pair, "simpo")),
        ("IPO, log-ratios summed", IPO, model, lambda pair: cpo(model, pair, "ipo")),
    ):
        difference = relative(taken(model, pairs, objective), slow(whose, loss, pairs))
        yield Row(f"gradients of {name}", version("trl"), difference, 1e-4)
    theirs = slow(trainer.model, lambda pair: dpo(trainer, pair, "ipo"), pairs)
    averaged, ours = averaged_ipo(model, pairs), taken(model, pairs, IPO)
    yield Row("gradients of IPO, log-ratios averaged", version("trl"), relative(averaged, theirs), 1e-4)
    cosines, lengths = torch.cosine_similarity(ours, theirs), ours.norm(dim=1) / theirs.norm(dim=1)
    found = f"cosines from {cosines.min():.3f}, ours {lengths.min():.0f} to {lengths.max():.0f} × as long"
    yield Row("gradients of IPO, ours of sums, theirs averaged", version("trl"), found)
    difference = relative(taken(model, pairs, SFT), slow(model, lambda pair: model(**padded(pair[:1])).loss, pairs))
    yield Row("gradients of an answer's cross-entropy", version("transformers"), difference, 1e-4)


def made_pairs() -> list[Pair]:
    generator = torch.Generator().manual_seed(0)

    def drawn(length: int) -> list[int]:
        return torch.randint(1, SETTING.vocabulary, (length,), generator=generator).tolist()

    def row(prompt: list[int], answer: list[int]) -> dict:
        return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}

    prompts = [drawn(PROMPT) for _ in LENGTHS]
    return [(row(p, drawn(one)), row(p, drawn(other))) for p, (one, other) in zip(prompts, LENGTHS, strict=True)]


def taken(model: PeftModel, pairs: list[Pair], objective: Objective) -> torch.Tensor:
    """Ours: [pairs, p]; of a loss of single answers, the chosen ones'."""
    both = [row for pair in pairs for row in (pair if objective.paired else pair[:1])]
    reference = reference_sums(model, both) if objective.reference else None
    with PerExample(model) as engine:
        return gradients(engine, both, objective, reference).clone()


def averaged_ipo(model: PeftModel, pairs: list[Pair]) -> torch.Tensor:
    """Our IPO of log-ratios that were divided by the answers' lengths before it."""
    both = [row for pair in pairs for row in pair]
    reference = reference_sums(model, both)
    with PerExample(model) as engine:
        log_probs, mask = engine.forward(both)
        count = mask.sum(1)
        each = engine.backward(losses(IPO, log_probs / count[:, None], mask, reference / count).sum())
        return each[0::2] + each[1::2]


def slow(model: PeftModel, loss: Callable[[Pair], torch.Tensor], pairs: list[Pair]) -> torch.Tensor:
    """Theirs: [pairs, p], a backward pass a pair."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    found = (torch.autograd.grad(loss(pair), weights) for pair in pairs)
    return torch.stack([torch.cat([gradient.flatten() for gradient in each]) for each in found])


def dpo_trainer(folder: str) -> DPOTrainer:
    """TRL's own trainer, on a model of the same weights; it is asked for its loss alone."""
    vocabulary = {f"w{token}": token for token in range(SETTING.vocabulary)}
    words = Tokenizer(WordLevel(vocabulary))
    words.pre_tokenizer = Whitespace()
    special = dict.fromkeys(("eos_token", "pad_token"), "w0")
    options = {"bf16": False, "use_cpu": True, "report_to": "none", "gradient_checkpointing": False}
    trainer = DPOTrainer(
        model=SETTING.model(),
        ref_model=SETTING.model().unload(),
        args=DPOConfig(output_dir=folder, beta=BETA, max_length=None, disable_tqdm=True, **options),
        train_dataset=Dataset.from_dict({"prompt": ["w1"], "chosen": [" w2"], "rejected": [" w3"]}),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=words, **special),
    )
    trainer.model.eval()
    return trainer


def dpo(trainer: DPOTrainer, pair: Pair, kind: str) -> torch.Tensor:
    chosen, rejected = (row["input_ids"][PROMPT:] for row in pair)
    prompt = pair[0]["input_ids"][:PROMPT]
    batch = trainer.data_collator([{"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}])
    trainer.loss_types = [kind]
    return trainer._compute_loss(trainer.model, batch, False)


def cpo(model: PeftModel, pair: Pair, kind: str) -> torch.Tensor:
    """CPOTrainer's loss: of mean log-probabilities (simpo), or of summed log-ratios (ipo)."""
    chosen, rejected = sums(model, pair, average=kind == "simpo")
    if kind == "ipo":
        chosen, rejected = torch.stack([chosen, rejected]) - reference_sums(model, pair)
    options = {"loss_type": kind, "beta": BETA, "simpo_gamma": GAMMA, "alpha": 0.0, "label_smoothing": 0.0}
    settings = SimpleNamespace(**options, accelerator=SimpleNamespace(device="cpu"))
    return CPOTrainer.cpo_loss(settings, chosen[None], rejected[None])[0].sum()


def sums(model: PeftModel, both: Sequence[dict], average: bool = False) -> torch.Tensor:
    """Log-probabilities of answers, summed or averaged by TRL."""
    batch = padded(both)
    return CPOTrainer.get_batch_logps(model(**batch).logits, batch["labels"], average)


def reference_sums(model: PeftModel, both: Sequence[dict]) -> torch.Tensor:
    with torch.no_grad(), model.disable_adapter():
        return sums(model, both)


def padded(both: Sequence[dict]) -> dict[str, torch.Tensor]:
    def pad(name: str, value: int) -> torch.Tensor:
        return pad_sequence([torch.tensor(row[name]) for row in both], batch_first=True, padding_value=value)

    return {"input_ids": pad("input_ids", 0), "labels": pad("labels", -100)}
