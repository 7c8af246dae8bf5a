"""Every published layout of preference pairs becomes the same row, or a reason why not."""

import pytest
from published_pairs import SHP, STACK_EXCHANGE, answer

from rose.data.bad_rows import BadRow
from rose.data.files import FileRow
from rose.data.preference_formats import parse


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def parsed(**values):
    return parse(FileRow("dir/mine.jsonl", 3, values))


def sides(pair):
    return pair["prompt"], pair["chosen"], pair["rejected"]


PLAIN = ([user("q")], [assistant("good")], [assistant("bad")])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"prompt": "q", "chosen": "good", "rejected": "bad"}, PLAIN),
        ({"prompt": [user("q")], "chosen": [assistant("good")], "rejected": [assistant("bad")]}, PLAIN),
        ({"prompt": [user("q")], "chosen": "good", "rejected": "bad"}, PLAIN),
        ({"chosen": [user("q"), assistant("good")], "rejected": [user("q"), assistant("bad")]}, PLAIN),
        (  # a prompt given beside whole conversations
            {
                "prompt": "q",
                "chosen": [user("q"), assistant("good")],
                "rejected": [user("q"), assistant("bad")],
            },
            PLAIN,
        ),
        (
            {"chosen": "\n\nHuman: q\n\nAssistant: good", "rejected": "\n\nHuman: q\n\nAssistant: bad"},
            PLAIN,
        ),
        (  # the same beside a prompt
            {
                "prompt": "\n\nHuman: q\n\nAssistant:",
                "chosen": "\n\nHuman: q\n\nAssistant: good",
                "rejected": "\n\nHuman: q\n\nAssistant: bad",
            },
            PLAIN,
        ),
        (  # the shared turns are the prompt, two turns of one speaker are one
            {
                "chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nHuman: d\n\nAssistant: e\n\nf",
                "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nHuman: d\n\nAssistant: g",
            },
            ([user("a"), assistant("b"), user("c\n\nd")], [assistant("e\n\nf")], [assistant("g")]),
        ),
    ],
)
def test_every_layout_of_chosen_and_rejected_becomes_messages(values, expected):
    (pair,) = parsed(**values)
    assert sides(pair) == expected
    assert (pair["id"], pair["subtask"]) == ("dir/mine-3", "all")


def test_own_ids_subtasks_and_columns_are_kept():
    (pair,) = parsed(
        id=4,
        subtask="beer",
        prompt="q",
        chosen="a",
        rejected="b",
        score_chosen=6,
        score_rejected=-2,
        site="s",
    )
    assert (pair["id"], pair["subtask"], pair["site"], pair["score_ratio"]) == ("4", "beer", "s", 6.0)


def test_shp_prefers_a_where_its_label_is_one():
    (pair,) = parsed(**SHP)
    assert sides(pair) == (
        [user("How to peel garlic?")],
        [assistant("Crush it.")],
        [assistant("Buy it peeled.")],
    )
    assert (pair["id"], pair["subtask"], pair["score_ratio"]) == ("qt3nxl-h1-h2", "askculinary", 3.0)
    (other,) = parsed(**{**SHP, "labels": 0})
    assert (other["chosen"], other["rejected"]) == (pair["rejected"], pair["chosen"])


def test_shp_reads_its_labels_from_a_csv_file_too():
    for label in (0, 1):
        assert parsed(**{**SHP, "labels": str(label)}) == parsed(**{**SHP, "labels": label})


@pytest.mark.parametrize(
    ("chosen", "rejected", "ratio"),
    [
        (6, 2, 3.0),
        ("6", "2", 3.0),
        (0.9, 0.1, 9.0),
        (0.5, 0.25, 2.0),
        (6, 0, 6.0),  # of votes, none or fewer count as one
        (6, -2, 6.0),
        (0.9, 0.0, 2.0**1000),  # of other scores, nothing is a limit
        (3.5, -1.2, 2.0**1000),
        (-1, -5, -1.0),  # no ratio makes this clear
        (-0.5, -2.5, -0.5),
        (0, 0, 0.0),
    ],
)
def test_the_ratio_of_scores_is_that_of_two_numbers_above_nought(chosen, rejected, ratio):
    (pair,) = parsed(prompt="q", chosen="a", rejected="b", score_chosen=chosen, score_rejected=rejected)
    assert pair["score_ratio"] == pytest.approx(ratio)


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        ({"score_chosen": None, "score_rejected": 1}, "score_chosen is null: must be a number"),
        ({"score_chosen": "x", "score_rejected": 1}, 'score_chosen is "x": must be a number'),
        ({"score_chosen": float("nan"), "score_rejected": 1}, "score_chosen is NaN: must be a number"),
        ({"score_ratio": "much"}, 'score_ratio is "much": must be a number'),
        ({"score_ratio": None}, "score_ratio is null: must be a number"),
    ],
)
def test_scores_are_checked_only_where_they_are_read(scores, reason):
    values = {"prompt": "q", "chosen": "a", "rejected": "b", **scores}
    (pair,) = parsed(**values)
    assert sides(pair) == ([user("q")], [assistant("a")], [assistant("b")])
    with pytest.raises(BadRow, match=reason):
        parse(FileRow("dir/mine.jsonl", 3, values), scored=True)


def test_stack_exchange_sets_the_best_answer_against_each_lower_one():
    found = parsed(**STACK_EXCHANGE)
    assert [sides(pair) for pair in found] == [
        ([user("<p>Why?</p>")], [assistant("because")], [assistant("so")]),
        ([user("<p>Why?</p>")], [assistant("because")], [assistant("who knows")]),
    ]
    assert [pair["score_ratio"] for pair in found] == [8.0, 32.0]  # 2 ** 3, 2 ** 5
    assert [pair["id"] for pair in found] == ["ai-5-1-0", "ai-5-1-2"]
    assert {pair["subtask"] for pair in found} == {"ai"}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"query": "q", "answer": "a"}, "fits no layout: found query, answer; the nearest are "),
        ({"prompt": "q", "chosen": "a", "rejected": "a "}, "chosen and rejected are the same"),
        ({"prompt": "q", "chosen": " ", "rejected": "a"}, "chosen has an empty answer"),
        ({"prompt": "q", "chosen": "a", "rejected": ""}, "rejected has an empty answer"),
        ({"prompt": "", "chosen": "a", "rejected": "b"}, "prompt is empty"),
        ({"prompt": "q", "chosen": "a", "rejected": None}, "rejected is missing or null"),
        ({"prompt": "q", "chosen": "a", "rejected": 3}, "rejected is 3: must be a text or a list"),
        (
            {"prompt": None, "chosen": [assistant("a")], "rejected": [assistant("b")]},
            "prompt is missing or null",
        ),
        ({"chosen": "a", "rejected": "b"}, "chosen is a text without a prompt"),
        (
            {"chosen": "\n\nHuman: q", "rejected": "\n\nHuman: q\n\nAssistant: b"},
            "chosen has an empty answer",
        ),
        (
            {"chosen": "\n\nHuman: q\n\nAssistant: b", "rejected": "\n\nHuman: q\n\nAssistant: b"},
            "are the same",
        ),
        (
            {"chosen": [user("a"), assistant("b")], "rejected": [user("c"), assistant("d")]},
            "prompt is empty",
        ),
        ({"prompt": "q", "chosen": "a", "rejected": "b", "subtask": 3}, "subtask is 3: must be a text"),
        ({**SHP, "labels": None}, "labels is null: must be 1"),
        ({**SHP, "human_ref_B": ""}, "rejected has an empty answer"),
        (
            {**STACK_EXCHANGE, "answers": [answer(1, "a", 1), answer(2, "b", 1)]},
            "no two answers of different pm_score",
        ),
        ({**STACK_EXCHANGE, "answers": "none"}, "answers must be a list"),
        ({**STACK_EXCHANGE, "answers": [{"text": "a"}]}, "pm_score is null: must be a number"),
    ],
)
def test_a_bad_pair_says_why(values, reason):
    with pytest.raises(BadRow, match=reason):
        parsed(**values)
