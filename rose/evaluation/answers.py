"""The answers stage: what a model says to the test prompts, batched and seeded."""

import json
from pathlib import Path

import torch
from peft import PeftModel
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rose.config.schema import Evaluation, Numerics
from rose.data import files
from rose.data.chat import prompt_ids, turn_ends
from rose.data.dropping import kept, list_dropped
from rose.data.rows import DroppedRow, Message
from rose.errors import RoseError
from rose.models import loading
from rose.models.batching import length_batches
from rose.models.memory import fitting, tokens_at_once
from rose.progress import track
from rose.seeds import derive
from rose.stages.disk import write_lines
from rose.stages.graph import stage

Model = PreTrainedModel | PeftModel


@stage("answers", version=4)
def answer(
    out: Path,
    evaluation: Evaluation,
    numerics: Numerics,
    max_length: int,
    base: Path,
    adapter: Path | None,
    preferences: Path,
) -> None:
    """Writes answers.jsonl, a row a test pair: {"id", "subtask", "prompt", "answer", "reference"}.

    A prompt is answered once, whatever the number of its pairs; `reference` is each pair's chosen
    answer to it, without what a chosen conversation goes on with. dropped.jsonl lists the pairs whose
    prompt the chat template refuses.
    """
    tokenizer, model = load(base, numerics, adapter)
    pairs, refused = list(files.load(preferences / "test.jsonl")), []
    prompts = {json.dumps(pair["prompt"]): pair["prompt"] for pair in pairs}
    texts = generate(model, tokenizer, list(prompts.values()), max_length, evaluation, refused)
    answers = dict(zip(prompts, texts, strict=True))
    reasons = {list(prompts)[int(row["id"])]: row["reason"] for row in refused}
    asked = [(pair, json.dumps(pair["prompt"])) for pair in pairs]
    dropped: list[DroppedRow] = [{"id": pair["id"], "reason": reasons[key]} for pair, key in asked if key in reasons]
    list_dropped(out, dropped, len(pairs), "test pairs")
    rows = [
        {"id": pair["id"], "subtask": pair["subtask"], "prompt": pair["prompt"]}
        | {"answer": answers[key], "reference": pair["chosen"][0]["content"]}
        for pair, key in asked
        if key not in reasons
    ]
    write_lines(out / "answers.jsonl", rows)


def load(base: Path, numerics: Numerics, adapter: Path | None) -> tuple[PreTrainedTokenizerBase, Model]:
    """Tokenizer and model; `adapter=None` is the base model without any fine-tuning."""
    tokenizer, model = loading.load_tokenizer(base), loading.load_model(base, numerics)
    return tokenizer, model if adapter is None else loading.load_adapter(model, adapter)


@torch.no_grad()
def generate(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[Message]],
    max_length: int,
    evaluation: Evaluation,
    refused: list[DroppedRow] | None = None,
) -> list[str]:
    """One answer a prompt, up to the end of the turn; temperature 0 is greedy. Padded on the left.

    A turn is over where the model's own configuration says so, and where the template ends it.
    Prompts that the template refuses join `refused`, by their place, and are answered by nothing.
    Raises RoseError for one where there is no such list.
    """
    numbered, lost = [{"id": str(place), "messages": messages} for place, messages in enumerate(prompts)], []
    asked = list(kept(numbered, lambda row: prompt_ids(tokenizer, row["messages"], max_length), "", lost.append))
    if refused is not None:
        refused.extend(lost)
    elif lost:
        raise RoseError(lost[0]["reason"])
    places, encoded = [int(row["id"]) for row, _ in asked], [ids for _, ids in asked]
    lengths = [len(ids) + evaluation.max_new_tokens for ids in encoded]
    ids, texts = turn_ends(tokenizer)
    ends = [*_listed(getattr(model.generation_config, "eos_token_id", None)), *ids]
    stops = {"eos_token_id": ends or None, "stop_strings": texts or None, "tokenizer": tokenizer}
    answers = [""] * len(prompts)

    def ask(batch: list[int]) -> None:
        rows = [torch.tensor(encoded[index], device=model.device) for index in batch]
        # behind the mask any token will do; a tokenizer's own may be one that the model has no embedding of
        inputs, mask = (
            pad_sequence(each, batch_first=True, padding_side="left")
            for each in (rows, [torch.ones_like(row) for row in rows])
        )
        outputs = model.generate(  # pyright: ignore[reportCallIssue] — of a mixin
            inputs, attention_mask=mask, **_sampling(evaluation), **stops, pad_token_id=ends[0] if ends else 0
        )
        for index, row in zip(batch, outputs[:, inputs.shape[1] :].tolist(), strict=True):
            answers[places[index]] = _until(tokenizer, row, ends, texts)

    fits = fitting(ask, "say a smaller model.max_length, or fewer max_new_tokens")
    with torch.random.fork_rng():
        torch.manual_seed(derive(evaluation.seed, "answers"))
        tokens = tokens_at_once(evaluation.batch_tokens, model, max(lengths, default=1), on_a_cpu=4096)
        for batch in track(length_batches(lengths, tokens), "answers to test prompts"):
            fits(batch)
    return answers


def _until(tokenizer: PreTrainedTokenizerBase, ids: list[int], ends: list[int], texts: list[str]) -> str:
    """The text of generated tokens up to the first token of `ends` or the first of `texts`."""
    stop = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    text = tokenizer.decode(ids[:stop], skip_special_tokens=True)
    assert isinstance(text, str)
    return min((text.partition(end)[0] for end in texts), key=len, default=text).strip()


def _listed(ids: int | list[int] | None) -> list[int]:
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)


def _sampling(evaluation: Evaluation) -> dict:
    """All of it: a stage sees nothing but its inputs, and models bring defaults of their own."""
    plain = {"max_new_tokens": evaluation.max_new_tokens, "num_beams": 1, "top_p": 1.0, "repetition_penalty": 1.0}
    if evaluation.temperature == 0:
        return plain | {"do_sample": False, "temperature": 1.0}
    return plain | {"do_sample": True, "temperature": evaluation.temperature, "top_k": 0}
