"""python -m rose.data says what a file is taken for, what is dropped and why, and what the model sees of it."""

import json
import subprocess
import sys

import pytest
from chat_templates import CHATML, by_character
from layout_examples import PAIRS, assistant, user
from transformers import LlamaConfig

from rose.__main__ import ROOT
from rose.config.compose import one_job, typed
from rose.errors import RoseError
from rose.run.look import _overrides, _tokenizer, look

TALK = [user("q"), assistant("a"), user("r"), assistant("b", weight=0)]


def shown(tmp_path, rows, *overrides, tokenizer=None):
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = str(tmp_path / "mine.jsonl")
    return list(look(path, typed(one_job(_overrides(path, list(overrides)))), tokenizer))


def test_a_pool_is_described_with_its_first_row_as_the_model_sees_it(tmp_path):
    rows = [{"messages": TALK}, {"prompt": "q", "completion": "a" * 90}, {"messages": []}, {"messages": TALK[:1]}]
    lines = shown(tmp_path, [*rows, {"messages": []}], "model.max_length=64", tokenizer=by_character(CHATML))
    first = (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n⟦a<|im_end|>⟧"
    )
    assert lines[0].endswith("mine.jsonl: a pool, layout messages 4, prompt 1")
    assert lines[1:4] == ["  rows     2", "  turns    2 to 4, 3.0 on average", "  roles    assistant 3, user 3"]
    # a turn is its role, its text and 4 tokens more: 6 + 8 + 4 of the system's, then 4 + 1 + 4, 9 + 1 + 4 or 9 + 90 + 4
    assert lines[4] == "  tokens   64 to 130, median 97, 95 % at most 127; 1 are longer than model.max_length=64"
    assert (
        lines[5] == "  dropped  3, the first in mine.jsonl, line 3: a job stops there, unless dataset.on_bad_row=skip"
    )
    assert lines[6:8] == [
        "           2: messages is an empty list",
        "           1: has no answer: no assistant message with text",
    ]
    assert "\n".join(lines[9:]).startswith(first)


def test_a_file_that_is_a_pool_and_pairs_is_described_as_both(tmp_path):
    lines = shown(tmp_path, PAIRS["kto"].rows)
    heads = [line for line in lines if "layout" in line]
    assert [line.partition(": ")[2] for line in heads] == ["a pool, layout prompt 3", "preference pairs, layout kto 3"]
    assert lines.count("  rows     2") == 1 and "[user] q" in lines


def test_pairs_are_shown_chosen_and_rejected(tmp_path):
    lines = shown(tmp_path, PAIRS["orca"].rows, tokenizer=by_character(CHATML))
    assert [line.count("⟦") for line in "\n".join(lines).split("<|im_start|>system")[1:]] == [1, 1]
    assert "⟦a<|im_end|>⟧" in "\n".join(lines) and "⟦b<|im_end|>⟧" in "\n".join(lines)


def test_a_file_of_no_layout_is_refused_with_its_columns(tmp_path):
    with pytest.raises(RoseError, match="mine.jsonl, line 1: fits no layout: found a, b; the nearest are .*, .*, "):
        shown(tmp_path, [{"a": 1, "b": 2}])
    with pytest.raises(RoseError, match=r"as preference pairs: .*the nearest are pairs \(prompt, chosen, rejected\)"):
        shown(tmp_path, [{"prompt": "q", "choosen": "a", "rejected": "b"}])
    with pytest.raises(RoseError, match="^mine.jsonl, line 1: must be a JSON object, not NoneType$"):
        shown(tmp_path, [None])
    with pytest.raises(RoseError, match="has no rows"):
        shown(tmp_path, [])


def test_files_of_a_folder_are_chosen_as_a_job_does(tmp_path, caplog):
    for name, answer in (("a", "x"), ("b", "y"), ("b_test", "z")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"prompt": "q", "completion": answer}))
    path = str(tmp_path)
    assert "  rows     2" in list(look(path, typed(one_job(_overrides(path, []))), None))
    assert "(b_test.jsonl); dataset.files says which to read" in caplog.text
    lines = list(look(path, typed(one_job(_overrides(path, ["dataset.files=[b*]"]))), None))
    assert "  rows     2" in lines and lines[-1] == "[assistant] y"


def test_columns_that_no_model_is_shown_are_named(tmp_path):
    rows = [{"question": "q", "context": "c", "answer": "a"}, {"question": "q", "context": "", "answer": "a"}]
    assert "  unread   context 1: columns that are kept, but shown to no model" in shown(tmp_path, rows)
    pair = {"prompt": "q", "question": "?", "chosen": "a", "rejected": "b", "score_chosen": 2, "score_rejected": 1}
    assert "  unread   question 1: columns that are kept, but shown to no model" in shown(tmp_path, [pair])
    assert not any("unread" in line for line in shown(tmp_path, [{"messages": TALK, "tools": [{"name": "add"}]}]))


def test_what_a_template_refuses_is_counted(tmp_path):
    row = {"messages": TALK, "tools": [{"name": "add"}]}
    lines = shown(tmp_path, [row], tokenizer=by_character(CHATML))
    assert "           1: the chat template takes no tools, which this row has" in lines


def test_the_command_takes_a_models_folder(tmp_path):
    by_character(CHATML).save_pretrained(tmp_path / "model")
    LlamaConfig().save_pretrained(tmp_path / "model")
    assert _tokenizer(typed(one_job(_overrides("x", [f"model={tmp_path / 'model'}"])))).chat_template == CHATML
    (tmp_path / "a (1).jsonl").write_text(json.dumps({"messages": TALK}))
    command = [sys.executable, "-m", "rose.data", str(tmp_path / "a (1).jsonl"), f"model={tmp_path / 'model'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "⟦a<|im_end|>⟧" in done.stdout, done.stderr
