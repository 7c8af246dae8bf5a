"""Where rows are read from: folders, patterns, a dataset's own README, hub ids; and what tells their contents apart."""

import pytest
from read_files import ROWS, lines, source, values

from rose.data import files
from rose.data.files import Location
from rose.data.sources import Split
from rose.errors import RoseError


def test_a_folder_is_read_by_pattern_then_name(tmp_path):
    for name in ("b/train.jsonl", "a/train.jsonl", "a/test.jsonl", "c.jsonl", ".hidden.jsonl", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(lines([{"x": name}]))
    assert [row["x"] for row in values(tmp_path)] == [
        "a/test.jsonl",
        "a/train.jsonl",
        "b/train.jsonl",
        "c.jsonl",
    ]
    picked = values(tmp_path, ["c*", "*/train.jsonl"])
    assert [row["x"] for row in picked] == ["c.jsonl", "a/train.jsonl", "b/train.jsonl"]
    with pytest.raises(RoseError, match="no file matches 'd.jsonl'.*a/test.jsonl"):
        values(tmp_path, ["d.jsonl"])
    with pytest.raises(RoseError, match=r"c.jsonl: is one file.*files=\['c\*'\]"):
        values(tmp_path / "c.jsonl", ["c*"])


def test_a_path_with_wildcards_is_what_it_matches_and_tests_join_no_pool_unsaid(tmp_path):
    for name in ("train.jsonl", "more.jsonl", "test.jsonl", "sub/train.jsonl", "more.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(lines([{"x": name}]) if name.endswith("l") else f"x\n{name}\n")

    def found(pattern, patterns=()):
        where = Location("dataset.path", f"{tmp_path}/{pattern}", list(patterns), None, Split.train)
        assert files.fingerprint(where)
        return [row.values["x"] for row in files.read_rows(where)]

    assert found("*.jsonl") == ["more.jsonl", "train.jsonl"]
    assert found("more.*") == ["more.csv", "more.jsonl"]
    assert found("**/train.jsonl") == ["sub/train.jsonl", "train.jsonl"]
    assert found("s[tu]b/*") == ["sub/train.jsonl"]
    assert found("test*") == ["test.jsonl"]
    assert found("*.jsonl", ["test.jsonl"]) == ["test.jsonl"]
    with pytest.raises(RoseError, match=r"none\*: the pattern matches no file ending in"):
        found("none*")


HUB = """---
configs:
- config_name: default
  data_files:
  - split: train_sft
    path: data/a-*
  - split: test_sft
    path: [data/b-*, "../../outside*"]
{more}---
# A dataset
"""


def hub_folder(tmp_path, more=""):
    for name in ("data/a-0.jsonl", "data/b-0.jsonl", "other/a-0.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(lines([{"x": name}]))
    (tmp_path / "README.md").write_text(HUB.format(more=more))


@pytest.mark.parametrize(
    ("split", "read"),
    [(Split.train, ["data/a-0.jsonl"]), (Split.test, ["data/b-0.jsonl"]), (None, ["data/a-0.jsonl", "data/b-0.jsonl"])],
)
def test_a_datasets_own_readme_says_which_files_are_which_split(tmp_path, split, read):
    hub_folder(tmp_path, "- config_name: other\n  data_dir: other\n")
    (tmp_path.parent / "outside.jsonl").write_text(lines([{"x": "outside"}]))
    found = files.read_rows(Location("dataset.path", str(tmp_path), [], None, split))
    assert [row.values["x"] for row in found] == read
    assert [row["x"] for row in values(tmp_path, ["other/*"])] == ["other/a-0.jsonl"]


def test_subsets_of_which_none_is_the_default_are_named(tmp_path):
    hub_folder(tmp_path)
    text = (tmp_path / "README.md").read_text().replace("default", "one")
    (tmp_path / "README.md").write_text(text)
    assert [row["x"] for row in values(tmp_path)] == ["data/a-0.jsonl", "data/b-0.jsonl"]  # one alone
    (tmp_path / "README.md").write_text(text.replace("---\n#", "- config_name: two\n  data_dir: other\n---\n#"))
    with pytest.raises(RoseError, match="has the subsets one, two, and none is the default; dataset.files says"):
        values(tmp_path)
    (tmp_path / "README.md").write_text("---\nconfigs: 3\n---\n")
    with pytest.raises(RoseError, match="README.md cannot be read .*; dataset.files says"):
        values(tmp_path)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (None, "dataset.path=null"),
        ("nowhere.jsonl", "dataset.path=nowhere.jsonl: no such file or folder"),
        ("a/b/c", "no such file or folder"),
        ("$ROSE_DATA/pool/x.jsonl", "environment variable ROSE_DATA is not set"),
    ],
)
def test_a_source_that_cannot_be_names_key_and_value(path, reason):
    for read in (files.fingerprint, lambda source: list(files.read_rows(source))):
        with pytest.raises(RoseError) as error:
            read(Location("dataset.path", path, [], None))
        assert reason in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_kind_of_file_is_refused(tmp_path):
    (tmp_path / "r.xlsx").write_text("")
    with pytest.raises(RoseError, match=r"r\.xlsx: must end in one of \.jsonl"):
        values(tmp_path / "r.xlsx")
    with pytest.raises(RoseError, match="holds no file ending in"):
        values(tmp_path)


def test_the_fingerprint_follows_bytes_and_names_alone(tmp_path):
    for folder, name, text in (("a", "r", "1"), ("b", "r", "1"), ("c", "s", "1"), ("d", "r", "2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.jsonl").write_text(text)
    a, b, c, d = (files.fingerprint(source(tmp_path / folder)) for folder in "abcd")
    assert a == b and len({a, c, d}) == 3


def test_a_hub_id_is_fetched_by_its_patterns(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.jsonl").write_text(lines(ROWS))
    asked = {}

    def snapshot(repo, **options):
        asked.update(repo=repo, **options)
        return str(tmp_path)

    monkeypatch.setattr(files, "snapshot_download", snapshot)
    hub = Location("dataset.path", "some-owner/some.name", ["data/*"], "v1")
    assert [row.values for row in files.read_rows(hub)] == ROWS
    assert asked == {
        "repo": "some-owner/some.name",
        "repo_type": "dataset",
        "revision": "v1",
        "allow_patterns": ["data/*"],
    }
    assert files.fingerprint(hub) == "some-owner/some.name@v1"


def test_without_network_a_hub_id_says_what_to_do(monkeypatch):
    def offline(*_, **__):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(files, "snapshot_download", offline)
    with pytest.raises(RoseError) as error:
        values("some-owner/some-name")
    assert "dataset.path=some-owner/some-name" in str(error.value)
    assert "local file or folder" in str(error.value) and "\n" not in str(error.value)
