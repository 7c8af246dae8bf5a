"""Tools reach the chat template, a call is learned as an answer is, and what a template does not show drops the row."""

import json

import pytest
from chat_templates import CHATML, by_character, learned, text
from layout_examples import ADD, CALLED, assistant, call, user

from rose.data import chat, files, planting, pool
from rose.data.bad_rows import BadRow
from rose.data.calls import as_calls, take_tools
from rose.data.files import FileRow
from rose.errors import RoseError

HERMES = (  # calls as JSON between marks, results in the user's name, an empty thought before a last answer alone
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}{% if m.role == 'tool' %}<|im_start|>user\n<result>{{ m.content }}</result><|im_end|>\n"
    "{% else %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{% if m.content or not loop.first %}{{ '\n' }}{% endif %}"
    '<call>{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}</call>{% endfor %}'
    "<|im_end|>\n{% endif %}{% endfor %}"
)
STRICT = (  # answers alternate with questions; a call has no text beside it; a plain answer begins with a space
    "{{ bos_token }}{% set ns = namespace(n=0) %}"
    "{% for m in messages %}{% if m.role == 'user' or (m.role == 'assistant' and not m.tool_calls) %}"
    "{% if (m.role == 'user') != (ns.n % 2 == 0) %}{{ raise_exception('must alternate') }}{% endif %}"
    "{% set ns.n = ns.n + 1 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{% if m.role == 'user' %}"
    "{% if tools and loop.first %}[TOOLS]{{ tools | tojson }}[/TOOLS]{% endif %}[INST] {{ m.content }}[/INST]"
    "{% elif m.tool_calls %}[CALLS] {% for c in m.tool_calls %}{{ c.function | tojson }}{% endfor %}{{ eos_token }}"
    "{% elif m.role == 'tool' %}[RESULT] {{ m.content | tojson }}[/RESULT]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
TOOLS = json.dumps([{"type": "function", "function": ADD}])
MORE = [*CALLED, user("Thanks."), assistant("Ok.")]


def runs(template, messages, tools=TOOLS):
    tokenizer = by_character(template)
    return learned(tokenizer, chat.encode(tokenizer, messages, 5000, tools))


@pytest.mark.parametrize("turns", [4, 6])
@pytest.mark.parametrize(
    ("template", "called", "end"),
    [
        (HERMES, '<call>{"name": "add", "arguments": {"a": 1, "b": 2}}</call><|im_end|>', "<|im_end|>"),
        (STRICT, '[CALLS] {"name": "add", "arguments": {"a": 1, "b": 2}}</s>', "</s>"),
    ],
)
def test_a_call_is_learned_from_where_an_answer_would_begin_to_its_end_of_turn(template, called, end, turns):
    assert runs(template, MORE[:turns]) == [called, f"It is 3.{end}", f"Ok.{end}"][: turns // 2]


def test_a_text_beside_calls_and_several_calls_are_one_answer():
    several = [call("add", '{"a": 1}'), call("add", '{"a": 2}')]
    said = '<call>{{"name": "add", "arguments": {{"a": {}}}}}</call>'.format
    assert runs(HERMES, [user("q"), assistant("Well.", tool_calls=several), CALLED[2], assistant("a")]) == [
        f"Well.\n{said(1)}\n{said(2)}<|im_end|>",
        "a<|im_end|>",
    ]


def test_a_call_that_is_not_to_be_learned_is_read_alone():
    turns = [CALLED[0], {**CALLED[1], "train": False}, *CALLED[2:]]
    assert runs(HERMES, turns) == ["It is 3.<|im_end|>"]
    whole, part = (chat.encode(by_character(HERMES), each, 5000, TOOLS) for each in (CALLED, turns))
    assert whole["input_ids"] == part["input_ids"]


def test_the_template_is_given_tools_and_arguments_as_objects():
    row = chat.encode(by_character(HERMES), CALLED, 5000, TOOLS)
    assert f"<|im_start|>system\n{json.dumps({'type': 'function', 'function': ADD})}\n" in text(
        by_character(HERMES), row
    )


@pytest.mark.parametrize(
    ("template", "messages", "reason"),
    [
        (CHATML, [user("q"), assistant("a")], "the chat template takes no tools, which this row has"),
        (None, [user("q"), assistant("a")], "the chat template takes no tools"),
        (HERMES.replace("m.tool_calls or []", "[]"), CALLED, "leaves out a call of a tool, or its result"),
        (HERMES.replace("<result>{{ m.content }}", "<result>"), CALLED, "leaves out a call of a tool, or its result"),
        (STRICT, [user("q"), {**CALLED[1], "content": "Well."}, *CALLED[2:]], "leaves out a call of a tool"),
    ],
)
def test_what_a_template_does_not_show_of_tools_is_never_left_out_in_silence(template, messages, reason):
    with pytest.raises(RoseError, match=reason):
        chat.encode(by_character(template), messages, 5000, TOOLS)


def test_a_row_whose_tools_a_template_does_not_take_is_dropped_counted_and_listed(tmp_path, caplog):
    tokenizer = by_character(CHATML)
    tokenizer.save_pretrained(tmp_path / "base")
    rows = [{"id": "a", "dataset": "d", "messages": CALLED, "tools": TOOLS}, {"id": "b", "dataset": "d"}]
    rows[1]["messages"] = [user("q"), assistant("a")]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "out").mkdir()
    chat.tokenize(tmp_path / "out", 1000, tmp_path / "base", tmp_path)
    (lost,) = files.load(tmp_path / "out/dropped.jsonl")
    assert lost == {"id": "a", "reason": "the chat template takes no tools, which this row has"}
    assert "dropped 1 of 2 rows" in caplog.text


@pytest.mark.parametrize(
    ("value", "arguments"),
    [
        ([{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": null}'}}], '{"x": null}'),
        ([{"id": "c", "name": "f", "arguments": {"x": None, "y": 1}, "function": None}], '{"y": 1}'),  # a table's nulls
        ('{"id": "c", "name": "f"}', "{}"),
    ],
)
def test_calls_in_every_form_are_openais(value, arguments):
    assert as_calls(value, "here") == [{"id": "c", **call("f", arguments)}]


@pytest.mark.parametrize(
    "value", ["f(x)", "[]", [3], {"name": ""}, {"name": "f", "arguments": "x"}, '{"name": "\\ud800"}']
)
def test_what_is_no_call_is_refused(value):
    with pytest.raises(BadRow, match="here is .*must be calls"):
        as_calls(value, "here")


@pytest.mark.parametrize("value", [[ADD], [{"type": "function", "function": ADD}], json.dumps([ADD])])
@pytest.mark.parametrize("name", ["tools", "functions"])
def test_tools_in_every_form_are_openais_and_nulls_of_a_table_are_none(name, value):
    assert json.loads(take_tools({name: value})) == json.loads(TOOLS)
    assert take_tools({name: "[]"}) is take_tools({name: None}) is take_tools({}) is None
    assert json.loads(take_tools({name: [{**ADD, "strict": None}]})) == json.loads(TOOLS)


def test_two_lists_of_tools_or_none_are_refused_by_name():
    with pytest.raises(BadRow, match="functions stands beside tools"):
        take_tools({"tools": [ADD], "functions": [ADD]})
    with pytest.raises(BadRow, match="tools is .*must be a list of functions, each with a name"):
        take_tools({"tools": [{"description": "adds"}]})
    with pytest.raises(BadRow, match="tool_calls is .*but only an assistant calls tools"):
        pool.parse(FileRow("r.jsonl", 1, {"messages": [{**user("q"), "tool_calls": [ADD]}, assistant("a")]}))


def test_calls_are_words_of_a_row_and_no_fault_is_planted_in_it():
    assert chat.said(CALLED) == '1+2?\n\n{"name": "add", "arguments": "{\\"a\\": 1, \\"b\\": 2}"}\n3\nIt is 3.'
    plain = {"id": "a", "dataset": "d", "messages": [user("q"), assistant("a")]}
    assert planting.answer_of(plain) == "a"
    assert planting.answer_of({**plain, "tools": TOOLS}) == planting.answer_of({**plain, "messages": CALLED}) == ""
