"""Rows of other people's files: found, fingerprinted, read one by one; refused with file, line and reason."""

import csv
import functools
import gzip
import hashlib
import json
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, NamedTuple

import pyarrow
import pyarrow.compute
import pyarrow.parquet
from huggingface_hub import snapshot_download

from rose.choices import OnBadRow
from rose.errors import RoseError

MAX_ROW = 256 << 20  # bytes of one row; a longer one is no text that anybody wrote
AT_ONCE = 32 << 20  # bytes of a table's rows to unfold together
ITEM = 8  # bytes that a value takes in a list at least
TEXTS = (pyarrow.string(), pyarrow.large_string(), pyarrow.binary(), pyarrow.large_binary())
FOLDABLE = {"PLAIN", "PLAIN_DICTIONARY", "RLE_DICTIONARY", "RLE", "BIT_PACKED"}  # what Arrow keeps as a dictionary
MAX_UNFOLDED = 1 << 30  # bytes that a file may always unfold to,
MAX_RATIO = 100  # and beyond these this many times its own size: texts compress to a third or a tenth
TOO_LONG = f"longer than {MAX_ROW >> 20} MiB"
BOM = b"\xef\xbb\xbf"


class BadRow(RoseError):
    """Why one row cannot be used; `sift` adds where it is."""


class Damaged(ValueError):
    """Why a file as a whole cannot be used."""


# What readers raise for a file that is not what its name says.
BROKEN = (OSError, EOFError, zlib.error, pyarrow.ArrowException, ValueError, OverflowError, csv.Error)


class Source(NamedTuple):
    """One place to read from; `key` is the option that names it, as errors call it."""

    key: str
    path: str | None  # file, folder, or hub dataset id
    files: list[str]  # patterns (`*` also crosses folders) inside a folder or hub dataset; empty: every data file
    revision: str | None  # of a hub dataset


class Row(NamedTuple):
    file: str  # relative to the source
    line: int  # from 1: the line of a text file, the row of a table
    values: dict | BadRow

    @property
    def name(self) -> str:
        """An id for a row that has none."""
        return f"{self.file.removesuffix(_suffix(self.file))}-{self.line}"

    @property
    def place(self) -> str:
        return f"{self.file}, line {self.line}"


def fingerprint(source: Source) -> str:
    """sha256 of the names and bytes of local files; `id@revision` of a hub dataset.

    Raises RoseError if nothing is there.
    """
    if _on_hub(source):
        return f"{source.path}@{source.revision or 'main'}"
    digest = hashlib.sha256()
    for name, path in _local_files(source, Path(source.path).expanduser()):
        state = path.stat()
        digest.update(name.encode() + b"\0" + _digest(path.absolute(), state.st_size, state.st_mtime_ns))
    return digest.hexdigest()


@functools.cache
def _digest(path: Path, size: int, changed: int) -> bytes:
    """sha256 of a file; each job of a sweep asks for it, and it is read once as long as size and time stay as given."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def read_rows(source: Source) -> Iterator[Row]:
    """Every row of every file, in the order of `files`, then by name.

    A broken row comes as a BadRow, for `sift` to judge. Raises RoseError when the source cannot be found or
    reached, a file is damaged as a whole, or unfolds to more than MAX_RATIO times its size.
    """
    path = _download(source) if _on_hub(source) else Path(source.path).expanduser()
    for name, file in _local_files(source, path):
        try:
            for line, values in READERS[_suffix(name)](file):
                yield Row(name, line, values)
        except BROKEN as err:
            raise RoseError(f"{source.key}={source.path}: cannot read {name} to its end ({_line(err)})") from err


def sift(
    rows: Iterable[Row], parse: Callable[[Row], list[dict]], key: str, on_bad_row: OnBadRow, skipped: Path
) -> Iterator[dict]:
    """What `parse` makes of each row, every result with an "id" of its own.

    A row that `parse` refuses with BadRow, or whose id was seen before, raises RoseError with file, line and
    reason; with `on_bad_row` = skip it goes to the file `skipped` as {"file", "line", "reason"} instead.
    """
    places: dict[str, str] = {}
    for row in rows:
        try:
            if isinstance(row.values, BadRow):
                raise row.values
            results = parse(row)
            for result in results:
                if result["id"] in places:
                    raise BadRow(f"id {result['id']!r} is taken by {places[result['id']]}")
        except BadRow as err:
            if on_bad_row == OnBadRow.stop:
                raise RoseError(f"{row.place}: {err} ({key}=skip lists such rows and goes on)") from err
            append(skipped, {"file": row.file, "line": row.line, "reason": str(err)})
            continue
        places.update((result["id"], row.place) for result in results)
        yield from results


def row_id(row: Row) -> str:
    """The row's own id as text, else one made of file and line. Raises BadRow."""
    value = row.values.get("id")
    if value is None:
        return row.name
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise BadRow(f"id is {json.dumps(value)[:60]}: must be a text or an integer")
    return str(value)


def load(path: Path) -> Iterator[dict]:
    """The rows of one of our own .jsonl files."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def append(path: Path, row: dict) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def some_ids(rows: Sequence[dict]) -> str:
    """The first few ids, for a message."""
    return ", ".join(row["id"] for row in rows[:5]) + (", …" if len(rows) > 5 else "")


def _on_hub(source: Source) -> bool:
    """Whether the path can only be a hub id: `owner/name`, nothing of that name here, no data file's name."""
    path = source.path
    if path is None:
        raise RoseError(f"{source.key}=null: must be a file, a folder or a hub dataset id")
    unset = re.match(r"\$(\w+)", path)
    if unset:
        raise RoseError(
            f"{source.key}={path}: the environment variable {unset[1]} is not set; "
            f"set it to the folder of your data, or give {source.key} itself"
        )
    if Path(path).expanduser().exists():
        return False
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", path) and not _suffix(path):
        return True
    raise RoseError(f"{source.key}={path}: no such file or folder, nor a hub dataset id (owner/name)")


def _download(source: Source) -> Path:
    patterns = list(source.files) or [f"*{suffix}" for suffix in READERS]
    try:
        folder = snapshot_download(source.path, repo_type="dataset", revision=source.revision, allow_patterns=patterns)
    except Exception as err:  # the client's errors share no base class
        raise RoseError(
            f"{source.key}={source.path}: no such folder here, and the hub gave no dataset of that id "
            f"({_line(err)}); without network give the path of a local file or folder"
        ) from err
    return Path(folder)


def _local_files(source: Source, path: Path) -> list[tuple[str, Path]]:
    """(name relative to the source, path) of the files to read."""
    if path.is_file():
        if not _suffix(path.name):
            raise RoseError(f"{source.key}={source.path}: must end in one of {', '.join(READERS)}")
        return [(path.name, path)]
    found = {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*")) if file.is_file()}
    found = {name: file for name, file in found.items() if _suffix(name) and not re.search(r"(^|/)\.", name)}
    if not found:
        raise RoseError(f"{source.key}={source.path}: the folder holds no file ending in {', '.join(READERS)}")
    names: dict[str, None] = {}
    for pattern in source.files or ["*"]:
        matching = [name for name in found if fnmatchcase(name, pattern)]
        if not matching:
            some = ", ".join(list(found)[:6]) + (", …" if len(found) > 6 else "")
            raise RoseError(f"{source.key}={source.path}: no file matches {pattern!r} of files; there are {some}")
        names.update(dict.fromkeys(matching))
    return [(name, _inside(source, path, found[name])) for name in names]


def _inside(source: Source, folder: Path, file: Path) -> Path:
    """The file, if it lies in the folder, or in the part of the hub's cache that its snapshots link to."""
    real, home = file.resolve(), folder.resolve()
    homes = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    if not any(map(real.is_relative_to, homes)):
        raise RoseError(
            f"{source.key}={source.path}: {file.relative_to(folder)} is a link to {real}, outside of the folder; "
            f"copy the file, or give {source.key} its own path"
        )
    return file


def _suffix(name: str) -> str:
    return next((suffix for suffix in READERS if name.lower().endswith(suffix)), "")


def _json_lines(path: Path) -> Iterator[tuple[int, dict | BadRow]]:
    with gzip.open(path) if path.name.lower().endswith(".gz") else open(path, "rb") as file:
        for number, line in enumerate(_lines(file, path), 1):
            if isinstance(line, BadRow):
                yield number, line
            elif line.strip():
                yield number, _parse(line)


def _lines(file: IO[bytes], path: Path) -> Iterator[bytes | BadRow]:
    """The lines of a file, never more than MAX_ROW of it in memory."""
    limit, unfolded = _limit(path), 0
    while piece := file.readline(MAX_ROW):
        line: bytes | BadRow = piece if unfolded else piece.removeprefix(BOM)
        unfolded += len(piece)
        while len(piece) == MAX_ROW and not piece.endswith(b"\n"):  # passes over the rest of such a line
            line = BadRow(TOO_LONG)
            piece = file.readline(MAX_ROW)
            unfolded += len(piece)
            _bound(unfolded, limit)
        _bound(unfolded, limit)
        yield line


def _limit(path: Path) -> int:
    return max(MAX_UNFOLDED, MAX_RATIO * path.stat().st_size)


def _bound(unfolded: int, limit: int) -> None:
    if unfolded > limit:
        raise Damaged(f"unfolds to more than {limit >> 20} MiB, {MAX_RATIO} times its size: unpack it yourself")


def _json(path: Path) -> Iterator[tuple[int, dict | BadRow]]:
    """One list of objects; or JSON lines, which many hub datasets keep under this ending."""
    with open(path, "rb") as file:
        starts = (piece.removeprefix(BOM).lstrip()[:1] for piece in iter(lambda: file.read(1 << 16), b""))
        start = next(filter(None, starts), b"")
    if start != b"[":
        yield from _json_lines(path)
        return
    try:
        rows = _load(path.read_bytes().removeprefix(BOM))
    except BadRow as err:
        raise Damaged(str(err)) from err  # one slip costs every row of the list
    for number, row in enumerate(rows, 1):
        yield number, _checked(row)


def _csv(path: Path) -> Iterator[tuple[int, dict | BadRow]]:
    csv.field_size_limit(sys.maxsize)  # the default refuses an answer of more than 128 KiB
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        header = next((cells for cells in reader if cells), [])
        _distinct(header)
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as err:
                if "unexpected end" in str(err):  # a quote that is never closed takes the rest of the file with it
                    raise
                yield reader.line_num, BadRow(f"not CSV ({err})")
                continue
            if cells and len(cells) != len(header):
                yield reader.line_num, BadRow(f"has {len(cells)} cells, the header {len(header)}")
            elif cells:
                yield reader.line_num, _checked(dict(zip(header, cells, strict=True)))


def _parquet(path: Path) -> Iterator[tuple[int, dict | BadRow]]:
    number, limit, unfolded = 0, _limit(path), 0
    stated = pyarrow.parquet.read_metadata(path)
    folded, rows = _folding(stated)
    with pyarrow.parquet.ParquetFile(path, metadata=stated, read_dictionary=folded) as file:
        _distinct(file.schema_arrow.names)
        for index in range(stated.num_row_groups):
            group = stated.row_group(index)
            values = sum(group.column(index).num_values for index in range(group.num_columns))
            _bound(max(group.total_byte_size, ITEM * values), limit)
            for batch in file.iter_batches(batch_size=rows, row_groups=[index]):
                unfolded += sum(map(_size, batch.columns))
                _bound(unfolded, limit)
                for row in _rows(batch):
                    number += 1
                    yield number, row


def _folding(stated: pyarrow.parquet.FileMetaData) -> tuple[list[str], int]:
    """The columns that can be read without repeating in memory what a file holds once, and how many rows to read.

    A file of 1 KB can say a text of 2 MB in every row, or in every item of one row's list; the bytes that it states
    count that text once. Where each text is stored as a difference to the one before, only reading few rows helps.
    """
    texts, others = set(), set()
    for group in map(stated.row_group, range(stated.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            if column.physical_type == "BYTE_ARRAY":
                (others if set(column.encodings) - FOLDABLE else texts).add(column.path_in_schema)
            elif column.physical_type == "FIXED_LEN_BYTE_ARRAY":
                others.add(column.path_in_schema)
    return sorted(texts - others), 8 if others else 2048


def _rows(batch: pyarrow.RecordBatch) -> Iterator[dict | BadRow]:
    size = sum(map(_size, batch.columns))
    if batch.num_rows == 1 and size > MAX_ROW:
        yield BadRow(TOO_LONG)
    elif batch.num_rows > 1 and size > AT_ONCE:
        half = batch.num_rows // 2
        yield from _rows(batch.slice(0, half))
        yield from _rows(batch.slice(half))
    else:
        unfolded = pyarrow.schema([(field.name, _unfolded(field.type)) for field in batch.schema])
        yield from map(_checked, batch.cast(unfolded).to_pylist())


def _size(array: pyarrow.Array) -> int:
    """Bytes of its values; `nbytes` counts once what a dictionary repeats, and not at all what is nothing but null."""
    kind = array.type
    if pyarrow.types.is_struct(kind):
        return sum(map(_size, array.flatten()))
    if pyarrow.types.is_map(kind):
        array = array.cast(pyarrow.list_(pyarrow.struct([("key", kind.key_type), ("value", kind.item_type)])))
    if pyarrow.types.is_nested(kind):
        return _size(array.flatten())
    if pyarrow.types.is_dictionary(kind) and kind.value_type in TEXTS:
        return pyarrow.compute.sum(pyarrow.compute.binary_length(array.dictionary).take(array.indices)).as_py() or 0
    return max(array.nbytes, ITEM * len(array))


def _unfolded(kind: pyarrow.DataType) -> pyarrow.DataType:
    """The type without dictionaries, which Python reads one by one."""
    if pyarrow.types.is_dictionary(kind):
        return kind.value_type
    if pyarrow.types.is_list(kind):
        return pyarrow.list_(_unfolded(kind.value_type))
    if pyarrow.types.is_struct(kind):
        return pyarrow.struct([(field.name, _unfolded(field.type)) for field in kind])
    return kind


def _distinct(columns: list[str]) -> None:
    double = [name for name, count in Counter(columns).items() if count > 1]
    if double:
        raise Damaged(f"has the column {double[0]!r} twice")


READERS: dict[str, Callable[[Path], Iterator[tuple[int, dict | BadRow]]]] = {
    ".jsonl": _json_lines,
    ".jsonl.gz": _json_lines,
    ".json": _json,
    ".parquet": _parquet,
    ".csv": _csv,
}


def _parse(line: bytes) -> dict | BadRow:
    try:
        return _checked(_load(line))
    except BadRow as err:
        return err


def _load(text: bytes) -> object:
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_object)
    except UnicodeDecodeError as err:
        raise BadRow(f"not UTF-8 (byte {err.start + 1})") from err
    except BadRow:
        raise
    except (ValueError, RecursionError) as err:
        raise BadRow(f"not JSON ({_line(err)})") from err


def _object(pairs: list[tuple[str, object]]) -> dict:
    """A JSON object; json itself would keep the last of two values of one name, and say nothing."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadRow(f"has {Counter(name for name, _ in pairs).most_common(1)[0][0]!r} twice")
    return found


def _checked(row: object) -> dict | BadRow:
    """The row as plain JSON values (dates become text), or what is wrong with it."""
    if not isinstance(row, dict):
        return BadRow(f"must be a JSON object, not {type(row).__name__}")
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False, default=str)
        return BadRow(TOO_LONG) if len(text.encode("utf-8")) > MAX_ROW else json.loads(text)
    except UnicodeEncodeError:
        return BadRow("holds text that is not valid Unicode")
    except (ValueError, RecursionError) as err:
        return BadRow(f"holds a value that JSON cannot ({_line(err)})")


def _line(err: BaseException) -> str:
    return " ".join(f"{type(err).__name__}: {err}".split())[:100]
