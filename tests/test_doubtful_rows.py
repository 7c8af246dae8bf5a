"""Rows that are read, but not what people expect of them, are counted in the log; a dry run reads the first rows."""

import json
import logging
from dataclasses import replace

import pytest
from read_pairs import pairs, read
from small_job import overrides
from tiny_models import llama
from transformers import LlamaForSequenceClassification

from rose.config.compose import typed
from rose.data import files, world
from rose.data.pool import read_pool
from rose.errors import RoseError
from rose.evaluation import reward_model
from rose.run import job

PAIR = {"prompt": "q", "chosen": "a", "rejected": "b"}


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def read_pairs(tmp_path, caplog, rows):
    """What the log says of pairs; all of them are kept."""
    with caplog.at_level(logging.INFO):
        target, test = read(tmp_path, pairs(lines(tmp_path / "p.jsonl", rows)))
    assert len(target) + len(test) == len(rows)
    return caplog.text


def test_pairs_whose_own_scores_say_otherwise_are_counted_and_kept(tmp_path, caplog):
    scores = [(2, 1), (1, 2), ("1", "2.5"), (1, 1), (None, 3), ("high", "low")]
    named = [dict(zip(("score_chosen", "score_rejected"), both, strict=True)) for both in scores]
    rows = [{**PAIR, "prompt": f"q{i}", **each} for i, each in enumerate(named)]
    said = "2 of 6 pairs have a lower score_chosen than score_rejected: they stay as they are labelled (p-2, p-3)"
    assert said in read_pairs(tmp_path, caplog, rows)


def test_what_of_pairs_no_model_is_shown_is_counted(tmp_path, caplog):
    more = [{"source": "x"}, {"source": "y", "note": 1}, {"note": None}]
    rows = [{**PAIR, "prompt": f"q{i}", **each} for i, each in enumerate(more)]
    assert "preferences: columns that are shown to no model: source 2, note 1" in read_pairs(tmp_path, caplog, rows)


def test_prompts_that_end_in_an_answer_are_counted(tmp_path, caplog):
    rows = [{**PAIR, "prompt": [user("q"), assistant("so")]}, {**PAIR, "prompt": [user("r")]}]
    said = "1 of 2 pairs have a prompt that ends in an assistant's turn: each answer is a turn of its own after it"
    assert said in read_pairs(tmp_path, caplog, rows)


def test_answers_that_end_in_a_question_are_counted(tmp_path, caplog):
    rows = [{**PAIR, "prompt": [user("q")], "chosen": [assistant("a"), user("why?")]}, {**PAIR, "prompt": [user("r")]}]
    said = "1 of 2 pairs have an answer that ends in a turn which is not the assistant's: what follows its last one"
    assert said in read_pairs(tmp_path, caplog, rows)


def test_pairs_in_which_nothing_is_odd_say_nothing(tmp_path, caplog):
    said = read_pairs(tmp_path, caplog, [PAIR, {**PAIR, "prompt": "r", "metadata": "m"}])
    assert " pairs have " not in said and "shown to no model" not in said


def test_pool_rows_that_end_in_a_question_are_counted(tmp_path, caplog, composed):
    rows = [{"messages": [user("q"), assistant("a"), user("and?")]}, {"messages": [user("q"), assistant("a")]}]
    where = f"dataset.path={lines(tmp_path / 'p.jsonl', rows)}"
    others = ("model=local", "model.base.path=x", "preference=local", "judge=none")
    read_pool(tmp_path, typed(composed("dataset=local", where, *others)).dataset, "")
    assert "pool: 1 of 2 rows end in a turn that is not the assistant's: what follows their last answer" in caplog.text
    assert [len(row["messages"]) for row in files.load(tmp_path / "pool.jsonl")] == [3, 2]


@pytest.mark.parametrize(
    ("key", "row", "said"),
    [
        ("dataset.path", {"promt": "q", "completion": "a"}, "fits no layout: found promt, completion"),
        ("dataset.path", PAIR, "is of preference pairs, which preference.path reads"),
        ("preference.path", {"prompt": "q", "completion": "a"}, "is of a pool, which dataset.path reads"),
        ("preference.test_path", {**PAIR, "rejected": "a"}, "chosen and rejected are the same"),
    ],
)
def test_a_dry_run_refuses_what_the_first_rows_show(composed, inputs, tmp_path, capsys, key, row, said):
    path = lines(tmp_path / "x.jsonl", [row])
    config = typed(composed(*overrides(inputs, tmp_path), f"{key}={path}"))
    with pytest.raises(RoseError, match=f"x.jsonl, line 1: {said}"):
        job.dry_run(config)
    assert not capsys.readouterr().out


def test_a_dry_run_reads_five_rows_and_lets_pass_what_is_skipped(composed, inputs, tmp_path, capsys, monkeypatch):
    rows = [{"prompt": "q"}, *({"prompt": f"q{i}", "completion": "a"} for i in range(9))]
    settings = (f"dataset.path={lines(tmp_path / 'x.jsonl', rows)}", "dataset.on_bad_row=skip")
    taken, honest = [], files.READERS[".jsonl"]
    monkeypatch.setitem(files.READERS, ".jsonl", lambda path: (taken.append(row) or row for row in honest(path)))
    job.dry_run(typed(composed(*overrides(inputs, tmp_path), *settings)))
    assert "pool" in capsys.readouterr().out
    assert len(taken) == 3 * 5  # of the pool, the target and the test pairs


SILENT = "{% for m in messages %}{% if m.role != 'system' %}{{ m.content }} {% endif %}{% endfor %}"
SHOWING = "{% for m in messages %}{{ m.content }} {% endfor %}"


@pytest.mark.parametrize(("template", "told"), [(SILENT, 1), (SHOWING, 0)])
def test_a_reward_model_that_sees_no_system_turn_is_named_once(composed, tmp_path, caplog, template, told):
    tokenizer = world.tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(tmp_path)
    shape = llama(vocab_size=len(tokenizer), num_labels=1, pad_token_id=tokenizer.pad_token_id)
    LlamaForSequenceClassification(shape).save_pretrained(tmp_path)
    judge = replace(typed(composed("judge=reward_model", f"judge.model={tmp_path}")).judge, dtype="float32")
    prompts = [[{"role": "system", "content": "rope"}, user("tomato")], [user("lantern")]] * 2
    reward_model.score(judge, prompts, ["rope"] * 4)
    said = "its chat template takes no system turn (it leaves it out), as 2 of the prompts of 4 answers have"
    assert caplog.text.count(said) == told
