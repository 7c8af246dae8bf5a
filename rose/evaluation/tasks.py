"""The tasks stage: questions with one right answer, by exact match or the likeliest of several choices."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase

import numpy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rose.config.schema import Evaluation, Numerics, Tasks
from rose.data import chat
from rose.evaluation.generation import generate
from rose.evaluation.items import Item, write_items
from rose.evaluation.questions import Asked, messages, read_questions, right
from rose.models import loading
from rose.models.log_probs import answer_log_probs
from rose.stages.graph import stage


@stage("tasks", version=3)
def solve(
    out: Path,
    tasks: Tasks,
    source: str,
    batch_tokens: int,
    numerics: Numerics,
    max_length: int,
    base: Path,
    adapter: Path | None,
) -> None:
    """Writes metrics.json (accuracy_NAME), items.parquet and answers.jsonl: {"id", "subtask", "given", "expected"}.

    `source` is `questions.fingerprint(tasks)`; `adapter=None` is the base model without any fine-tuning. Prompts longer
    than `max_length` lose their left.
    """
    asked = read_questions(out, tasks)
    tokenizer, model = loading.load_tokenizer(base), loading.load_model(base, numerics)
    if adapter is not None:
        model = loading.load_adapter(model, adapter)
    ranked = [each for each in asked if each.row["choices"]]
    said = [each for each in asked if not each.row["choices"]]
    greedy = Evaluation(batch_tokens, tasks.max_new_tokens, temperature=0.0, seed=0)
    given = dict(zip(_ids(ranked), likeliest(model, tokenizer, ranked, max_length, batch_tokens), strict=True))
    texts = generate(model, tokenizer, [messages(each) for each in said], max_length, greedy)
    given |= dict(zip(_ids(said), texts, strict=True))
    correct = [_correct(each, given[each.row["id"]]) for each in asked]
    items = [Item(each.row["id"], each.row["question"], each.row["subtask"]) for each in asked]
    name = re.sub(r"\W+", "_", tasks.name)
    write_items(out, items, {f"accuracy_{name}": correct}, {})
    rows = [
        {"id": each.row["id"], "subtask": each.row["subtask"], "given": given[each.row["id"]]}
        | {"expected": each.row["answer"]}
        for each in asked
    ]
    (out / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def likeliest(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    asked: Sequence[Asked],
    max_length: int,
    batch_tokens: int,
) -> list[str]:
    """The letter whose reply, end-of-turn included, the model finds likeliest; the first of equals."""
    rows = [
        chat.encode_answer(tokenizer, messages(each), letter, max_length)
        for each in asked
        for letter in ascii_uppercase[: len(each.row["choices"])]
    ]
    sums, _ = answer_log_probs(model, rows, batch_tokens)
    ends = numpy.cumsum([len(each.row["choices"]) for each in asked])[:-1]
    return [ascii_uppercase[values.argmax()] for values in numpy.split(sums, ends)] if asked else []


def _correct(asked: Asked, given: str) -> float:
    return float(given == asked.row["answer"] if asked.row["choices"] else right(given, asked.row["answer"]))


def _ids(asked: Sequence[Asked]) -> list[str]:
    return [each.row["id"] for each in asked]
