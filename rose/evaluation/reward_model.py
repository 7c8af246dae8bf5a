"""A reward model as judge: a sequence classifier with one output, which scores a conversation."""

from collections.abc import Sequence

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase

from rose import models
from rose.choices import JudgeKind
from rose.config import Base, Judge
from rose.errors import RoseError
from rose.evaluation.contests import Contest, Verdict, by_score
from rose.gradients.batching import length_batches
from rose.progress import track

LONGEST = 10**6  # tokenizers that know no limit say 1e30


def source(judge: Judge) -> Base:
    """Where the reward model comes from; other judges have no weights here."""
    path = judge.model if judge.kind is JudgeKind.reward_model else None
    return Base(path, judge.revision, gguf=None, trust_remote_code=False, pretraining=None)


def judge_answers(judge: Judge, rows: Sequence[Contest]) -> tuple[list[Verdict], dict[str, float]]:
    """Each answer's score decides."""
    texts = [text for row in rows for text in (row.answer, row.opponent)]
    values = score(judge, [row.prompt for row in rows for _ in range(2)], texts)
    return by_score(values[::2], values[1::2]), {}


@torch.no_grad()
def score(judge: Judge, prompts: Sequence[list[dict]], answers: Sequence[str]) -> list[float]:
    """The reward of each answer to its prompt.

    The conversation goes through the model's chat template; a model without one reads prompt and answer as a pair of
    texts. What is too long loses the left of its prompt. Raises RoseError for a model with other than one output.
    """
    tokenizer = models.from_pretrained(AutoTokenizer, source(judge), key="judge.model")
    model = models.from_pretrained(
        AutoModelForSequenceClassification, source(judge), key="judge.model", dtype=getattr(torch, judge.dtype)
    )
    if model.config.num_labels != 1:
        raise RoseError(f"judge.model={judge.model}: has {model.config.num_labels} outputs; a reward model has one")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    model.eval().to(models.device())
    limit = judge.max_length or min(tokenizer.model_max_length, LONGEST)
    encoded = [_encode(tokenizer, *both, limit) for both in zip(prompts, answers, strict=True)]
    scores = [0.0] * len(encoded)
    for batch in track(length_batches([len(row["input_ids"]) for row in encoded], judge.batch_tokens), "rewards"):
        inputs = tokenizer.pad([encoded[index] for index in batch], padding_side="right", return_tensors="pt")
        for index, value in zip(batch, model(**inputs.to(model.device)).logits[:, 0].float().tolist(), strict=True):
            scores[index] = value
    return scores


def _encode(tokenizer: PreTrainedTokenizerBase, prompt: list[dict], answer: str, limit: int) -> dict[str, list[int]]:
    if tokenizer.chat_template is None:
        tokenizer.truncation_side = "left"
        said = "\n".join(message["content"] for message in prompt)
        return dict(tokenizer(said, answer, truncation="longest_first", max_length=limit))
    messages = [*prompt, {"role": "assistant", "content": answer}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"][-limit:]
    return {"input_ids": ids, "attention_mask": [1] * len(ids)}
