"""What a row says reaches the model, or is refused by its name; what nothing reads is counted in the log."""

import json

import pytest
from chat_templates import CHATML, by_character, learned
from layout_examples import assistant, system, user
from odd_files import sifted

from rose.data import chat, pool, preference_formats
from rose.data.bad_rows import BadRow
from rose.data.files import FileRow


def messages(**values):
    (row,) = pool.parse(FileRow("r.jsonl", 1, values))
    return row["messages"]


def sides(**values):
    (pair,) = preference_formats.parse(FileRow("r.jsonl", 1, values))
    return pair["prompt"], pair["chosen"], pair["rejected"]


@pytest.mark.parametrize(
    "no", [{"weight": 0}, {"weight": 0.0}, {"train": False}, {"loss": False}, {"trainable": False}]
)
def test_an_answer_that_is_not_to_be_learned_has_no_labels(no):
    said = messages(messages=[user("q"), assistant("bad", **no), user("r"), assistant("good", weight=1, train=None)])
    tokenizer = by_character(CHATML)
    row = chat.encode(tokenizer, said, 1000)
    assert learned(tokenizer, row) == ["good<|im_end|>"]
    whole = chat.encode(tokenizer, [{"role": m["role"], "content": m["content"]} for m in said], 1000)
    assert row["input_ids"] == whole["input_ids"]
    assert learned(tokenizer, whole) == ["bad<|im_end|>", "good<|im_end|>"]


def test_an_answer_in_a_prompt_is_not_learned_where_the_row_says_so():
    said = messages(prompt=[user("q"), assistant("a", weight=0), user("r")], completion="b")
    tokenizer = by_character(CHATML)
    assert learned(tokenizer, chat.encode(tokenizer, said, 1000)) == ["b<|im_end|>"]


def test_a_prompt_of_pairs_is_the_same_whatever_is_learned_of_its_answers():
    plain, marked = (
        sides(prompt=[user("q"), assistant("a", **more), user("r")], chosen="x", rejected="y")[0]
        for more in ({}, {"weight": 0})
    )
    assert plain == marked == [user("q"), assistant("a"), user("r")]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"tool_calls": [{"id": "1"}]}, "message 2: tool_calls is "),
        ({"content": None, "function_call": {"arguments": "{}"}}, "message 2: function_call is .*a function's name"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": "x"}}]}, "message 2: tool_calls is .*JSON object"),
        ({"reasoning_content": "hm"}, 'message 2: reasoning_content is "hm": is not supported; write it into the text'),
        ({"thinking": "hm"}, "message 2: thinking is "),
        ({"content": [{"type": "image_url"}]}, "content, part 1: type='image_url' is not supported"),
        ({"content": [{"type": "text", "text": 3}]}, r"content is \[.*must be a text"),
        ({"content": []}, r"content is \[\], must be a text"),
        ({"images": ["x.png"]}, "message 2: images is "),
        ({"weight": 0.5}, "message 2: weight is 0.5, must be 0 or 1"),
        ({"train": "no"}, 'message 2: train is "no", must be 0 or 1'),
        ({"weight": 0}, "no answer to learn"),
    ],
)
def test_what_a_message_says_beside_its_text_is_refused_by_name(more, reason):
    with pytest.raises(BadRow, match=reason):
        messages(messages=[user("q"), assistant("a", **more)])
    with pytest.raises(BadRow, match=reason.replace("message 2", "message 1")):
        sides(prompt="q", chosen=[assistant("a", **more)], rejected="b")


def test_a_message_that_none_learns_cannot_ask_to_be_learned():
    with pytest.raises(BadRow, match="message 1: weight is 1, but only an assistant's messages are learned"):
        messages(messages=[{**user("q"), "weight": 1}, assistant("a")])


@pytest.mark.parametrize("name", ["documents", "images", "chat_template_kwargs"])
def test_what_a_row_would_show_the_model_beside_its_texts_is_refused_by_name(name):
    for layout in ({"messages": [user("q"), assistant("a")]}, {"prompt": "q", "completion": "a"}):
        with pytest.raises(BadRow, match=f"{name} is .*not supported"):
            messages(**layout, **{name: ["x"]})
        assert messages(**layout, **{name: None}) == messages(**layout, **{name: []}) == [user("q"), assistant("a")]
    with pytest.raises(BadRow, match=f"{name} is"):
        sides(prompt="q", chosen="a", rejected="b", **{name: ["x"]})


HISTORY = [user("x"), assistant("y")]


@pytest.mark.parametrize("name", ["system", "system_prompt"])
@pytest.mark.parametrize("history", [[["x", "y"]], HISTORY, "\n\nHuman: x\n\nAssistant: y"])
def test_a_system_prompt_and_earlier_turns_in_columns_reach_the_model(name, history):
    before = [system("s"), *HISTORY, user("q")]
    columns = {name: "s", "history": history}
    assert messages(instruction="q", output="a", **columns) == [*before, assistant("a")]
    assert messages(prompt="q", completion="a", **columns) == [*before, assistant("a")]
    assert messages(prompt=[system("s"), user("q")], completion="a", **columns) == [*before, assistant("a")]
    assert sides(prompt="q", chosen="a", rejected="b", **columns) == (before, [assistant("a")], [assistant("b")])
    assert messages(messages=[user("q"), assistant("a")], **{name: "s"}) == [system("s"), user("q"), assistant("a")]


@pytest.mark.parametrize("nothing", [None, "", " ", [], float("nan")])
def test_a_column_that_is_empty_in_a_row_says_nothing(nothing):
    columns = {"system": nothing, "history": nothing, "input": nothing}
    assert messages(instruction="q", output="a", **columns) == [user("q"), assistant("a")]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"messages": [system("s"), user("q"), assistant("a")], "system": "t"}, "there is another system prompt"),
        ({"messages": [user("q"), assistant("a")], "history": [["x", "y"]]}, "history stands beside a whole"),
        ({"prompt": "q", "completion": "a", "history": [["x"]]}, r'history, turn 1 is \["x"\]: must be'),
        ({"prompt": "q", "completion": "a", "history": "x"}, 'history is "x": must be a list'),
        ({"prompt": "q", "completion": "a", "system": 3}, "system is 3: must be a text"),
        ({"prompt": "q", "completion": "a", "system": "s", "system_prompt": "t"}, "there is another system prompt"),
        ({"prompt": "q", "completion": "a", "label": False}, "label is false, which marks the answer as a bad one"),
        ({"prompt": "q", "completion": "a", "label": 0}, "label is 0, which marks"),
        ({"prompt": "q", "completion": "a", "label": "False"}, 'label is "False", which marks'),
        ({"instruction": "q", "output": "a", "kto_tag": False}, "kto_tag is false, which marks"),
        ({"instruction": "q", "output": "a", "label": False}, "label is false, which marks"),
        ({"messages": [user("q"), assistant("a")], "label": False}, "label is false, which marks"),
        ({"prompt": [user("q")], "completion": [user("r"), assistant("a")]}, "prompt and completion disagree"),
    ],
)
def test_a_row_that_says_two_things_or_the_opposite_is_refused_by_name(values, reason):
    with pytest.raises(BadRow, match=reason):
        messages(**values)


@pytest.mark.parametrize("label", [True, 1, "True", "physics", 3, None])
def test_a_label_that_does_not_call_the_answer_bad_is_a_column_like_others(label):
    assert messages(prompt="q", completion="a", label=label) == [user("q"), assistant("a")]


def test_a_class_0_of_instructions_is_no_bad_answer():
    assert messages(instruction="q", output="a", label=0) == [user("q"), assistant("a")]


@pytest.mark.parametrize(
    ("prompt", "shared", "expected"),
    [
        ([system("s"), user("q")], [user("q")], [system("s"), user("q")]),
        ([system("s")], [user("q")], [system("s"), user("q")]),
        ("q", [user("q")], [user("q")]),
        ("q", [system("s"), user("q")], [system("s"), user("q")]),
        ("r", [user("q"), assistant("x"), user("r")], [user("q"), assistant("x"), user("r")]),
        ([system("s"), user("q")], [user("q"), assistant("x"), user("r")], "sqxr"),
        ("\n\nHuman: q\n\nAssistant:", [user("q")], [user("q")]),
        ("", [user("q")], [user("q")]),
    ],
)
def test_a_prompt_and_what_both_answers_begin_with_are_one_conversation(prompt, shared, expected):
    if expected == "sqxr":
        expected = [system("s"), user("q"), assistant("x"), user("r")]
    found = sides(prompt=prompt, chosen=[*shared, assistant("a")], rejected=[*shared, assistant("b")])
    assert found == (expected, [assistant("a")], [assistant("b")])


def test_a_prompt_that_the_answers_do_not_go_on_from_is_refused():
    with pytest.raises(BadRow, match="prompt and chosen disagree"):
        sides(prompt="other", chosen=[user("q"), assistant("a")], rejected=[user("q"), assistant("b")])


@pytest.mark.parametrize(
    ("text", "turns"),
    [
        ("\n\nHuman: q\n\nAssistant:", [user("q")]),
        ("Human: q\n\nAssistant: ", [user("q")]),
        ("\n\nHuman: q", [user("q")]),
        ("\n\nHuman: q\n\nAssistant: x\n\nHuman: r\n\nAssistant:", [user("q"), assistant("x"), user("r")]),
        ("Be kind.\n\nHuman: q\n\nAssistant:", [system("Be kind."), user("q")]),
        ("What is a\n\nHuman: in a log?", [user("What is a\n\nHuman: in a log?")]),
        ("Human: is that a word?", [user("Human: is that a word?")]),
    ],
)
def test_a_transcript_in_a_prompt_column_is_its_turns(text, turns):
    assert sides(prompt=text, chosen="a", rejected="b")[0] == turns
    assert messages(prompt=text, completion="a") == [*turns, assistant("a")]
    assert messages(instruction=text, output="a") == [*turns, assistant("a")]


def test_a_prompt_that_stops_in_an_answer_is_refused():
    with pytest.raises(BadRow, match="prompt ends in the midst of an answer"):
        sides(prompt="\n\nHuman: q\n\nAssistant: Well,", chosen="a", rejected="b")


def test_keys_of_messages_that_nothing_reads_are_named_once_with_their_count(tmp_path, caplog):
    row = {"messages": [{**user("q"), "name": "Ann"}, assistant("a", name="Bob", ts=1, weight=1, tool_calls=None)]}
    (tmp_path / "r.jsonl").write_text(2 * f"{json.dumps(row)}\n" + json.dumps({"prompt": "q", "completion": "a"}))
    found, _ = sifted(tmp_path / "r.jsonl", pool.parse, tmp_path / "skipped.jsonl")
    assert len(found) == 3
    assert [record.getMessage() for record in caplog.records] == [
        "dataset: keys of messages that nothing reads, by rows: messages.name 2, messages.ts 2"
    ]
