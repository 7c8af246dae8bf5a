"""JSON, JSON lines, CSV, Parquet and Arrow files row by row, a BadRow in the place of a broken one.

The readers of the library `datasets` know no lines: one broken row costs them its block, or the
file. So texts are read here, and tables by Arrow, as that library does.
"""

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow

from rose.data import bad_rows
from rose.data.bad_rows import BadRow, Checked, Damaged, bound, checked, distinct, limit_of
from rose.data.parquet import read_arrow, read_parquet
from rose.errors import one_line

BOM = b"\xef\xbb\xbf"
TAB = "\t"
UTF_16 = (b"\xff\xfe", b"\xfe\xff", b"{\0", b"[\0", b"\0{", b"\0[")  # how such a file begins
RECODE = "is UTF-16, must be UTF-8: iconv -f UTF-16 -t UTF-8 makes it so"

# What readers raise for a file that is not what its name says.
BROKEN = (OSError, EOFError, pyarrow.ArrowException, ValueError, OverflowError, csv.Error)
PACKED = {".gz": "gzip", ".zst": "zstd"}  # an ending after another: how a file is packed


class _Unpacked(io.RawIOBase):
    """The bytes of a file that may be packed; Damaged where they are many times as many as the file's."""

    def __init__(self, path: Path):
        self.source = pyarrow.input_stream(str(path), compression=PACKED.get(path.suffix.lower()))
        self.limit, self.unfolded = limit_of(path), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self.source.read(len(buffer))
        self.unfolded += len(piece)
        bound(self.unfolded, self.limit)
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self.source.close()
        super().close()


def _open(path: Path) -> io.BufferedReader:
    return io.BufferedReader(_Unpacked(path), 1 << 18)


def _json_lines(path: Path) -> Iterator[tuple[int, Checked]]:
    with _open(path) as file:
        for number, line in enumerate(_lines(file), 1):
            if isinstance(line, BadRow):
                yield number, line
            elif line.strip():
                yield number, _parse(line)


def _lines(file: io.BufferedReader) -> Iterator[bytes | BadRow]:
    """The lines of a file, never more than MAX_ROW of it in memory."""
    first = True
    while piece := file.readline(bad_rows.MAX_ROW):
        line: bytes | BadRow = piece.removeprefix(BOM) if first else piece
        while len(piece) == bad_rows.MAX_ROW and not piece.endswith(b"\n"):  # passes over the rest of such a line
            line = BadRow(bad_rows.TOO_LONG)
            piece = file.readline(bad_rows.MAX_ROW)
        first = False
        yield line


def _json(path: Path) -> Iterator[tuple[int, Checked]]:
    """A list of objects, or an object that has one; or JSON lines, which many hub datasets keep under this ending."""
    if not _is_whole(path):
        yield from _json_lines(path)
        return
    try:
        with _open(path) as file:
            rows = _load(file.read().removeprefix(BOM))
    except BadRow as err:
        raise Damaged(str(err)) from err  # one slip costs every row of the list
    for number, row in enumerate(rows if isinstance(rows, list) else _listed(rows), 1):
        yield number, checked(row)


def _is_whole(path: Path) -> bool:
    """Whether the file is one value: a list, one object alone, or one that goes on in its second line."""
    with _open(path) as file:
        lines = (line.removeprefix(BOM).strip() for line in iter(lambda: file.readline(bad_rows.MAX_ROW), b""))
        first, second = ([*islice(filter(None, lines), 2), b"", b""])[:2]
    if first[:1] != b"{":
        return first[:1] == b"["
    return second[:1] != b"{" and (not second or isinstance(_parse(first), BadRow))


def _listed(whole: object) -> list:
    """The rows of an object such as {"version": …, "data": [{…}, …]}; else it is one row itself."""
    if not isinstance(whole, dict):
        return [whole]
    lists = {
        name: value
        for name, value in whole.items()
        if isinstance(value, list) and value and all(isinstance(row, dict) and "role" not in row for row in value)
    }
    if len(lists) > 1:
        raise Damaged(f"has several lists of rows ({', '.join(lists)}): keep each in a file of its own")
    return next(iter(lists.values()), [whole])


def _csv(path: Path, delimiter: str = ",") -> Iterator[tuple[int, Checked]]:
    csv.field_size_limit(sys.maxsize)  # the default refuses an answer of more than 128 KiB
    with (
        _open(path) as whole,
        io.TextIOWrapper(whole, encoding="utf-8-sig", errors="surrogateescape", newline="") as file,
    ):
        if whole.peek(2)[:2] in UTF_16:
            raise Damaged(RECODE)
        reader = csv.reader(file, strict=True, delimiter=delimiter)
        header = next((cells for cells in reader if cells), [])
        distinct(header)
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as err:
                if "unexpected end" in str(err):  # a quote that is never closed takes the rest of the file with it
                    raise
                yield reader.line_num, BadRow(f"not {'TSV' if delimiter == TAB else 'CSV'} ({err})")
                continue
            if cells and len(cells) != len(header):
                yield reader.line_num, BadRow(f"has {len(cells)} cells, the header {len(header)}")
            elif cells:
                yield reader.line_num, checked(dict(zip(header, cells, strict=True)))


def _parse(line: bytes) -> Checked:
    try:
        return checked(_load(line))
    except BadRow as err:
        return err


def _load(text: bytes) -> Any:
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_object)
    except UnicodeDecodeError as err:
        raise BadRow(RECODE if text[:2] in UTF_16 else f"not UTF-8 (byte {err.start + 1})") from err
    except BadRow:
        raise
    except (ValueError, RecursionError) as err:
        raise BadRow(RECODE if text[:2] in UTF_16 else f"not JSON ({one_line(err, 100)})") from err


def _object(pairs: list[tuple[str, object]]) -> dict:
    """A JSON object; json itself would keep the last of two values of one name, and say nothing."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise BadRow(f"has {Counter(name for name, _ in pairs).most_common(1)[0][0]!r} twice")
    return values


TEXTS: dict[str, Callable[[Path], Iterator[tuple[int, Checked]]]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".tsv": partial(_csv, delimiter=TAB),
}
READERS = {
    **TEXTS,
    **{f"{suffix}{packed}": reader for suffix, reader in TEXTS.items() for packed in PACKED},
    ".parquet": read_parquet,
    ".arrow": read_arrow,
}


def suffix_of(name: str) -> str:
    return next((suffix for suffix in READERS if name.lower().endswith(suffix)), "")
