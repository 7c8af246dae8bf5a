"""The pool: every usual format becomes the same row, and no row is lost without a word."""

import json
from collections import Counter

import datasets
import pytest
from omegaconf import OmegaConf

from rose.config.choices import Manners, OnBadRow
from rose.config.data import Dataset, WorldPool
from rose.data import files
from rose.data.pool import fingerprint, read_pool
from rose.errors import RoseError

TURNS = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]


def dataset(path, **changes):
    values = dict(name="local", path=str(path), revision=None, files=[], per_source=None, on_bad_row=OnBadRow.stop)
    return Dataset(**{**values, "seed": 0, "world": None, **changes})


def read(tmp_path, rows, **changes):
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    read_pool(out, dataset(tmp_path / "mine.jsonl", **changes), "")
    return list(files.load(out / "pool.jsonl"))


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"messages": TURNS}, TURNS),
        ({"instruction": "2+2?", "output": "4"}, TURNS),
        ({"instruction": "2+2?", "input": "", "output": "4"}, TURNS),
        (
            {"instruction": "2+", "input": "2?", "output": "4"},
            [{**TURNS[0], "content": "2+\n\n2?"}, TURNS[1]],
        ),
        (
            {"instruction": "2+", "context": "2?", "response": "4"},
            [{**TURNS[0], "content": "2+\n\n2?"}, TURNS[1]],
        ),
        ({"prompt": "2+2?", "completion": "4"}, TURNS),
        ({"prompt": TURNS[:1], "completion": TURNS[1:]}, TURNS),
        ({"messages": [{**TURNS[0], "name": "Ann"}, TURNS[1]]}, TURNS),
    ],
)
def test_every_format_becomes_messages(tmp_path, row, messages):
    assert read(tmp_path, [row]) == [{"id": "mine-1", "dataset": "mine", "messages": messages}]


def test_own_ids_sources_and_columns_are_kept(tmp_path):
    rows = [{"id": 7, "dataset": "cot", "messages": TURNS, "task": {"name": "x"}, "useful": True}]
    assert read(tmp_path, rows) == [{**rows[0], "id": "7"}]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"query": "q", "reply": "a"}, "fits no layout: found query, reply; the nearest are .*, .*, "),
        ({"messages": "hello"}, 'messages is "hello": must be a list'),
        ({"messages": []}, "messages is an empty list"),
        ({"messages": ["hello"]}, 'message 1 is "hello"'),
        (
            {"messages": [{"role": "robot", "content": "x"}]},
            "message 1: role='robot' must be one of system, user",
        ),
        ({"conversations": [{"from": "bot", "value": "x"}]}, "message 1: from='bot' must be one of .*, human, gpt"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, r"role=\['user'\] must be one of"),
        ({"messages": [TURNS[0], {"role": "assistant", "content": None}]}, "message 2: content is missing"),
        ({"messages": TURNS[:1]}, "has no answer"),
        ({"messages": [TURNS[0], {"role": "assistant", "content": " \n"}]}, "has no answer"),
        ({"instruction": "q", "output": 4}, "output is 4: must be a text"),
        ({"id": [1], "messages": TURNS}, r"id is \[1\]: must be a text or an integer"),
        ({"dataset": 3, "messages": TURNS}, "dataset is 3: must be a text"),
    ],
)
def test_a_bad_row_names_file_line_and_reason(tmp_path, row, reason):
    with pytest.raises(RoseError, match=f"mine.jsonl, line 2: .*{reason}"):
        read(tmp_path, [{"messages": TURNS}, row])


def test_a_repeated_id_names_both_places(tmp_path):
    rows = [{"id": "x", "messages": TURNS}, {"id": "y", "messages": TURNS}, {"id": "x", "messages": TURNS}]
    with pytest.raises(RoseError, match="line 3: id 'x' is taken by mine.jsonl, line 1"):
        read(tmp_path, rows)
    kept = read(tmp_path, rows, on_bad_row=OnBadRow.skip)
    assert [row["id"] for row in kept] == ["x", "y"]
    assert [row["line"] for row in files.load(tmp_path / "out/skipped.jsonl")] == [3]


@pytest.mark.parametrize("rows", [[], [{"messages": []}]])
def test_an_empty_pool_is_refused(tmp_path, rows):
    with pytest.raises(RoseError, match="dataset.path=.*the pool is empty"):
        read(tmp_path, rows, on_bad_row=OnBadRow.skip)


def test_per_source_keeps_so_many_of_each_in_order(tmp_path):
    rows = [{"id": i, "dataset": "ab"[i % 3 == 0], "messages": TURNS} for i in range(60)]
    few, more = (read(tmp_path, rows, per_source=count) for count in (5, 30))
    assert Counter(row["dataset"] for row in few) == {"a": 5, "b": 5}
    assert Counter(row["dataset"] for row in more) == {"a": 30, "b": 20}
    numbers = [int(row["id"]) for row in more]
    assert numbers == sorted(numbers)
    assert {row["id"] for row in few} <= {row["id"] for row in more}
    assert read(tmp_path, rows, per_source=5) == few != read(tmp_path, rows, per_source=5, seed=1)


def test_the_pool_loads_with_the_datasets_library(tmp_path):
    read(tmp_path, [{"messages": TURNS}, {"instruction": "line\u2028break", "output": "é"}])
    path = str(tmp_path / "out/pool.jsonl")
    loaded = datasets.load_dataset("json", data_files=path, split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded[1]["messages"][0]["content"] == "line\u2028break"


def test_the_world_is_a_pool(tmp_path):
    world = WorldPool(seed=0, manners=Manners.phrases, rows=50, useful=0.2, distractor=0.5)
    rows = read(tmp_path, [], world=world)
    assert len(rows) == 50 and sum(row["useful"] for row in rows) == 10
    assert fingerprint(dataset("", world=world)) == "world"


@pytest.mark.parametrize(
    ("data", "place"),
    [("hub", "hub/data/train/processed/{0}/{0}_data.jsonl"), ("own", "own/pool/{0}.jsonl")],
)
def test_less_mix_reads_its_four_sources_from_the_hub_or_rose_data(tmp_path, monkeypatch, composed, data, place):
    sources = ["flan_v2", "cot", "dolly", "oasst1"]
    for name in (*sources, "other"):
        path = tmp_path / place.format(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"dataset": name, "id": f"{name}_0", "messages": TURNS}) + "\n")
    monkeypatch.setattr(files, "snapshot_download", lambda *_, **__: str(tmp_path / "hub"))
    if data == "own":
        monkeypatch.setenv("ROSE_DATA", str(tmp_path / "own"))
    config = OmegaConf.to_object(composed("dataset=less_mix").dataset)
    assert config.path == (str(tmp_path / "own") if data == "own" else "princeton-nlp/less_data")
    read_pool(tmp_path, config, "")
    assert [row["dataset"] for row in files.load(tmp_path / "pool.jsonl")] == sources


def folder(tmp_path, names):
    """Files of two rows each, with ids 0 and 1, that say in which file they are."""
    for name in names:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps({"id": i, "prompt": name, "completion": "a"}) + "\n" for i in range(2)))
    (tmp_path / "out").mkdir(exist_ok=True)
    read_pool(tmp_path / "out", dataset(tmp_path / "data"), "")
    return list(files.load(tmp_path / "out/pool.jsonl"))


@pytest.mark.parametrize(
    ("names", "sources"),
    [
        ([f"train-0000{i}-of-00003.jsonl" for i in range(3)], ["train"] * 6),
        ([f"data/train-0000{i}-of-00002-0123456789abcdef.jsonl" for i in range(2)], ["train"] * 4),
        (["cot/train.jsonl", "dolly/train.jsonl"], ["cot", "cot", "dolly", "dolly"]),
        (["a/qa.jsonl", "b/qa.jsonl"], ["a/qa", "a/qa", "b/qa", "b/qa"]),
        (["cot/train/0000.jsonl", "cot/train/0001.jsonl", "qa/train/0000.jsonl"], ["cot"] * 4 + ["qa"] * 2),
        (["part-0.jsonl", "part-1.jsonl"], ["data"] * 4),
        (["flan_2021.jsonl", "flan_2022.jsonl"], ["flan_2021"] * 2 + ["flan_2022"] * 2),
        (["x/cot_data.jsonl", "y/dolly_data.jsonl"], ["cot_data"] * 2 + ["dolly_data"] * 2),
    ],
)
def test_shards_are_one_source_and_files_of_one_name_in_two_folders_are_two(tmp_path, names, sources):
    assert [row["dataset"] for row in folder(tmp_path, names)] == sources


def test_ids_that_begin_anew_in_each_file_cost_no_row(tmp_path, caplog):
    rows = folder(tmp_path, ["cot/train.jsonl", "dolly/train.jsonl"])
    assert [row["id"] for row in rows] == ["0", "1", "dolly/train/0", "dolly/train/1"]
    assert "2 ids are in another file too" in caplog.text


@pytest.mark.parametrize(
    ("names", "read"),
    [
        (["train-0.jsonl", "test-0.jsonl", "validation-0.jsonl"], ["train-0.jsonl"]),
        (["x/test/0.jsonl", "x/train/0.jsonl"], ["x/train/0.jsonl"]),
        (["train_sft.jsonl", "test_sft.jsonl"], ["train_sft.jsonl"]),
        (["contest.jsonl", "latest.jsonl"], ["contest.jsonl", "latest.jsonl"]),
        (["test.jsonl"], ["test.jsonl"]),
    ],
)
def test_files_named_as_for_tests_join_no_pool_unless_they_are_asked_for(tmp_path, caplog, names, read):
    rows = folder(tmp_path, names)
    assert [row["messages"][0]["content"] for row in rows[::2]] == read
    left = len(names) - len(read)
    assert (f"{left} files are left out" in caplog.text and "dataset.files says which" in caplog.text) == (left > 0)
    read_pool(tmp_path / "out", dataset(tmp_path / "data", files=["*"]), "")
    assert files.count(tmp_path / "out/pool.jsonl") == 2 * len(names)


def test_what_nothing_reads_may_be_no_number(tmp_path, caplog):
    rows = [{"messages": TURNS, "loss": float("nan"), "more": {"x": [float("inf"), 1]}}, {"messages": TURNS}]
    first, second = read(tmp_path, rows)
    assert first == {**second, "id": "mine-1", "loss": None, "more": {"x": [None, 1]}}
    assert "1 rows have NaN or infinite numbers" in caplog.text
    json.loads((tmp_path / "out/pool.jsonl").read_text().splitlines()[0], parse_constant=pytest.fail)


def test_columns_that_no_model_is_shown_are_counted(tmp_path, caplog):
    caplog.set_level("INFO")
    read(tmp_path, [{"messages": TURNS, "topic": "x", "n": 1}, {"prompt": "q", "completion": "a", "topic": "y"}])
    assert "columns that are kept, but shown to no model: topic 2, n 1" in caplog.text


@pytest.mark.parametrize("split", [False, True])
def test_what_save_to_disk_wrote_is_read_as_it_was(tmp_path, split):
    rows = [{"prompt": f"q{i}", "completion": f"a{i}", "n": i} for i in range(9)]
    saved = datasets.Dataset.from_list(rows).select([3, 1, 8])
    (datasets.DatasetDict({"train": saved, "test": saved}) if split else saved).save_to_disk(tmp_path / "saved")
    datasets.load_from_disk(tmp_path / "saved/train" if split else tmp_path / "saved").map(lambda row: row)  # its cache
    read_pool(tmp_path, dataset(tmp_path / "saved"), "")
    found = list(files.load(tmp_path / "pool.jsonl"))
    assert [row["messages"][0]["content"] for row in found] == ["q3", "q1", "q8"] and found[0]["n"] == 3
