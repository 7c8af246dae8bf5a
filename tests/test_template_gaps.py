"""What a chat template lacks: a system turn is kept, folded or refused, never lost unsaid, and answers have an end."""

import logging

import pytest
from chat_templates import CHATML, FAMILIES, GEMMA, MISTRAL, by_character, family, learned, talk, text
from small_job import overrides

from rose import pipeline
from rose.config.choices import SystemTurns
from rose.config.compose import typed
from rose.config.schema import Base
from rose.data.chat import encode, render, turn_ends
from rose.data.template_gaps import FOLD, around, refuses_system
from rose.errors import RoseError
from rose.models import loading
from rose.training import base_model

TAKE_NONE = {  # and why, as a probe shows
    "llama2": "the chat template refuses this conversation (no system role)",
    "gemma": "the chat template refuses this conversation (a system prompt)",
    "mistral": "it leaves it out",  # of what is trained on: it puts it before a last question alone
}
SILENT = "{% for m in messages %}{% if m.role != 'system' %}[{{ m.role }}]{{ m.content }}</s>{% endif %}{% endfor %}"


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_template_does_to_a_system_turn_is_found_out_by_rendering_one(name):
    assert refuses_system(family(name)) == TAKE_NONE.get(name)


def test_a_template_that_refuses_everything_is_not_blamed_for_its_system_turns():
    assert around(by_character("{{ raise_exception('no') }}"), SystemTurns.keep) == []


@pytest.mark.parametrize("template", [GEMMA, MISTRAL, SILENT])
@pytest.mark.parametrize("system", ["Be kind.", " Be kind.\n"])
def test_folded_it_stands_before_the_first_question(template, system):
    plain, folding = by_character(template), by_character(FOLD + template)
    row = encode(folding, talk("Hi?", "Yes.", "And?", "No.", system=system), 1000)
    assert row == encode(plain, talk("Be kind.\n\nHi?", "Yes.", "And?", "No."), 1000)


def test_folded_it_is_a_question_of_its_own_where_none_follows_and_nothing_where_it_says_nothing():
    plain, folding = by_character(SILENT), by_character(FOLD + SILENT)
    assert render(folding, talk(system="Be kind.")) == render(plain, talk("Be kind."))
    assert render(folding, talk("Hi?", "Yes.", system=" \n")) == render(plain, talk("Hi?", "Yes."))


def test_what_has_no_system_turn_is_written_as_ever():
    assert render(by_character(FOLD + GEMMA), talk("a", "b")) == render(by_character(GEMMA), talk("a", "b"))


@pytest.mark.parametrize("template", [SILENT, MISTRAL])
def test_a_row_whose_system_turn_is_left_out_is_refuses_system(template):
    with pytest.raises(RoseError, match="leaves out a system turn of this conversation"):
        encode(by_character(template), talk("q", "a", system="s"), 1000)


def test_a_later_system_turn_that_is_left_out_is_missed_too():
    first_alone = (
        "{% for m in messages %}{% if loop.first or m.role != 'system' %}{{ m.content }}|{% endif %}{% endfor %}"
    )
    tokenizer, turns = by_character(first_alone), talk("q", "a", system="s")
    assert refuses_system(tokenizer) is None
    assert text(tokenizer, encode(tokenizer, turns, 1000)) == "s|q|a|"
    with pytest.raises(RoseError, match="leaves out a system turn"):
        encode(tokenizer, [*turns, *talk("q", "a", system="s")], 1000)


def test_where_none_is_taken_keep_refuses_the_model_refuse_its_rows_and_the_log_says_so(caplog):
    tokenizer = by_character(SILENT)
    with pytest.raises(RoseError, match=r"^model.system=keep: the model's chat template takes no system turn .*; say"):
        around(tokenizer, SystemTurns.keep)
    with caplog.at_level(logging.INFO):
        assert [around(tokenizer, rule) for rule in (SystemTurns.fold, SystemTurns.refuse)] == [[FOLD, ""], []]
    assert ["before the first user turn" in line or "are dropped" in line for line in caplog.messages] == [True, True]


def test_where_one_is_taken_nothing_is_done_and_nothing_said(caplog):
    with caplog.at_level(logging.INFO):
        assert not any(around(by_character(CHATML), rule) for rule in SystemTurns)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("rule", "files"), [("fold", [loading.AROUND, "reference.json"]), ("refuse", ["reference.json"])]
)
def test_the_base_stage_notes_it_for_whoever_loads_the_tokenizer(tmp_path, base, rule, files):
    by_character(GEMMA).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text((base / "config.json").read_text())
    (tmp_path / "out").mkdir()
    given = Base(str(tmp_path / "model"), None, None, False, None)
    base_model.prepare(tmp_path / "out", given, loading.fingerprint(given), system=SystemTurns(rule))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == files
    tokenizer = loading.load_tokenizer(tmp_path / "out")
    assert (refuses_system(tokenizer) is None) == (rule == "fold")


def test_folding_is_the_default_and_leaves_every_stage_its_name(composed, inputs, tmp_path):
    names = [
        {
            kind: node.name
            for kind, node in pipeline.stages(typed(composed(*overrides(inputs, tmp_path), *more))).items()
        }
        for more in ([], ["model.system=fold"], ["model.system=refuse"])
    ]
    assert names[0] == names[1] and names[0]["base"] != names[2]["base"] and names[0]["tokens"] != names[2]["tokens"]


def test_where_nothing_ends_an_answer_the_next_turns_mark_is_learned(caplog):
    tokenizer = family("glm")
    with caplog.at_level(logging.INFO):
        before, after = around(tokenizer, SystemTurns.fold)
    assert before == "" and "<|user|>, which begins the next turn, is learned" in caplog.text
    assert learned(tokenizer, encode(tokenizer, talk("q", "a", "q", "b"), 1000)) == ["a", "b"]
    tokenizer.chat_template += after
    row = encode(tokenizer, talk("q", "a", "q", "b"), 1000)
    assert learned(tokenizer, row) == ["a<|user|>", "b<|user|>"]
    assert text(tokenizer, row).endswith("<|user|>\nq<|assistant|>\n<think></think>\nb<|user|>")
    assert turn_ends(tokenizer) == ([tokenizer.convert_tokens_to_ids("<|user|>")], [])
    assert around(tokenizer, SystemTurns.fold) == []


@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - {"glm"}))
def test_a_template_that_ends_its_answers_or_has_no_mark_for_it_is_left_as_it_is(name):
    assert [after for _, after in [around(family(name), SystemTurns.refuse) or ("", "")]] == [""]
