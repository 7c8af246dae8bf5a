"""Reading other people's files: every row comes back, or its file, line and reason are named."""

import gzip
import hashlib
import json
import os

import pandas
import pytest

from rose.config.choices import OnBadRow
from rose.data import files
from rose.data.bad_rows import BadRow
from rose.data.files import Location
from rose.errors import RoseError

ROWS = [{"id": "a", "text": "één\nline"}, {"id": "b", "text": 'zwei, "drei"'}]


def source(path, patterns=()):
    return Location("dataset.path", str(path), list(patterns), None)


def values(path, patterns=()):
    return [row.error or row.values for row in files.read_rows(source(path, patterns))]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz", "r.json", "lines.json", "r.parquet", "r.csv"])
def test_every_format_gives_the_same_rows(tmp_path, name):
    path = tmp_path / name
    if name == "r.jsonl.gz":
        path.write_bytes(gzip.compress(lines(ROWS).encode()))
    elif name == "r.json":
        path.write_text(json.dumps(ROWS, indent=2))
    elif name == "r.parquet":
        pandas.DataFrame(ROWS).to_parquet(path)
    elif name == "r.csv":
        pandas.DataFrame(ROWS).to_csv(path, index=False)
    else:
        path.write_text(lines(ROWS))
    assert values(path) == ROWS


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("whole", [{"data": ROWS}, {"version": "1.1", "data": ROWS, "n": 2, "tags": ["x"]}])
def test_an_object_that_holds_a_list_of_rows_is_its_rows(tmp_path, whole, indent):
    (tmp_path / "r.json").write_text(json.dumps(whole, indent=indent))
    assert values(tmp_path / "r.json") == ROWS


@pytest.mark.parametrize("indent", [None, 1])
def test_an_object_alone_is_one_row(tmp_path, indent):
    row = {"messages": [{"role": "user", "content": "q"}], "more": {"x": [1]}}
    (tmp_path / "r.json").write_text(json.dumps(row, indent=indent))
    assert values(tmp_path / "r.json") == [row]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (json.dumps({"train": ROWS, "test": ROWS}, indent=1), "several lists of rows .train, test."),
        (json.dumps({"data": ROWS}, indent=1)[:-3], "not JSON"),
    ],
)
def test_an_object_of_which_the_rows_cannot_be_had_is_damaged_as_a_whole(tmp_path, text, reason):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(RoseError, match=f"cannot read r.json to its end.*{reason}"):
        values(tmp_path / "r.json")


def test_a_broken_first_line_of_json_lines_costs_that_line_alone(tmp_path):
    (tmp_path / "r.json").write_text('{"x": \n{"x": 2}\n{"x": 3}\n')
    first, *rest = values(tmp_path / "r.json")
    assert isinstance(first, BadRow) and rest == [{"x": 2}, {"x": 3}]


@pytest.mark.parametrize("name", ["r.jsonl", "r.json", "r.parquet", "r.csv", "r.jsonl.gz"])
def test_a_pointer_of_git_lfs_is_named_before_anything_is_read(tmp_path, name):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    for read in (files.fingerprint, lambda source: list(files.read_rows(source))):
        with pytest.raises(RoseError, match=f"dataset.path=.*{name} is a Git LFS pointer.*git lfs pull"):
            read(source(tmp_path))


def test_a_path_may_have_any_character(tmp_path):
    folder = tmp_path / "a=(1) [2],{3}"
    folder.mkdir()
    (folder / "r[1].jsonl").write_text(lines(ROWS))
    assert values(folder / "r[1].jsonl") == values(folder, ["r[1].jsonl"]) == ROWS


def test_a_byte_order_mark_and_blank_lines_are_no_rows(tmp_path):
    (tmp_path / "r.jsonl").write_bytes(b"\xef\xbb\xbf" + b'{"x": 1}\r\n\r\n{"x": 2}')
    assert [(row.line, row.values) for row in files.read_rows(source(tmp_path / "r.jsonl"))] == [
        (1, {"x": 1}),
        (3, {"x": 2}),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"x": ', "not JSON"),
        (b"[1, 2]", "must be a JSON object, not list"),
        (b"3", "must be a JSON object, not int"),
        (b'{"x": "\xff"}', "not UTF-8"),
        (b'{"x": "\\ud800"}', "not valid Unicode"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_broken_line_is_a_bad_row_and_the_rest_is_read(tmp_path, line, reason):
    (tmp_path / "r.jsonl").write_bytes(b'{"x": 1}\n' + line + b'\n{"x": 3}\n')
    first, broken, last = values(tmp_path / "r.jsonl")
    assert first == {"x": 1} and last == {"x": 3}
    assert isinstance(broken, BadRow) and reason in str(broken)


def test_a_csv_row_of_the_wrong_width_is_a_bad_row(tmp_path):
    (tmp_path / "r.csv").write_text("a,b\n1,2\n3\n4,5,6\n7,8\n")
    assert [isinstance(row, BadRow) for row in values(tmp_path / "r.csv")] == [False, True, True, False]


@pytest.mark.parametrize("name", ["r.jsonl.gz", "r.parquet"])
def test_a_damaged_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(lines(ROWS * 99).encode())[:60])
    with pytest.raises(RoseError, match=f"dataset.path=.*cannot read {name} to its end"):
        values(tmp_path / name)


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


def take(row):
    if "id" not in row.values:
        raise BadRow("has no id")
    return [row.values]


def sifted(tmp_path, rows, policy):
    (tmp_path / "r.jsonl").write_text(rows)
    found = files.read_rows(source(tmp_path / "r.jsonl"))
    return list(files.sift(found, take, "dataset.on_bad_row", policy, tmp_path / "skipped.jsonl"))


@pytest.mark.parametrize("bad", ['{"x": 1}', "{", '{"id": "a"}'])
def test_a_bad_row_stops_or_is_listed(tmp_path, bad):
    rows = '{"id": "a"}\n' + bad + '\n{"id": "b"}\n'
    with pytest.raises(RoseError, match=r"r\.jsonl, line 2: .*dataset\.on_bad_row=skip"):
        sifted(tmp_path, rows, OnBadRow.stop)
    assert sifted(tmp_path, rows, OnBadRow.skip) == [{"id": "a"}, {"id": "b"}]
    (skipped,) = files.load(tmp_path / "skipped.jsonl")
    assert (skipped["file"], skipped["line"]) == ("r.jsonl", 2) and skipped["reason"]


def test_a_file_is_read_again_for_its_fingerprint_only_when_it_has_changed(tmp_path, monkeypatch):
    read, digest = [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, kind: read.append(file.name) or digest(file, kind))
    path = tmp_path / "rows.jsonl"
    prints = []
    for text in ("one\n", "one\n", "two\n"):  # of the same size
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            os.utime(path, ns=(len(prints), len(prints)))
        prints.append(files.fingerprint(source(tmp_path)))
    assert prints[0] == prints[1] != prints[2]
    assert len(read) == 2
