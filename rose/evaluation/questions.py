"""Questions with one right answer: read from files, drawn by subtask, and asked."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any, NamedTuple, TypedDict

from rose.config.schema import Tasks
from rose.data import files
from rose.data.bad_rows import BadRow, given
from rose.data.chat import Message
from rose.data.files import FileRow, Location
from rose.errors import RoseError
from rose.evaluation.marking import final
from rose.evaluation.statements import ENDING
from rose.seeds import numpy_generator
from rose.stages.graph import stage

FIELDS = {"question": ("question", "input"), "answer": ("answer", "target"), "choices": ("choices", "options")}
SUBTASK = ("subtask", "task", "subject")
LETTERS = frozenset(ascii_uppercase)


class Question(TypedDict):
    id: str
    subtask: str
    question: str
    answer: str  # a letter where there are choices
    choices: list[str] | None
    split: str | None


class Asked(NamedTuple):
    row: Question
    shots: list[Question]  # solved examples of the same subtask


def source(tasks: Tasks) -> Location:
    return Location("tasks.path", tasks.path, list(tasks.files), tasks.revision)


def fingerprint(tasks: Tasks) -> str:
    """Tells contents apart; empty without tasks."""
    return "" if tasks.path is None else files.fingerprint(source(tasks))


@stage("questions", version=1)
def read_ahead(out: Path, tasks: Tasks, source: str) -> None:
    """Reads the files as the tasks stage will, which may be hours later. Writes asked.json, a number."""
    (out / "asked.json").write_text(json.dumps(len(read_questions(out, tasks))))


def read_questions(out: Path, tasks: Tasks) -> list[Asked]:
    """What is asked, with solved examples; skipped.jsonl lists rows refused by on_bad_row=skip."""
    rows = list(files.read_rows(source(tasks)))
    unlettered = {row.file for row in rows if isinstance(row.values, dict) and _names_no_letter(_fields(row.values))}

    def read(row: FileRow) -> list[dict]:
        return parse(row, row.file not in unlettered)

    questions = files.sift(rows, read, "tasks.on_bad_row", tasks.on_bad_row, out / "skipped.jsonl")
    return draw([Question(**question) for question in questions], tasks)


def parse(row: FileRow, letters: bool = False) -> list[dict]:
    """A row's `Question`: question, answer (BBH's input, target), choices of a multiple choice.

    Optional are id, split and subtask (task, subject). Of an answer with its working, such as
    GSM8K's, what it comes to. The answer of a multiple choice may be its letter, its place from 0,
    or its text; `letters` says that the file gives letters throughout, else one that is also the
    text of another choice is refused. Raises BadRow.
    """
    values = row.values
    assert isinstance(values, dict)
    fields = _fields(values)
    if not isinstance(fields["question"], str) or not fields["question"].strip():
        raise BadRow("question (or input) must be a text")
    if isinstance(fields["answer"], bool) or not isinstance(fields["answer"], str | int | float):
        raise BadRow("answer (or target) must be a text or a number")
    if str(fields["answer"]).strip() == "" or fields["answer"] != fields["answer"]:
        raise BadRow("answer (or target) must not be empty")
    if fields["choices"] is not None:
        fields["answer"] = _letter(fields["answer"], fields["choices"], letters)
    else:
        fields["answer"] = final(str(fields["answer"]))
    subtask = next((str(values[key]) for key in SUBTASK if values.get(key)), "default")
    return [{"id": files.row_id(row), "subtask": subtask, "split": values.get("split")} | fields]


def draw(rows: Sequence[Question], tasks: Tasks) -> list[Asked]:
    """`limit` questions of each subtask, in file order, each with its `shots` examples.

    A smaller limit keeps a subset of the same draw. Raises RoseError where too few are left.
    """
    asked: dict[str, list[int]] = defaultdict(list)
    solved: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if tasks.split in (None, row["split"]):
            asked[row["subtask"]].append(index)
        if tasks.shots_split is not None and row["split"] == tasks.shots_split:
            solved[row["subtask"]].append(index)
    chosen: dict[int, list[int]] = {}
    for subtask, questions in asked.items():
        order = _shuffled(questions, tasks.seed, f"tasks {subtask}")
        if tasks.shots_split is None:
            shots, order = order[: tasks.shots], order[tasks.shots :]
        else:
            shots = _shuffled(solved[subtask], tasks.seed, f"shots {subtask}")[: tasks.shots]
        if len(shots) < tasks.shots or not order:
            raise RoseError(
                f"tasks.shots={tasks.shots}: subtask {subtask!r} has {len(questions)} questions "
                f"and {len(shots)} examples"
            )
        chosen |= dict.fromkeys(order[: tasks.limit], shots)
    if not chosen:
        raise RoseError(f"tasks.path={tasks.path}: no question is left of {len(rows)} rows with split={tasks.split}")
    return [Asked(rows[index], [rows[shot] for shot in chosen[index]]) for index in sorted(chosen)]


def messages(asked: Asked) -> list[Message]:
    """The question as a chat, after its solved examples."""
    turns: list[Message] = []
    for shot in asked.shots:
        reply = shot["answer"] if shot["choices"] else f"The answer is {shot['answer']}."
        turns.append({"role": "user", "content": _wording(shot)})
        turns.append({"role": "assistant", "content": reply})
    return [*turns, Message(role="user", content=_wording(asked.row))]


def _wording(row: Question) -> str:
    if row["choices"]:
        options = [f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, row["choices"], strict=False)]
        return "\n".join([row["question"].strip(), *options, "Answer with the letter alone."])
    return f"{row['question'].strip()}\n{ENDING} …"


def _fields(values: dict[str, Any]) -> dict[str, Any]:
    return {name: next((values[key] for key in keys if key in values), None) for name, keys in FIELDS.items()}


def _names_no_letter(fields: dict[str, Any]) -> bool:
    """Whether this is a multiple choice whose answer is given in another way."""
    answer = fields["answer"]
    return fields["choices"] is not None and not (isinstance(answer, str) and answer.strip() in LETTERS)


def _letter(answer: str | int | float, choices: object, throughout: bool) -> str:
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(ascii_uppercase) or not all(map(given, choices)):
        raise BadRow("choices must be a list of 2 to 26 texts")
    letters = ascii_uppercase[: len(choices)]
    text = letters[choices.index(answer)] if answer in choices else None
    if isinstance(answer, str) and answer.strip() in set(letters):
        if text not in (None, answer.strip()) and not throughout:
            raise BadRow(f"answer {answer!r} may be the letter, or the text of choice {text}: give letters throughout")
        return answer.strip()
    if text is not None:
        return text
    if isinstance(answer, int) and 0 <= answer < len(choices):
        return letters[answer]
    raise BadRow(f"answer {str(answer)[:40]!r} must be a letter of {letters}, a place from 0, or one of the choices")


def _shuffled(indices: list[int], seed: int, name: str) -> list[int]:
    return [indices[place] for place in numpy_generator(seed, name).permutation(len(indices))]
