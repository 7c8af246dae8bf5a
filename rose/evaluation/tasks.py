"""The tasks stage: questions with one right answer, by exact match or the likeliest choice."""

import re
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase

import numpy
from transformers import PreTrainedTokenizerBase

from rose.config.schema import Evaluation, Numerics, Tasks
from rose.data import chat
from rose.data.dropping import kept, list_dropped
from rose.evaluation.answers import Model, generate, load
from rose.evaluation.items import Item, write_items
from rose.evaluation.marking import right
from rose.evaluation.questions import Asked, messages, read_questions
from rose.models.log_probs import answer_log_probs
from rose.stages.disk import write_lines
from rose.stages.graph import stage


@stage("tasks", version=6)
def solve(
    out: Path,
    tasks: Tasks,
    source: str,
    batch_tokens: int | str,
    numerics: Numerics,
    max_length: int,
    base: Path,
    adapter: Path | None,
) -> None:
    """Writes metrics.json (accuracy_NAME), items.parquet, answers.jsonl and dropped.jsonl.

    `source` is `questions.fingerprint(tasks)`. Prompts longer than `max_length` lose their left.
    """
    every, dropped = [{"id": each.row["id"], "asked": each} for each in read_questions(out, tasks)], []
    tokenizer, model = load(base, numerics, adapter)

    def prompted(row: dict) -> list[int]:
        return chat.prompt_ids(tokenizer, messages(row["asked"]), max_length)

    asked: list[Asked] = [row["asked"] for row, _ in kept(every, prompted, "", dropped.append)]
    list_dropped(out, dropped, len(every), "questions")
    choices = [each for each in asked if each.row["choices"]]
    others = [each for each in asked if not each.row["choices"]]
    greedy = Evaluation(batch_tokens, tasks.max_new_tokens, temperature=0.0, seed=0)
    letters = likeliest(model, tokenizer, choices, max_length, batch_tokens)
    texts = generate(model, tokenizer, [messages(each) for each in others], max_length, greedy)
    answers = dict(zip([each.row["id"] for each in choices + others], letters + texts, strict=True))
    correct = [_correct(each, answers[each.row["id"]]) for each in asked]
    prompts = ["\n".join([each.row["question"], *(each.row["choices"] or ())]) for each in asked]
    items = [Item(each.row["id"], prompt, each.row["subtask"]) for each, prompt in zip(asked, prompts, strict=True)]
    name = re.sub(r"\W+", "_", tasks.name)
    write_items(out, items, {f"accuracy_{name}": correct}, {})
    rows = [
        {"id": each.row["id"], "subtask": each.row["subtask"], "given": answers[each.row["id"]]}
        | {"expected": each.row["answer"]}
        for each in asked
    ]
    write_lines(out / "answers.jsonl", rows)


def likeliest(
    model: Model, tokenizer: PreTrainedTokenizerBase, asked: Sequence[Asked], max_length: int, batch_tokens: int | str
) -> list[str]:
    """The letter whose reply, end-of-turn included, is likeliest; the first of equals."""
    rows = [
        chat.encode_answer(tokenizer, messages(each), letter, max_length)
        for each in asked
        for letter in ascii_uppercase[: len(each.row["choices"] or ())]
    ]
    sums, _ = answer_log_probs(model, rows, batch_tokens)
    ends = numpy.cumsum([len(each.row["choices"] or ()) for each in asked])[:-1]
    return [ascii_uppercase[values.argmax()] for values in numpy.split(sums, ends)] if asked else []


def _correct(asked: Asked, given: str) -> float:
    return float(given == asked.row["answer"] if asked.row["choices"] else right(given, asked.row["answer"]))
