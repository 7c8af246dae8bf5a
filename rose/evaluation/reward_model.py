"""A reward model as judge: a sequence classifier with one output, which scores a conversation."""

import json
import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase

from rose.config.choices import JudgeKind
from rose.config.schema import Base, Judge
from rose.data.chat import render
from rose.data.dropping import kept
from rose.data.rows import DroppedRow, Message
from rose.data.template_gaps import refuses_system
from rose.errors import RoseError
from rose.evaluation.contests import Contest, Verdict, by_score
from rose.models import loading
from rose.models.batching import length_batches
from rose.models.memory import fitting
from rose.progress import track

log = logging.getLogger(__name__)
LONGEST = 10**6  # tokenizers that know no limit say 1e30


def source(judge: Judge) -> Base:
    """Where the reward model comes from; other judges have no weights here."""
    path = judge.model if judge.kind is JudgeKind.reward_model else None
    return Base(path, judge.revision, gguf=None, trust_remote_code=False, pretraining=None)


def judge_answers(judge: Judge, rows: Sequence[Contest]) -> tuple[list[Verdict], dict[str, float]]:
    """Each answer's score decides; equal answers are scored once: rounding could break a tie.

    A contest of which the model's chat template refuses a side has no verdict and is counted, as
    judge_refused.
    """
    prompts = {json.dumps(row.prompt): row.prompt for row in rows}
    sides = [[(json.dumps(row.prompt), text) for text in (row.answer, row.opponent)] for row in rows]
    asked = list(dict.fromkeys(side for both in sides for side in both))
    dropped: list[DroppedRow] = []
    values = score(judge, [prompts[prompt] for prompt, _ in asked], [text for _, text in asked], dropped)
    scores = dict(zip(asked, values, strict=True))
    reasons = {asked[int(row["id"])]: row["reason"] for row in dropped}
    verdicts = [_verdict([scores[side] for side in both], [reasons.get(side) for side in both]) for both in sides]
    refused = sum(verdict.problem is not None for verdict in verdicts)
    if refused:
        log.warning(
            "judge.model=%s: refuses %d of %d contests: %s",
            judge.model,
            refused,
            len(rows),
            next(iter(reasons.values())),
        )
    return verdicts, {"judge_refused": float(refused)} if refused else {}


def _verdict(scores: Sequence[float], reasons: Sequence[str | None]) -> Verdict:
    reason = next(filter(None, reasons), None)
    return by_score(scores[:1], scores[1:])[0] if reason is None else Verdict(None, reason=reason, problem="refused")


@torch.no_grad()
def score(
    judge: Judge,
    prompts: Sequence[list[Message]],
    answers: Sequence[str],
    dropped: list[DroppedRow] | None = None,
    key: str = "judge.model",
) -> list[float]:
    """The reward of each answer to its prompt; NaN where the model's chat template refuses them.

    The conversation goes through the template; a model without one reads prompt and answer as a
    pair of texts. What is too long loses the left of its prompt; of a pair, an answer that fills
    the model by itself is read without the prompt and up to where it fits. What is refused joins
    `dropped`, by its place. Raises RoseError for a model with other than one output, or if nothing
    is left; `key` is the option that names the model.
    """
    where = loading.pinned(source(judge))
    tokenizer = loading.from_pretrained(AutoTokenizer, where, key=key)
    loading.one_template(tokenizer, key)
    model = loading.from_pretrained(
        AutoModelForSequenceClassification, where, key=key, dtype=getattr(torch, judge.dtype)
    )
    if model.config.num_labels != 1:
        raise RoseError(f"{key}={judge.model}: has {model.config.num_labels} outputs; a reward model has one")
    if model.config.pad_token_id is None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        model.config.pad_token_id = tokenizer.pad_token_id
    if (model.config.pad_token_id or 0) >= model.get_input_embeddings().num_embeddings:
        model.config.pad_token_id = None  # it has no embedding: rows go one by one
    pad = model.config.pad_token_id  # not the end token: the score is read at the last other one
    model.eval().to(loading.device())
    limit = judge.max_length or min(tokenizer.model_max_length, LONGEST)
    numbered = enumerate(zip(prompts, answers, strict=True))
    texts = [{"id": str(place), "prompt": prompt, "answer": answer} for place, (prompt, answer) in numbered]
    dropped = [] if dropped is None else dropped
    _say_unread(f"{key}={judge.model}", tokenizer, prompts)

    def encode(row: dict[str, Any]) -> dict[str, list[int]]:
        return _encode(tokenizer, row["prompt"], row["answer"], limit)

    rows = list(kept(texts, encode, "", dropped.append))
    if not rows:
        raise RoseError(f"{key}={judge.model}: refuses every conversation, the first as: {dropped[0]['reason']}")
    places, encoded = [int(row["id"]) for row, _ in rows], [row for _, row in rows]
    scores = [math.nan] * len(texts)
    lengths = [len(row["input_ids"]) for row in encoded]

    def reward(batch: list[int]) -> None:
        inputs = _batch([encoded[index] for index in batch], pad or 0)
        values = model(**{name: ids.to(model.device) for name, ids in inputs.items()}).logits[:, 0].float()
        for index, value in zip(batch, values.tolist(), strict=True):
            scores[places[index]] = value

    fits = fitting(reward, "say a smaller judge.max_length")
    for batch in track(length_batches(lengths, judge.batch_tokens, max_rows=1 if pad is None else None), "rewards"):
        fits(batch)
    return scores


def _say_unread(model: str, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[Message]]) -> None:
    """Says once, of how many prompts the model does not see the system turn."""
    told = sum(any(message["role"] == "system" for message in prompt) for prompt in prompts)
    if told and tokenizer.chat_template is not None and (reason := refuses_system(tokenizer)):
        log.warning(
            "%s: its chat template takes no system turn (%s), as %d of the prompts of %d answers have",
            *(model, reason, told, len(prompts)),
        )


def _encode(tokenizer: PreTrainedTokenizerBase, prompt: list[Message], answer: str, limit: int) -> dict[str, list[int]]:
    if tokenizer.chat_template is None:
        return _encode_pair(tokenizer, "\n".join(message["content"] for message in prompt), answer, limit)
    messages: list[Message] = [*prompt, {"role": "assistant", "content": answer}]
    ids = tokenizer(render(tokenizer, messages), add_special_tokens=False, verbose=False)["input_ids"][-limit:]
    return {"input_ids": ids, "attention_mask": [1] * len(ids)}


def _encode_pair(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str, limit: int) -> dict[str, list[int]]:
    room = limit - tokenizer.num_special_tokens_to_add(pair=True)
    if len(tokenizer(answer, add_special_tokens=False, verbose=False)["input_ids"]) < room:
        tokenizer.truncation_side = "left"
        return dict(tokenizer(prompt, answer, truncation="only_first", max_length=limit))
    tokenizer.truncation_side = "right"
    return dict(tokenizer("", answer, truncation="only_second", max_length=limit))


def _batch(rows: Sequence[dict[str, list[int]]], pad: int) -> dict[str, torch.Tensor]:
    """Each input [rows, longest row], padded on the right."""
    return {
        name: pad_sequence([torch.tensor(row[name]) for row in rows], True, pad if name == "input_ids" else 0)
        for name in rows[0]
    }
