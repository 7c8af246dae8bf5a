"""Preference pairs: every published layout becomes the same row; targets and tests never share a prompt."""

import gzip
import json
from collections import Counter

import pandas
import pytest
from omegaconf import OmegaConf

from rose.choices import Manners, OnBadRow
from rose.config import Pairs, WorldPairs
from rose.data import files
from rose.data.bad_rows import BadRow
from rose.data.files import Row
from rose.data.preference_formats import parse
from rose.data.preferences import fingerprint, read_preferences
from rose.errors import RoseError


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def parsed(**values):
    return parse(Row("dir/mine.jsonl", 3, values))


def sides(pair):
    return pair["prompt"], pair["chosen"], pair["rejected"]


def pairs(path, **changes):
    values = dict(path=str(path), revision=None, files=[], test_path=None, test_files=[], test_share=0.2)
    values |= dict(min_score_ratio=None, shots=None, tests=None, on_bad_row=OnBadRow.stop, seed=0, world=None)
    return Pairs(**{**values, **changes})


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(tmp_path, config):
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    read_preferences(out, config, "")
    return list(files.load(out / "target.jsonl")), list(files.load(out / "test.jsonl"))


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


SHP = {
    "post_id": "qt3nxl",
    "domain": "askculinary_train",
    "upvote_ratio": 0.98,
    "history": "How to peel garlic?",
    "c_root_id_A": "h1",
    "c_root_id_B": "h2",
    "created_at_utc_A": 1,
    "created_at_utc_B": 2,
    "score_A": 30,
    "score_B": 10,
    "human_ref_A": "Crush it.",
    "human_ref_B": "Buy it peeled.",
    "labels": 1,
    "seconds_difference": 1.0,
    "score_ratio": 3.0,
}


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


def answer(number, text, score, selected=False):
    return {
        "answer_id": number,
        "author": "Ann",
        "author_id": 1,
        "author_profile": "https://ai.stackexchange.com/users/1",
        "pm_score": score,
        "selected": selected,
        "text": text,
    }


STACK_EXCHANGE = {
    "qid": 5,
    "question": "<p>Why?</p>",
    "answers": [
        answer(1, "so", 1),
        answer(2, "because", 4, True),
        answer(3, "who knows", -1),
        answer(4, "it is", 4),
    ],
    "date": "2016/08/02",
    "metadata": ["https://ai.stackexchange.com/questions/5", "https://ai.stackexchange.com", "https://x.org"],
}


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
        ({"prompt": "q", "answer": "a"}, "needs chosen and rejected.*found prompt, answer"),
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
        (
            {"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": "x", "score_rejected": 1},
            "score_chosen is",
        ),
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


def test_a_bad_pair_names_file_and_line(tmp_path):
    rows = [{"prompt": "q", "chosen": "a", "rejected": "b"}, {"prompt": "r", "chosen": "a", "rejected": "a"}]
    path = write(tmp_path / "p.jsonl", rows)
    with pytest.raises(RoseError, match=r"p\.jsonl, line 2: chosen and rejected are the same"):
        read(tmp_path, pairs(path))
    skipping = pairs(path, test_path=str(path), on_bad_row=OnBadRow.skip)
    assert [len(side) for side in read(tmp_path, skipping)] == [1, 1]
    assert [row["line"] for row in files.load(tmp_path / "out/skipped.jsonl")] == [2, 2]


def many(questions, each=3, subtasks=("x", "y")):
    return [
        {"id": f"{s}{q}-{k}", "subtask": s, "prompt": f"{s}{q}", "chosen": f"good {k}", "rejected": "bad"}
        | {"score_chosen": k + 1, "score_rejected": 1}
        for s in subtasks
        for q in range(questions)
        for k in range(each)
    ]


def prompts(rows):
    return {row["prompt"][0]["content"] for row in rows}


def test_no_held_out_prompt_is_a_target_too(tmp_path):
    rows = many(10)
    target, test = read(tmp_path, pairs(write(tmp_path / "p.jsonl", rows), test_share=0.3))
    assert not prompts(target) & prompts(test)
    assert len(target) + len(test) == len(rows)
    assert Counter(prompt[0] for prompt in prompts(test)) == {"x": 3, "y": 3}


def test_a_single_prompt_cannot_be_split(tmp_path):
    with pytest.raises(RoseError, match="no test pairs are left"):
        read(tmp_path, pairs(write(tmp_path / "p.jsonl", many(1, subtasks=("x",)))))


def test_shots_are_one_pair_a_prompt_and_nest(tmp_path):
    path = write(tmp_path / "p.jsonl", many(10))
    test_path = str(write(tmp_path / "t.jsonl", many(10)))
    drawn = {n: read(tmp_path, pairs(path, test_path=test_path, shots=n, tests=2))[0] for n in (2, 5, 99)}
    assert Counter(row["subtask"] for row in drawn[5]) == {"x": 5, "y": 5}
    assert len(prompts(drawn[5])) == 10 and len(drawn[99]) == 20
    ids = {n: [row["id"] for row in rows] for n, rows in drawn.items()}
    assert set(ids[2]) <= set(ids[5]) <= set(ids[99])
    order = [row["id"] for row in many(10)]
    assert ids[5] == sorted(ids[5], key=order.index)
    again = read(tmp_path, pairs(path, test_path=test_path, shots=5, seed=1))
    assert [row["id"] for row in again[0]] != ids[5] and len(again[1]) == 60


def test_min_score_ratio_keeps_clear_pairs_and_needs_scores(tmp_path):
    path = str(write(tmp_path / "p.jsonl", many(4)))
    target, test = read(tmp_path, pairs(path, test_path=path, min_score_ratio=3))
    assert {row["score_ratio"] for row in target + test} == {3.0} and len(target) == 8
    bare = write(tmp_path / "bare.jsonl", [{"prompt": "q", "chosen": "a", "rejected": "b"}])
    with pytest.raises(RoseError, match="preference.pairs.min_score_ratio=2: pair 'bare-1' has no score_chosen"):
        read(tmp_path, pairs(bare, min_score_ratio=2))


@pytest.mark.parametrize("changes", [{"shots": 0}, {"tests": -1}, {"test_share": 1.0}, {"test_share": 0.0}])
def test_options_out_of_range_are_named(tmp_path, changes):
    (name, value), *_ = changes.items()
    with pytest.raises(RoseError, match=f"preference.pairs.{name}={value}: must"):
        read(tmp_path, pairs(write(tmp_path / "p.jsonl", many(3)), **changes))


def test_missing_files_and_empty_files_are_named(tmp_path):
    with pytest.raises(RoseError, match="preference.path=.*no such file"):
        fingerprint(pairs(tmp_path / "p.jsonl"))
    path = write(tmp_path / "p.jsonl", many(3))
    with pytest.raises(RoseError, match="preference.test_path=.*no such file"):
        fingerprint(pairs(path, test_path=str(tmp_path / "t.jsonl")))
    with pytest.raises(RoseError, match="there are no preference pairs"):
        read(tmp_path, pairs(write(tmp_path / "e.jsonl", [])))


HH = {"chosen": "\n\nHuman: q\n\nAssistant: good", "rejected": "\n\nHuman: q\n\nAssistant: bad"}


def lay_out_shp(root):
    for domain in ("askculinary", "askphysics"):
        for split in ("train", "validation", "test"):
            own = {
                "domain": f"{domain}_{split}",
                "history": f"{domain} {split}",
                "post_id": f"{domain} {split}",
            }
            write(
                root / domain / f"{split}.json",
                [{**SHP, **own}, {**SHP, **own, "post_id": "z", "score_ratio": 1.5}],
            )


def lay_out_stack_exchange(root):
    for site in ("ai", "quantumcomputing", "cooking"):
        link = [f"https://{site}.stackexchange.com/questions/1"]
        rows = [{**STACK_EXCHANGE, "qid": q, "question": f"{site} {q}", "metadata": link} for q in range(30)]
        rows.append({**STACK_EXCHANGE, "qid": 99, "answers": STACK_EXCHANGE["answers"][1::2], "metadata": link})
        path = root / f"data/{site}.stackexchange.com/train-00000-of-00001.parquet"
        path.parent.mkdir(parents=True)
        pandas.DataFrame(rows).to_parquet(path)


def lay_out_hh(root):
    for part in ("helpful-base", "harmless-base"):
        for split in ("train", "test"):
            (root / part).mkdir(parents=True, exist_ok=True)
            rows = [{side: text.replace(" q", f" {part} {q}") for side, text in HH.items()} for q in range(9)]
            rows += [{**HH, "rejected": HH["chosen"]}]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (root / part / f"{split}.jsonl.gz").write_bytes(gzip.compress(text.encode()))


@pytest.mark.parametrize(
    ("name", "lay_out", "targets", "tests", "skipped"),
    [
        ("shp", lay_out_shp, {"askculinary": 1, "askphysics": 1}, {"askculinary": 1, "askphysics": 1}, 2),
        (
            "stack_exchange",
            lay_out_stack_exchange,
            {"ai": 2, "quantumcomputing": 2},
            {"ai": 12, "quantumcomputing": 12},
            2,
        ),
        ("hh_rlhf", lay_out_hh, {"all": 1}, {"all": 9}, 2),
    ],
)
def test_the_hub_configs_read_their_datasets_files(
    tmp_path, monkeypatch, composed, name, lay_out, targets, tests, skipped
):
    lay_out(tmp_path / "hub")
    monkeypatch.setattr(files, "snapshot_download", lambda *_, **__: str(tmp_path / "hub"))
    config = OmegaConf.to_object(composed(f"preference={name}").preference.pairs)
    target, test = read(tmp_path, config)
    assert Counter(row["subtask"] for row in target) == targets
    assert Counter(row["subtask"] for row in test) == tests
    assert not prompts(target) & prompts(test) or name == "hh_rlhf"
    assert len(list(files.load(tmp_path / "out/skipped.jsonl"))) == skipped


@pytest.mark.parametrize("name", ["shp_like", "se", "hh_helpful"])
def test_configs_of_local_files_follow_rose_data(tmp_path, monkeypatch, composed, name):
    for split in ("train", "test"):
        path = tmp_path / f"preference/{name}_{split}.jsonl.gz"
        path.parent.mkdir(exist_ok=True)
        rows = [{**row, "prompt": f"{split} {row['prompt']}"} for row in many(12)]
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    with pytest.raises(RoseError, match="preference.path=.*ROSE_DATA is not set"):
        fingerprint(OmegaConf.to_object(composed(f"preference={name}").preference.pairs))
    monkeypatch.setenv("ROSE_DATA", str(tmp_path))
    config = OmegaConf.to_object(composed(f"preference={name}").preference.pairs)
    target, test = read(tmp_path, config)
    assert len(target) == 2 * config.shots and test


def test_preference_path_is_short_for_the_pairs_path(composed):
    config = composed("preference=local", "preference.path=a.jsonl", "preference.test_path=b.jsonl").preference
    assert (config.pairs.path, config.pairs.test_path) == ("a.jsonl", "b.jsonl")


def test_the_world_gives_targets_and_tests(tmp_path):
    world = WorldPairs(seed=0, manners=Manners.phrases, targets=10, tests=20, overlap=0.5, distractor=0.5)
    target, test = read(tmp_path, pairs("", world=world))
    assert (len(target), len(test)) == (10, 20) and not prompts(target) & prompts(test)
    assert fingerprint(pairs("", world=world)) == "world"
