"""One pair that a chat template refuses is dropped, counted and listed by every stage, and ends no job."""

import json
import math
from pathlib import Path

import pandas
import pytest
import torch
from chat_templates import CHATML, LLAMA2, by_character, talk
from judged_answers import write_answers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from rose.config.compose import typed
from rose.config.schema import Evaluation, Numerics
from rose.data import files
from rose.data.chat import encode
from rose.data.encoded_pairs import encoded_pairs
from rose.diagnostics.held_out import answers_as_rows
from rose.errors import RoseError
from rose.evaluation import reward_model
from rose.evaluation.answers import answer
from rose.evaluation.evaluate import evaluate
from rose.evaluation.tasks import solve
from rose.evaluation.verdicts import judge_answers
from rose.methods.hidden import pair_states
from rose.models import loading

NUMERICS = Numerics(dtype="float32", attention="eager", sharded=False)
FAILS = CHATML + "{% for m in messages %}{% if 'odd' in m.content %}{{ 1 // 0 }}{% endif %}{% endfor %}"
SHAPE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def pair(name, prompt, chosen="good", rejected="bad"):
    sides = {"chosen": talk("", chosen)[1:], "rejected": talk("", rejected)[1:]}
    return {"id": name, "subtask": "s", "prompt": prompt, **sides}


PAIRS = [
    pair("a", talk("q")),
    pair("system", talk("q", system="s")),
    pair("b", talk("r")),
    pair("long", talk("q"), "same " * 40 + "a", "same " * 40 + "b"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A random Llama whose chat template refuses a system prompt."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = by_character(LLAMA2)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=256, **SHAPE)).save_pretrained(
        folder
    )
    return folder


@pytest.fixture
def preferences(tmp_path):
    folder = tmp_path / "preferences"
    folder.mkdir()
    for name in ("target", "test"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    return folder


def dropped(out):
    return {row["id"]: row["reason"] for row in files.load(out / "dropped.jsonl")}


def run(name, out, base, preferences):
    model = {"numerics": NUMERICS, "max_length": 64, "base": base}
    asked = model | {"adapter": None, "preferences": preferences}
    if name == "evaluation":
        evaluate(out, batch_tokens=4096, zero_shot=None, **asked)
    elif name == "answers":
        answer(out, evaluation=Evaluation(4096, 4, temperature=0.0, seed=0), **asked)
    elif name == "hidden":
        pair_states(out, preferences=preferences, **model)
    else:
        answers_as_rows(out, None, 0, 64, base, preferences)


@pytest.mark.parametrize("name", ["evaluation", "answers", "hidden", "held_out"])
def test_a_pair_that_the_template_refuses_is_dropped_counted_and_listed(tmp_path, base, preferences, name, caplog):
    out = tmp_path / "out"
    out.mkdir()
    run(name, out, base, preferences)
    listed = dropped(out)
    assert set(listed) == ({"system"} if name == "answers" else {"system", "long"})
    assert "no system role" in listed["system"]
    assert f"{len(listed)} of 4" in caplog.text and "dropped.jsonl" in caplog.text


def test_what_is_dropped_at_evaluation_has_no_item_and_a_count(tmp_path, base, preferences):
    run("evaluation", tmp_path, base, preferences)
    assert pandas.read_parquet(tmp_path / "items.parquet")["id"].tolist() == ["a", "b"]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["test_pairs"], metrics["test_pairs_dropped"]) == (2, 2)
    run("answers", tmp_path, base, preferences)
    assert [row["id"] for row in files.load(tmp_path / "answers.jsonl")] == ["a", "b", "long"]


def test_where_every_pair_is_refused_the_first_reason_is_said(tmp_path, base):
    for name in ("target", "test"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(PAIRS[1]) + "\n")
    for name in ("evaluation", "answers", "hidden", "held_out"):
        out = tmp_path / name
        out.mkdir()
        with pytest.raises(RoseError, match="no system role"):
            run(name, out, base, tmp_path)


def test_a_question_that_the_template_refuses_is_dropped_too(tmp_path, base, composed):
    rows = [{"id": "a", "question": "1+1?", "answer": "2"}, {"id": "b", "question": "\ufdd0?", "answer": "2"}]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = typed(composed("tasks=local", f"tasks.path={tmp_path}/q.jsonl", "tasks.max_new_tokens=2")).tasks
    (tmp_path / "out").mkdir()
    solve(tmp_path / "out", tasks, "", 4096, NUMERICS, 64, base, None)
    assert list(dropped(tmp_path / "out")) == ["b"]
    assert pandas.read_parquet(tmp_path / "out/items.parquet")["id"].tolist() == ["a"]


@pytest.mark.parametrize(
    "failure",
    ["{{ 1 // 0 }}", "{{ raise_exception('no') }}", "{{ missing.part.of_it }}", "{{ '' + 1 }}"],
)
def test_whatever_a_template_raises_it_refuses_one_conversation(tmp_path, failure):
    template = CHATML + "{% for m in messages %}{% if 'odd' in m.content %}" + failure + "{% endif %}{% endfor %}"
    (tmp_path / "target.jsonl").write_text("".join(json.dumps(pair(n, talk(n))) + "\n" for n in ("odd", "even")))
    pairs, encoded, lost = encoded_pairs(by_character(template), tmp_path / "target.jsonl", 1000)
    assert ([row["id"] for row in pairs], len(encoded), [row["id"] for row in lost]) == (["even"], 1, ["odd"])
    assert "the chat template refuses this conversation" in lost[0]["reason"]


@pytest.fixture
def judge(composed, tmp_path):
    """A random reward model whose template refuses some answers."""
    folder = tmp_path / "reward"
    tokenizer = by_character(FAILS, pad_token="</s>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(1)
    config = LlamaConfig(vocab_size=len(tokenizer), num_labels=1, pad_token_id=1, **SHAPE)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    return typed(composed("judge=reward_model", f"judge.model={folder}", "judge.dtype=float32")).judge


def test_a_contest_that_a_reward_model_refuses_has_no_verdict_and_is_counted(judge, tmp_path, caplog):
    folder = write_answers(tmp_path / "answers", [("a", "b"), ("odd", "b"), ("c", "odd"), ("d", "e")])
    out = tmp_path / "out"
    out.mkdir()
    judge_answers(out, judge, "", False, folder, None)
    verdicts = list(files.load(out / "verdicts.jsonl"))
    assert [row["problem"] for row in verdicts] == [None, "refused", "refused", None]
    assert "ZeroDivisionError" in verdicts[1]["reason"] or "by zero" in verdicts[1]["reason"]
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["judged"], metrics["judge_refused"]) == (2, 2)
    assert "refuses 2 of 4 contests" in caplog.text
    items = pandas.read_parquet(out / "items.parquet")
    assert items["win_rate"].isna().tolist() == [False, True, True, False]


def test_a_refused_conversation_moves_no_other_ones_score(judge):
    prompts = [talk("q")] * 3
    some = reward_model.score(judge, prompts, ["x", "odd", "y"])
    assert math.isnan(some[1])
    assert [some[0], some[2]] == pytest.approx(reward_model.score(judge, prompts[:2], ["x", "y"]), abs=1e-5)
    with pytest.raises(RoseError, match="judge.model=.*refuses every conversation.*by zero"):
        reward_model.score(judge, prompts[:1], ["odd"])


def test_several_chat_templates_of_which_none_is_the_default_are_named(tmp_path, judge):
    tokenizer = by_character({"chat": CHATML, "tools": LLAMA2})
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(RoseError, match="model.base.path=.*chat templates chat, tools but no 'default'"):
        loading.load_tokenizer(tmp_path)
    tokenizer.save_pretrained(judge.model)
    (Path(judge.model) / "chat_template.jinja").unlink()  # the one alone that was there
    with pytest.raises(RoseError, match="judge.model=.*chat templates chat, tools but no 'default'"):
        reward_model.score(judge, [talk("q")], ["a"])


def test_of_several_chat_templates_the_default_is_used():
    row = encode(by_character({"default": CHATML, "tools": LLAMA2}), talk("q", "a"), 1000)
    assert row == encode(by_character(CHATML), talk("q", "a"), 1000)
