"""Reading other people's files: every row comes back, or its file, line and reason are named."""

import gzip
import hashlib
import json
import os

import pandas
import pyarrow
import pyarrow.ipc
import pytest
from read_files import ROWS, lines, source, values

from rose.config.choices import OnBadRow
from rose.data import files
from rose.data.bad_rows import BadRow
from rose.data.files import Location
from rose.errors import RoseError

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
