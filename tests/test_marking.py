"""Replies and what a person reads in them; every verdict is given by hand, none by the code under test."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from rose.config.compose import typed
from rose.data.bad_rows import BadRow
from rose.data.files import FileRow
from rose.evaluation.marking import final, right
from rose.evaluation.questions import Asked, messages, parse, read_questions

# A row of each layout that is shipped or published, and the answer that a person would give.
GSM8K = {"question": "2 + 4?", "answer": "She has 2 + 4 = <<2+4=6>>6 eggs.\nSo 6.\n#### 6"}
LAYOUTS = [
    (GSM8K, "6"),
    ({"question": "?", "answer": "70000", "solution": "…\n#### 70000", "split": "test"}, "70000"),
    ({"question": "?", "answer": "Profit is 1,450.\n#### 1,450"}, "1450"),
    ({"question": "?", "answer": "It falls.\n#### -5"}, "-5"),
    ({"question": "?", "answer": 18.0}, "18"),
    ({"question": "?", "answer": 1e-05}, "0.00001"),
    ({"question": "?", "answer": "First a, then b.\n\nAnswer: yes"}, "yes"),
    ({"question": "?", "answer": r"As $x=2$, it is $\boxed{\frac{x^{2}}{3}}$."}, "\\frac{x^{2}}{3}"),
    ({"input": "not True is", "target": "False", "task": "boolean_expressions"}, "False"),
    ({"input": "[ { is", "target": "} ]"}, "} ]"),
    ({"input": "( < is", "target": "> )"}, "> )"),
    ({"input": "List: guru barn it&t", "target": "barn guru it&t"}, "barn guru it&t"),
    ({"input": "Options:\n(A) 1\n(B) 2", "target": "(B)"}, "(B)"),
    ({"input": "Options:\n- valid\n- invalid", "target": "invalid"}, "invalid"),
    ({"input": "Options:\n(A) Up", "target": "Monsters, Inc"}, "Monsters, Inc"),
    ({"input": "?", "target": "dearth, wind, & fire"}, "dearth, wind, & fire"),
    ({"input": "?", "target": "yes"}, "yes"),
    ({"input": "?", "target": "05/01/2021"}, "05/01/2021"),
    ({"input": "?", "target": "Sentence A"}, "Sentence A"),
    ({"input": "?", "target": "$1,234.50"}, "1234.5"),
    ({"input": "?", "target": "50%"}, "50"),
    ({"input": "?", "target": "3/4"}, "0.75"),
]
PHRASES = [
    "{}",
    "So the answer is {}.",
    "Answer: {}",
    "The final answer: {}.",
    "**Answer:** {}",
    "The answer is **{}**.",
    "Let us see.\n\n### Final Answer\n{}",
    "Let us see.\n#### {}",
    "<answer>{}</answer>",
    "The final answer is $\\boxed{{{}}}$.",
    "<think>The answer is 99, no: zz.</think>\nThe answer is {}.",
    "The answer is {}, because 7 is prime.",
    "The answer is {}.\n\nQuestion: And then?\nAnswer: 99",
    "{}\nuser\nAnd then?\nEnd with: The answer is …\nassistant\nThe answer is 99.",
]


@pytest.mark.parametrize("phrase", PHRASES)
@pytest.mark.parametrize(("values", "answer"), LAYOUTS)
def test_a_gold_answer_is_right_in_every_layout_and_phrase(values, answer, phrase):
    (row,) = parse(FileRow("f.jsonl", 1, values))
    expected = row["answer"]
    assert right(expected, expected) and right(phrase.format(answer), expected)
    gold = str(values.get("answer", values.get("target")))
    assert right(gold, gold) and right(phrase.format(answer), gold) and right(gold, expected)
    reply = messages(Asked(row, [row]))[1]["content"]  # what a solved example says
    assert right(reply, expected)


@pytest.mark.parametrize("phrase", PHRASES)
def test_another_answer_stays_wrong_in_every_phrase(phrase):
    for values, answer in LAYOUTS:
        for _, other in LAYOUTS:
            if other != answer:
                assert not right(phrase.format(other), parse(FileRow("f.jsonl", 1, values))[0]["answer"]), other


def test_sorted_words_and_brackets_are_right_in_their_order_alone():
    """As in BBH's word sorting and Dyck languages."""
    draw = random.Random(0)  # noqa: S311
    for symbols in (["barn", "delmarva", "it&t", "same", "thrill"], ["]", "}", ")", ">"]):
        for _ in range(50):
            gold = [draw.choice(symbols) if "]" in symbols else word for word in symbols]
            other = draw.choice([gold[:-1], [*gold, symbols[0]], draw.sample(gold, len(gold))])
            for phrase in PHRASES:
                assert right(phrase.format(" ".join(gold)), " ".join(gold))
                assert right(phrase.format(" ".join(other)), " ".join(gold)) is (other == gold)


def test_gsm8k_s_own_rows_are_asked_and_marked_by_what_they_come_to(composed, tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(GSM8K) + "\n" + json.dumps(GSM8K | {"question": "3 + 3?"}) + "\n")
    tasks = replace(typed(composed("tasks=local", f"tasks.path={path}")).tasks, shots=1)
    (asked,) = read_questions(tmp_path, tasks)
    assert asked.row["answer"] == "6" and messages(asked)[1]["content"] == "The answer is 6."


def test_the_working_is_no_part_of_the_answer():
    assert final("2 + 4\n#### 6") == "6" == final("6") == final(" 6\n")
    assert final("a b") == "a b" and final("] ) >") == "] ) >"


@pytest.mark.parametrize("answer", ["", "  ", float("nan")])
def test_an_empty_answer_is_no_answer(answer):
    with pytest.raises(BadRow, match="must not be empty"):
        parse(FileRow("f.jsonl", 1, {"question": "q", "answer": answer}))
    assert not right("", "") and not right("", "18")


REPLIES = Path(__file__).with_name("marking_replies.txt").read_text().splitlines()


@pytest.mark.parametrize("line", [line for line in REPLIES if not line.startswith("# ")])
def test_a_reply_says_what_a_person_reads_in_it(line):
    verdict, expected, given = line.split(" | ", 2)
    assert right(given.replace("⏎", "\n"), expected.replace("⏎", "\n")) is (verdict == "right")


@pytest.mark.parametrize(
    "reply",
    ["1" * 5000, "1," * 2000, "1,11," * 2000, "1 + " * 2000, "1e999999999", "The answer is " * 150, "**a " * 500],
)
@pytest.mark.parametrize("expected", ["18", "(A)", "yes", "a b"])
def test_a_model_gone_astray_is_wrong_and_stops_nothing(reply, expected):
    assert not right(reply, expected)
