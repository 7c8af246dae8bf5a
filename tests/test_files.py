"""Reading other people's files: every row comes back, or its file, line and reason are named."""

import gzip
import hashlib
import json
import os

import pandas
import pyarrow
import pyarrow.ipc
import pytest

from rose.config.choices import OnBadRow
from rose.data import files
from rose.data.bad_rows import BadRow
from rose.data.files import Location
from rose.data.sources import Split
from rose.errors import RoseError

ROWS = [{"id": "a", "text": "één\nline"}, {"id": "b", "text": 'zwei, "drei"'}]


def source(path, patterns=()):
    return Location("dataset.path", str(path), list(patterns), None)


def values(path, patterns=()):
    return [row.error or row.values for row in files.read_rows(source(path, patterns))]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


PLAIN = ["r.jsonl", "r.json", "lines.json", "r.csv", "r.tsv"]


def write(path, rows=ROWS):
    """Rows in the format that the path's name says, packed if it says so."""
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    if name == "r.json":
        data = json.dumps(rows, indent=2).encode()
    elif name in ("r.csv", "r.tsv"):
        data = pandas.DataFrame(rows).to_csv(index=False, sep="\t" if name == "r.tsv" else ",").encode()
    else:
        data = lines(rows).encode()
    with pyarrow.output_stream(str(path)) as file:  # packs by the name
        file.write(data)


@pytest.mark.parametrize("name", [f"{name}{packed}" for name in PLAIN for packed in ("", ".gz", ".zst")])
def test_every_format_packed_or_not_gives_the_same_rows(tmp_path, name):
    write(tmp_path / name)
    marks = {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5"}
    assert (tmp_path / name).read_bytes().startswith(marks.get((tmp_path / name).suffix, b""))
    assert values(tmp_path / name) == ROWS


@pytest.mark.parametrize("kind", ["parquet", "stream", "file"])
def test_every_table_gives_the_same_rows(tmp_path, kind):
    table = pyarrow.Table.from_pylist(ROWS)
    path = tmp_path / ("r.parquet" if kind == "parquet" else "r.arrow")
    if kind == "parquet":
        pandas.DataFrame(ROWS).to_parquet(path)
    else:
        new = pyarrow.ipc.new_stream if kind == "stream" else pyarrow.ipc.new_file
        with new(str(path), table.schema) as sink:
            sink.write_table(table)
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


@pytest.mark.parametrize(
    "name", ["r.jsonl", "r.json", "r.parquet", "r.arrow", "r.csv", "r.tsv", "r.jsonl.gz", "r.json.zst"]
)
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


@pytest.mark.parametrize("name", ["r.jsonl.gz", "r.csv.gz", "r.jsonl.zst", "r.parquet", "r.arrow"])
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


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.jsonl.gz"])
def test_a_row_in_utf_16_is_named_with_the_remedy(tmp_path, name, encoding):
    text = json.dumps({"prompt": "q"}).encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    with pytest.raises((BadRow, RoseError), match="is UTF-16, must be UTF-8: iconv -f UTF-16 -t UTF-8 makes it so"):
        for row in files.read_rows(Location("dataset.path", str(tmp_path), [], None)):
            raise row.error or AssertionError(row)


def test_a_table_in_utf_16_is_named_with_the_remedy(tmp_path):
    (tmp_path / "x.csv").write_text("prompt,completion\nq,a\n", encoding="utf-16")
    with pytest.raises(RoseError, match="cannot read x.csv to its end .*is UTF-16, must be UTF-8: iconv -f UTF-16"):
        list(files.read_rows(Location("dataset.path", str(tmp_path), [], None)))


@pytest.mark.parametrize(("name", "said"), [("x.tsv", "not TSV"), ("x.csv", "not CSV")])
def test_a_broken_table_is_called_what_it_is(tmp_path, name, said):
    (tmp_path / name).write_bytes(b'a\tb\n"x"y\tz\n' if name == "x.tsv" else b'a,b\n"x"y,z\n')
    (row,) = files.read_rows(Location("dataset.path", str(tmp_path), [], None))
    assert str(row.error).startswith(said)
