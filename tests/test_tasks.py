"""Questions with one right answer: read, drawn and asked; every expected value is worked out by hand."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy
import pandas
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rose.config.compose import typed
from rose.config.schema import Tasks
from rose.data.bad_rows import BadRow
from rose.data.files import FileRow
from rose.errors import RoseError
from rose.evaluation.questions import Asked, draw, messages, parse, read_questions
from rose.evaluation.tasks import likeliest


@pytest.fixture
def tasks(composed) -> Tasks:
    return typed(composed("tasks=local", "tasks.path=x")).tasks


def rows(subtask: str, count: int, split: str | None = None) -> list[dict]:
    return [
        {"id": f"{subtask}-{split}-{i}", "subtask": subtask, "split": split, "question": f"{subtask} {i}?"}
        | {"answer": str(i), "choices": None}
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("values", "letter"),
    [({"answer": "B"}, "B"), ({"answer": 1}, "B"), ({"answer": "no"}, "B"), ({"answer": "b"}, None)],
)
def test_the_answer_of_a_choice_is_a_letter_a_place_or_a_text(values, letter):
    row = FileRow("f.jsonl", 1, {"question": "q", "choices": ["yes", "no"], **values})
    if letter is None:
        with pytest.raises(BadRow, match="must be a letter of AB"):
            parse(row)
    else:
        assert parse(row)[0]["answer"] == letter


@pytest.mark.parametrize(
    ("others", "letter"), [(["A"], "C"), (["A", " D"], "C"), (["right"], None), ([0], None), (["A", "1/C"], None)]
)
def test_a_letter_that_another_choice_says_is_one_where_the_file_has_letters_throughout(
    tasks, tmp_path, others, letter
):
    """A row of MMLU: the answer is the third choice, and the fourth is "C"."""
    row = {"question": "RC?", "choices": ["L", "R", "1/C", "C"], "answer": "C"}
    more = [{"question": "?", "choices": ["left", "right", "1/C", "up"], "answer": other} for other in others]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [row, *more]))
    tasks = replace(tasks, path=str(tmp_path / "questions.jsonl"), shots=0, limit=None)
    if letter is None:
        with pytest.raises(RoseError, match=r"questions.jsonl, line 1: answer 'C' may be the letter, .* of choice D"):
            read_questions(tmp_path, tasks)
    else:
        assert read_questions(tmp_path, tasks)[0].row["answer"] == letter


@pytest.mark.parametrize(
    "values", [{"answer": "x"}, {"question": " ", "answer": "x"}, {"question": "q"}, {"question": "q", "answer": True}]
)
def test_a_row_without_question_or_answer_is_bad(values):
    with pytest.raises(BadRow):
        parse(FileRow("f.jsonl", 1, values))


def test_big_bench_names_are_known():
    (row,) = parse(FileRow("f.jsonl", 7, {"input": "not True is", "target": "False", "task": "boolean"}))
    assert row == {"id": "f-7", "subtask": "boolean", "split": None, "question": "not True is", "answer": "False"} | {
        "choices": None
    }


def test_a_limit_holds_for_each_subtask_and_a_smaller_one_keeps_a_part(tasks):
    data = rows("a", 30) + rows("b", 4)
    few, many = (draw(data, replace(tasks, limit=limit)) for limit in (3, 10))
    assert Counter(each.row["subtask"] for each in few) == {"a": 3, "b": 3}
    assert Counter(each.row["subtask"] for each in many) == {"a": 10, "b": 4}
    assert {each.row["id"] for each in few} < {each.row["id"] for each in many}
    other = draw(data, replace(tasks, limit=3, seed=1))
    assert {each.row["id"] for each in few} != {each.row["id"] for each in other}


def test_examples_come_from_their_own_subtask_and_are_never_asked(tasks):
    asked = draw(rows("a", 8) + rows("b", 8), replace(tasks, shots=3, limit=None))
    assert Counter(each.row["subtask"] for each in asked) == {"a": 5, "b": 5}
    questions = {each.row["id"] for each in asked}
    for each in asked:
        assert {shot["subtask"] for shot in each.shots} == {each.row["subtask"]}
        assert len(each.shots) == 3 and not questions & {shot["id"] for shot in each.shots}


def test_examples_may_have_a_split_of_their_own(tasks):
    data = rows("a", 5, "dev") + rows("a", 6, "test") + rows("a", 7, "val")
    asked = draw(data, replace(tasks, split="test", shots_split="dev", shots=5))
    assert {each.row["split"] for each in asked} == {"test"} and len(asked) == 6
    assert {shot["split"] for each in asked for shot in each.shots} == {"dev"}
    with pytest.raises(RoseError, match=r"tasks.shots=6: subtask 'a' has 6 questions and 5 examples"):
        draw(data, replace(tasks, split="test", shots_split="dev", shots=6))
    with pytest.raises(RoseError, match="split=none_such"):
        draw(data, replace(tasks, split="none_such"))


def test_a_question_is_put_after_its_solved_examples():
    own = {"question": "Which?", "answer": "B", "choices": ["yes", "no"]}
    said = messages(Asked(own, [own | {"question": "What?", "answer": "A"}]))
    assert [message["role"] for message in said] == ["user", "assistant", "user"]
    assert said[0]["content"] == "What?\nA. yes\nB. no\nAnswer with the letter alone."
    assert said[1]["content"] == "A"
    plain = {"question": "2 + 2?", "answer": "4", "choices": None}
    assert messages(Asked(plain, [plain]))[1]["content"] == "The answer is 4."


def test_the_likeliest_letter_is_that_of_a_slow_forward_pass(inputs):
    model = AutoModelForCausalLM.from_pretrained(inputs / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(inputs / "model")
    tokenizer.pad_token = tokenizer.eos_token
    questions = [
        Asked({"question": q, "choices": choices, "answer": "A"}, [])
        for q, choices in (("tomato ?", ["rope", "flour"]), ("anchor easel ?", ["a", "b", "c", "d"]), ("x", ["y", "z"]))
    ]
    expected = []
    for each in questions:
        prompt = tokenizer.apply_chat_template(messages(each), add_generation_prompt=True, return_dict=False)
        scores = []
        for letter in "ABCD"[: len(each.row["choices"])]:
            reply = [*messages(each), {"role": "assistant", "content": letter}]
            whole = tokenizer.apply_chat_template(reply, return_dict=False)
            end = len(whole) - whole[::-1].index(tokenizer.eos_token_id)
            with torch.no_grad():
                log_probs = model(torch.tensor([whole])).logits[0].log_softmax(-1)
            scores.append(sum(log_probs[t - 1, whole[t]].item() for t in range(len(prompt), end)))
        expected.append("ABCD"[int(numpy.argmax(scores))])
    assert likeliest(model, tokenizer, questions, 200, 64) == expected


def test_a_job_with_tasks_measures_both_kinds(run, inputs):
    data = [{"question": f"tomato {i} ?", "answer": "A", "choices": ["rope", "flour"], "task": "choice"} for i in "123"]
    data += [{"question": f"lantern {i} ?", "answer": "anchor", "task": "said"} for i in "123"]
    path = Path(inputs) / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in data))
    directory, stages = run("method=random", "tasks=local", f"tasks.path={path}", "tasks.max_new_tokens=4")
    assert {"tasks", "zero_shot_tasks"} < set(stages)
    metrics = json.loads((directory / "metrics.json").read_text())
    items = pandas.read_parquet(directory / "items.parquet")
    known = items[items["accuracy_local"].notna()]
    assert Counter(known["subtask"]) == {"choice": 3, "said": 3}
    assert metrics["accuracy_local"] == pytest.approx(known["accuracy_local"].mean())
    assert items["preference_accuracy"].notna().sum() == metrics["test_pairs"]
    assert 0 <= metrics["zero_shot/accuracy_local"] <= 1
