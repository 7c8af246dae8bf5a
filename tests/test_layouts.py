"""Each layout's example row gives the rows that were written by hand, and the tables of docs/DATA.md.

`python tests/test_layouts.py` (make tables) writes the tables anew.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from layout_examples import ADD, PAIRS, POOL, assistant, system, user

from rose.config.choices import PairLayout
from rose.data import pair_layouts, pool, pool_layouts, preference_formats
from rose.data.bad_rows import BadRow
from rose.data.files import FileRow
from rose.data.layouts import described
from rose.data.messages import is_answer

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "DATA.md"


def conversations(row: dict[str, Any]) -> list[list[dict]]:
    return [found["messages"] for found in pool.parse(FileRow("r.jsonl", 1, row))]


def pairs(rows: list[dict[str, Any]], layout: PairLayout | None = None) -> list[dict]:
    files = [FileRow("r.jsonl", line, row) for line, row in enumerate(rows, 1)]
    found = []
    for row in preference_formats.gathered(files, layout):
        if row.error:
            raise row.error
        found += preference_formats.parse(row, layout=layout)
    return found


def sides(rows: list[dict[str, Any]]) -> list[tuple[list[dict], str, str]]:
    return [(pair["prompt"], pair["chosen"][0]["content"], pair["rejected"][0]["content"]) for pair in pairs(rows)]


@pytest.mark.parametrize("name", pool_layouts.LAYOUTS)
def test_a_pool_row_of_each_layout_becomes_the_conversations_written_by_hand(name):
    assert pool_layouts.layout_of(POOL[name].row) == name
    assert conversations(POOL[name].row) == POOL[name].becomes


@pytest.mark.parametrize("name", pair_layouts.LAYOUTS)
def test_rows_of_each_layout_of_pairs_become_the_pairs_written_by_hand(name):
    example = PAIRS[name]
    assert preference_formats.layout_of(example.rows[0])[0] == name
    assert sides(example.rows) == example.becomes
    assert len({pair["id"] for pair in pairs(example.rows)}) == len(example.becomes)
    with pytest.raises(BadRow) as error:
        pairs([{**example.rows[0], **example.refused}])
    assert example.reason in str(error.value)


def test_every_layout_that_can_be_asked_for_is_read_and_has_an_example():
    assert set(pair_layouts.LAYOUTS) == set(PairLayout) == set(PAIRS)
    assert set(pool_layouts.LAYOUTS) == set(POOL)


def test_columns_that_two_layouts_fit_are_refused_until_one_is_asked_for():
    row = {"prompt": "q", "chosen": "a", "rejected": "b", "completion": "a", "label": True}
    with pytest.raises(
        BadRow, match=r"fits the layouts pairs and kto alike .*preference.pairs.layout=pairs \(or kto\)"
    ):
        pairs([row])
    assert [pair["rejected"] for pair in pairs([row], PairLayout.pairs)] == [[assistant("b")]]
    both = [row, {**row, "completion": "c", "label": False}]
    assert [pair["rejected"] for pair in pairs(both, PairLayout.kto)] == [[assistant("c")]]


def test_a_layout_that_is_asked_for_says_what_it_misses():
    with pytest.raises(BadRow, match="layout=shp: needs history, human_ref_A, human_ref_B; found prompt, chosen"):
        pairs([{"prompt": "q", "chosen": "a", "rejected": "b"}], PairLayout.shp)


def test_of_columns_that_are_null_in_a_row_none_makes_it_ambiguous():
    row = {"prompt": "q", "chosen": "a", "rejected": "b", "question": None, "answers": None, "label": None}
    assert sides([row]) == [([user("q")], "a", "b")]
    assert conversations({"messages": None, "conversations": None, "question": "q", "answer": "a"}) == [
        [user("q"), assistant("a")]
    ]


@pytest.mark.parametrize(
    ("parse", "columns", "nearest"),
    [
        (pool.parse, {"Question": "q", "anwser": "a"}, "orca (question, response/answer"),
        (pool.parse, {"conversation": []}, "sharegpt (conversations)"),
        (pool.parse, {"promt": "q", "completion": "a"}, "prompt (prompt, completion/"),
        (
            preference_formats.parse,
            {"question": "q", "accepted": "a", "rejected": "b"},
            "orca (question/input, chosen",
        ),
        (preference_formats.parse, {"history": "q", "human_ref_A": "a"}, "shp (history, human_ref_A, human_ref_B)"),
    ],
)
def test_columns_of_no_layout_are_listed_with_the_three_nearest(parse, columns, nearest):
    with pytest.raises(BadRow) as error:
        parse(FileRow("r.jsonl", 1, columns))
    said, _, named = str(error.value).partition("; the nearest are ")
    assert said == f"fits no layout: found {', '.join(columns)}"
    assert named.startswith(nearest) and named.count("(") == 3


def test_a_prompt_of_which_every_answer_has_the_same_label_names_its_first_row():
    rows = [FileRow("r.jsonl", line, PAIRS["kto"].rows[0]) for line in (3, 8)]
    (row,) = preference_formats.gathered(rows, None)
    assert row.line == 3
    with pytest.raises(BadRow, match="has no two answers of different label to its prompt"):
        preference_formats.parse(row)


def test_a_row_of_one_answer_that_says_nothing_is_named_itself():
    rows = [FileRow("r.jsonl", 1, PAIRS["kto"].rows[0]), FileRow("r.jsonl", 2, {**PAIRS["kto"].rows[1], "label": "?"})]
    assert [(row.line, str(row.error)[:8]) for row in preference_formats.gathered(rows, None) if row.error] == [
        (2, "label is")
    ]


def test_scores_of_helpsteer_have_a_ratio_and_labels_and_ranks_have_none():
    assert [pair["score_ratio"] for pair in pairs(PAIRS["helpsteer"].rows)] == [4.0, 4.0]  # 4 over 1, 4 over no vote
    assert not [pair for name in ("kto", "nectar") for pair in pairs(PAIRS[name].rows) if "score_ratio" in pair]


def test_the_turns_of_a_helpsteer_prompt_are_turns():
    row = {**PAIRS["helpsteer2"].rows[0], "prompt": "x\n<extra_id_1>Assistant\ny\n<extra_id_1>User\nq"}
    assert sides([row])[0][0] == [user("x"), assistant("y"), user("q")]


@pytest.mark.parametrize("name", pair_layouts.LAYOUTS)
def test_a_pair_with_calls_of_tools_is_refused(name):
    example = PAIRS[name]
    if example.prompt is None:
        return
    called = [
        user("q"),
        assistant(None, tool_calls=[{"name": "add", "arguments": {}}]),
        {"role": "tool", "content": "3"},
    ]
    with pytest.raises(BadRow, match="calls tools, or has their results"):
        pairs([{**row, example.prompt: called} for row in example.rows])


def test_a_pool_that_holds_pairs_is_told_so_and_pairs_that_are_a_pool_likewise():
    own = r"is of preference pairs, which preference.path reads, by its columns prompt, chosen, rejected \(layout pairs"
    with pytest.raises(BadRow, match=own):
        conversations({"prompt": "q", "chosen": "a", "rejected": "b"})
    own = r"is of a pool, which dataset.path reads, and no pair, by its columns messages \(layout messages"
    with pytest.raises(BadRow, match=own):
        pairs([{"messages": [user("q"), assistant("a")]}])


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        ({"from": "gpt", "value": None}, "value is missing or null, must be a text"),
        ({"from": "gpt"}, "value is missing or null"),
        ({"from": "gpt", "value": [{"type": "image"}]}, "value, part 1: type='image'"),
        ({"from": "function_call", "value": "no"}, 'value is "no": must be calls'),
        ({"role": "assistant", "content": None}, "content is missing or null"),
    ],
)
def test_what_a_turn_lacks_is_called_by_its_own_name(turn, said):
    with pytest.raises(BadRow) as error:
        conversations({"conversations": [{"from": "human", "value": "q"}, turn]})
    assert f"conversations, message 2: {said}" in str(error.value)


def test_arena_rows_of_two_prompts_say_so():
    row = {**PAIRS["arena"].rows[0], "conversation_a": [user("other"), assistant("b")]}
    with pytest.raises(BadRow, match="conversation_a and conversation_b begin differently: the answers are not to one"):
        pairs([row])


@pytest.mark.parametrize("given", [1, 1.0, "1", "1.0"])
def test_a_number_that_names_an_answer_may_come_as_tables_have_it(given):
    row = {**PAIRS["safe_rlhf"].rows[0], "better_response_id": given}
    assert sides([row]) == PAIRS["safe_rlhf"].becomes


@pytest.mark.parametrize("given", [0.5, "2", None, True, "nan"])
def test_a_number_that_names_no_answer_is_refused(given):
    with pytest.raises(BadRow, match="better_response_id is .*: must be 0 or 1"):
        pairs([{**PAIRS["safe_rlhf"].rows[0], "better_response_id": given}])


OTHERS = {  # of the examples
    *("verbosity", "model_a", "model_b", "safer_response_id", "created_at_utc_A", "created_at_utc_B"),
    *("score_A", "score_B", "seconds_difference", "upvote_ratio"),
}


@pytest.mark.parametrize("name", pair_layouts.LAYOUTS)
def test_columns_of_a_pair_that_no_model_is_shown_are_known(name):
    row = FileRow("r.jsonl", 1, {**PAIRS[name].rows[0], "note": "n", "empty": ""})
    assert preference_formats.unread(row, None) - OTHERS == {"note"}


# The tables


def cell(probe: Callable[[], str]) -> str:
    """What becomes of it, or why it is refused."""
    try:
        return probe()
    except BadRow as error:
        return f"refused: “{re.split(r': | [(]| is .[{]', str(error))[0]}”"


def without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def pool_cells(name: str) -> list[str]:
    example = POOL[name]
    row = without(example.row, "system", "system_prompt", "history")
    whole = example.answer is None
    talk = [user("x"), assistant("y"), user("q"), assistant("a")]
    plain = {**row, example.prompt: talk} if whole else row

    def has_system() -> str:
        first, *_ = conversations({**plain, "system": "S"})[0]
        assert first == system("S")
        inside = conversations({**row, example.prompt: [system("S"), *talk[: 4 if whole else 3]]})[0][0]
        assert inside == system("S")
        return "`system`, `system_prompt`, or a turn: first"

    def has_turns() -> str:
        found = conversations({**row, example.prompt: talk if whole else talk[:3]})[0]
        assert found[:2] == talk[:2] and found[2]["content"].startswith("q")
        if whole:
            return "all its own"
        assert conversations({**row, "history": [["x", "y"]]})[0][:2] == talk[:2]
        return f"`history`, or messages in `{example.prompt}`: before the question"

    def has_tools() -> str:
        (found,) = pool.parse(FileRow("r.jsonl", 1, {**plain, "tools": [ADD]}))[:1]
        assert '"name": "add"' in found.get("tools", "")
        return "`tools=` of the chat template"

    def has_several() -> str:
        if whole:
            assert sum(map(is_answer, conversations(plain)[0])) == 2
            return "every one is learned"
        assert len(conversations({**row, example.answer: ["a", "b"]})) == 2
        return "a list: a row each"

    def has_weights() -> str:
        turns = [{**message, "weight": 0} if message["content"] == "y" else message for message in talk]
        found = conversations({**row, example.prompt: turns if whole else turns[:3]})[0]
        assert [message.get("train", True) for message in found if message["role"] == "assistant"] == [False, True]
        return "read, not learned"

    def is_empty() -> str:
        blank = {example.prompt: [user("q"), assistant(" ")]} if whole else {example.answer: " "}
        return str(conversations({**row, **blank}))

    probes = (has_system, has_turns, has_tools, has_several, has_weights, is_empty)
    return [f"`{name}`", described(pool_layouts.LAYOUTS[name]), *map(cell, probes)]


def pair_cells(name: str) -> list[str]:
    example = PAIRS[name]
    rows = [without(row, "system") for row in example.rows]

    def with_(**more: Any) -> list[dict[str, Any]]:
        return [{**row, **more} for row in rows]

    def count() -> str:
        if name in SIDED:
            worse = rows[0]["rejected"]
            assert len(pairs(with_(rejected=[worse, f"{worse}!"] if isinstance(worse, str) else ["x", "y"]))) == 2
            return "one a rejected answer"
        if len(rows) > 1:
            return "of a prompt's: the best with each worse one"
        return "one" if len(pairs(rows)) == 1 else "the best with each worse one"

    def has_system() -> str:
        assert pairs(with_(system="S"))[0]["prompt"][0] == system("S")
        return "first"

    def has_turns() -> str:
        if example.prompt is None:
            return "what both begin with"
        found = pairs(with_(**{example.prompt: [user("x"), assistant("y"), user("q")]}))
        assert found[0]["prompt"][:2] == [user("x"), assistant("y")]
        return f"messages in `{example.prompt}`"

    def has_tools() -> str:
        return str(pairs(with_(tools=[ADD])))

    def has_ratio() -> str:
        return "yes" if "score_ratio" in pairs(rows)[0] else "with `score_chosen`" if name in SIDED else "none"

    def is_refused() -> str:
        return str(pairs([{**rows[0], **example.refused}]))

    probes = (count, has_system, has_turns, has_tools, has_ratio, is_refused)
    return [f"`{name}`", described(pair_layouts.LAYOUTS[name]), *map(cell, probes)]


SIDED = ("pairs", "hh", "orca", "alpaca", "sharegpt")
POOL_HEAD = [
    *("layout", "columns", "system prompt", "earlier turns", "tools", "several answers"),
    *("weight 0, train false", "a blank answer"),
]
PAIR_HEAD = [
    *("layout", "columns", "pairs of a row", "`system`", "several turns", "`tools`", "votes' ratio"),
    "what is refused, for instance",
]


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def written() -> str:
    """docs/DATA.md with its tables as reading the examples gives them."""
    text = DOCUMENT.read_text()
    for mark, head, cells, layouts in (
        ("pool layouts", POOL_HEAD, pool_cells, pool_layouts.LAYOUTS),
        ("pair layouts", PAIR_HEAD, pair_cells, pair_layouts.LAYOUTS),
    ):
        before, _, rest = text.partition(f"<!-- {mark}: make tables -->\n")
        after = rest.partition("<!-- end -->")[2]
        made = table(head, [cells(name) for name in layouts])
        text = f"{before}<!-- {mark}: make tables -->\n{made}\n<!-- end -->{after}"
    return text


def test_the_tables_in_the_document_are_what_reading_the_examples_gives():
    assert DOCUMENT.read_text() == written(), "run `make tables`"


if __name__ == "__main__":
    DOCUMENT.write_text(written())
