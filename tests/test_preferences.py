"""Preference pairs: targets and tests never share a prompt; shots nest; the configurations find their files."""

import gzip
import json
from collections import Counter

import pandas
import pytest
from omegaconf import OmegaConf
from published_pairs import SHP, STACK_EXCHANGE
from read_pairs import pairs, read

from rose.config.choices import Manners, OnBadRow
from rose.config.data import WorldPairs
from rose.data import files
from rose.data.preferences import fingerprint
from rose.errors import RoseError


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


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
    mixed = write(tmp_path / "mixed.jsonl", [*many(4), {"prompt": "q", "chosen": "a", "rejected": "b"}])
    target, test = read(tmp_path, pairs(mixed, min_score_ratio=3, on_bad_row=OnBadRow.skip))
    assert len(target) + len(test) == 8 and files.count(tmp_path / "out/skipped.jsonl") == 1


def test_a_score_that_is_no_number_matters_where_a_ratio_is_asked_for(tmp_path):
    rows = [{**row, "score_chosen": None, "score_ratio": "much"} for row in many(4)]
    path = write(tmp_path / "p.jsonl", rows)
    assert sum(map(len, read(tmp_path, pairs(path)))) == len(rows)
    with pytest.raises(RoseError, match=r"p\.jsonl, line 1: score_chosen is null: must be a number"):
        read(tmp_path, pairs(path, min_score_ratio=2))


def test_scores_below_one_are_filtered_by_their_ratio(tmp_path):
    scores = {"clear": (0.9, 0.1), "near": (0.9, 0.8)}
    rows = [
        {"id": f"{name}{i}", "prompt": f"{i}", "chosen": "a", "rejected": "b", "score_chosen": x, "score_rejected": y}
        for name, (x, y) in scores.items()
        for i in range(4)
    ]
    path = str(write(tmp_path / "p.jsonl", rows))
    target, _ = read(tmp_path, pairs(path, test_path=path, min_score_ratio=2))
    assert [row["id"] for row in target] == [f"clear{i}" for i in range(4)]


def test_a_folder_is_divided_as_its_files_are_named(tmp_path, caplog):
    for split in ("train", "test", "validation"):
        write(tmp_path / f"data/{split}-00000-of-00001.jsonl", [{**row, "subtask": split} for row in many(3)])
    folder = tmp_path / "data"
    target, test = read(tmp_path, pairs(folder, test_path=str(folder)))
    assert ({row["subtask"] for row in target}, {row["subtask"] for row in test}) == ({"train"}, {"test"})
    target, test = read(tmp_path, pairs(folder))
    assert {row["subtask"] for row in target + test} == {"train"}
    assert "2 files are left out" in caplog.text and "preference.pairs.files says which" in caplog.text


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
        ("shp", lay_out_shp, {"askculinary": 1, "askphysics": 1}, {"askculinary": 1, "askphysics": 1}, 0),
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
    assert files.count(tmp_path / "out/skipped.jsonl") == skipped


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
