"""Rows of other people's files: found, fingerprinted, read; refused with file, line and reason."""

import difflib
import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from huggingface_hub import snapshot_download

from rose.config.choices import OnBadRow
from rose.data.bad_rows import BadRow, Damaged
from rose.data.formats import BROKEN, READERS, suffix_of
from rose.data.messages import unread
from rose.data.sources import Split, declared, source_names
from rose.errors import RoseError, one_line
from rose.stages import checksums

log = logging.getLogger(__name__)
Row = TypeVar("Row", bound=Mapping[str, Any])

NO_ROWS = re.compile(r"(dataset_infos?|dataset_dict|state)\.json|cache-\w+\.arrow")  # what `datasets` keeps beside rows
SMALL = 64 * 2**20  # bytes that are read only to count their rows
FIRST = 5  # rows that a dry run looks at
EVERY = "**/*"  # all that lies below a folder
POINTER = re.compile(rb"version https://git-lfs\.\S+\s+oid sha256:")  # the first lines of a file that is not here


class Location(NamedTuple):
    """One place to read from; `key` is the option that names it, as errors call it."""

    key: str
    path: str | None  # file, folder, or hub dataset id
    files: list[str]  # patterns inside a folder or hub dataset (`*` also crosses folders); empty: every data file
    revision: str | None  # of a hub dataset
    split: Split | None = None  # which files are read where `files` names none; None: all


class FileRow(NamedTuple):
    file: str  # relative to the location
    line: int  # from 1: the line of a text file, the row of a table
    values: dict[str, Any]
    error: BadRow | None = None  # why the row cannot be used; it has no values then
    source: str = "data"

    @property
    def name(self) -> str:
        """An id for a row that has none."""
        return f"{_stem(self.file)}-{self.line}"

    @property
    def place(self) -> str:
        return f"{self.file}, line {self.line}"


def fingerprint(location: Location) -> str:
    """sha256 of the names and bytes of local files; `id@revision` of a hub dataset.

    Raises RoseError if nothing is there.
    """
    path = _local(location)
    if path is None:
        return f"{location.path}@{location.revision or 'main'}"
    digest = hashlib.sha256()
    for name, file in _local_files(location, path):
        digest.update(name.encode() + b"\0" + checksums.remembered(file, "sha256"))
    return digest.hexdigest()


def read_rows(location: Location) -> Iterator[FileRow]:
    """Every row of every file, in the order of `files`, then by name.

    A broken row comes with its error, for `sift` to judge. The log says which files of a folder are
    left out, as for tests or not. Raises RoseError when the location cannot be found or reached, a
    file is damaged as a whole, or unfolds to more than MAX_RATIO times its size.
    """
    found = _local_files(location, _local(location) or _download(location), told=True)
    sources = source_names([_stem(name) for name, _ in found])
    for name, file in found:
        try:
            for line, row in READERS[suffix_of(name)](file):
                values, error = ({}, row) if isinstance(row, BadRow) else (row, None)
                yield FileRow(name, line, values, error, sources[_stem(name)])
        except BROKEN as err:
            raise RoseError(
                f"{location.key}={location.path}: cannot read {name} to its end ({one_line(err, 100)})"
            ) from err


def sift(
    rows: Iterable[FileRow], parse: Callable[[FileRow], list[Row]], key: str, on_bad_row: OnBadRow, skipped: Path
) -> Iterator[Row]:
    """What `parse` makes of each row, every result with an "id" of its own.

    Where two files have the same id, the later row is called by its file too: `cot/train/7`. A row
    that `parse` refuses with BadRow, or whose id was seen in its own file before, raises RoseError
    with file, line and reason; with `on_bad_row` = skip it goes to the file `skipped` instead, as
    {"file", "line", "reason"}. What is kept is plain JSON, numbers that are none are null. The log
    has the count of what was changed or not read.
    """
    places: dict[str, tuple[str, int]] = {}
    renamed, blanked, keys = 0, 0, Counter[str]()
    for row in rows:
        try:
            if row.error is not None:
                raise row.error
            results = parse(row)
            ids = [_own_id(result["id"], row, places) for result in results]
        except BadRow as err:
            if on_bad_row == OnBadRow.stop:
                raise RoseError(f"{row.place}: {err} ({key}=skip lists such rows and goes on)") from err
            append(skipped, {"file": row.file, "line": row.line, "reason": str(err)})
            continue
        places.update(dict.fromkeys(ids, (row.file, row.line)))
        keys.update(set(unread(row.values)))
        for identity, result in zip(ids, results, strict=True):
            named: Any = result if identity == result["id"] else {**result, "id": identity}
            kept = _plain(named)
            renamed, blanked = renamed + (named is not result), blanked + (kept is not named)
            yield kept
    what = key.removesuffix(".on_bad_row")
    if renamed:
        log.warning("%s: %d ids are in another file too; these rows are called FILE/ID", what, renamed)
    if blanked:
        log.warning("%s: %d rows have NaN or infinite numbers where nothing reads them: null", what, blanked)
    if keys:
        log.warning("%s: keys of messages that nothing reads, by rows: %s", what, counts(keys))


def is_small(location: Location) -> bool:
    """Whether its files are here, and soon read."""
    path = _local(location)
    return path is not None and sum(file.stat().st_size for _, file in _local_files(location, path)) <= SMALL


def try_first(location: Location, parse: Callable[[FileRow], object], key: str, on_bad_row: OnBadRow) -> None:
    """Raises RoseError where `parse` refuses one of the first rows, or all of them if such are skipped.

    Not of a hub dataset: to read it is to fetch it.
    """
    if _local(location) is None:
        return
    rows, faults = list(islice(read_rows(location), FIRST)), []
    for row in rows:
        try:
            if row.error is not None:
                raise row.error
            parse(row)
        except BadRow as err:
            faults.append(f"{row.place}: {err} ({key}=skip lists such rows and goes on)")
    if faults and (on_bad_row == OnBadRow.stop or len(faults) == len(rows)):
        raise RoseError(faults[0])


def _own_id(identity: str, row: FileRow, places: Mapping[str, tuple[str, int]]) -> str:
    """The id, or one that names the file too where another file has it already. Raises BadRow."""
    for name in (identity, f"{_stem(row.file)}/{identity}"):
        file, line = places.get(name, ("", 0))
        if name not in places:
            return name
        if file == row.file:
            break
    raise BadRow(f"id {identity!r} is taken by {file}, line {line}")


def _plain(row: Any) -> Any:
    """The row, null in it where JSON has no number."""
    try:
        json.dumps(row, allow_nan=False)
        return row
    except ValueError:
        return json.loads(json.dumps(row), parse_constant=lambda _: None)


def numbered(name: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[FileRow]:
    """Rows that are in no file, as if they were those of a file of that name."""
    return (FileRow(name, line, dict(row)) for line, row in enumerate(rows, 1))


def row_id(row: FileRow) -> str:
    """The row's own id as text, else one made of file and line. Raises BadRow."""
    value = row.values.get("id")
    if value is None:
        return row.name
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise BadRow(f"id is {json.dumps(value)[:60]}: must be a text or an integer")
    return str(value)


def load(path: Path) -> Iterator[Any]:
    """The rows of one of our own .jsonl files; the caller says which of rose.data.rows they are."""
    with open(path, encoding="utf-8") as file:
        yield from map(json.loads, file)


def count(path: Path) -> int:
    """How many rows one of our own .jsonl files has; none where there is no file."""
    if not path.exists():
        return 0
    with open(path, "rb") as file:
        return sum(1 for _ in file)


def append(path: Path, row: Mapping[str, object]) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def counts(names: Counter[str]) -> str:
    """Names and how often each is there, for a message."""
    return ", ".join(f"{name} {count}" for name, count in sorted(names.items(), key=lambda each: (-each[1], each[0])))


def some_ids(rows: Sequence[Mapping[str, Any]]) -> str:
    """The first few ids, for a message."""
    return ", ".join(row["id"] for row in rows[:5]) + (", …" if len(rows) > 5 else "")


def _local(location: Location) -> Path | None:
    """The file or folder; None where the path can only be a hub id, `owner/name`: nothing of that
    name is here, and no data file is called so. Raises RoseError where it is neither.
    """
    path = location.path
    if path is None:
        raise RoseError(f"{location.key}=null: must be a file, a folder or a hub dataset id")
    unset = re.match(r"\$(\w+)", path)
    if unset:
        raise RoseError(
            f"{location.key}={path}: the environment variable {unset[1]} is not set; "
            f"set it to the folder of your data, or give {location.key} itself"
        )
    folder, _ = _wild(path)
    if folder.exists():
        return folder
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", path) and not suffix_of(path):
        return None
    beside = [file.name for file in folder.parent.iterdir()] if folder.parent.is_dir() else []
    near = difflib.get_close_matches(folder.name, beside, n=1)
    meant = f"; did you mean '{folder.parent / near[0]}'?" if near else ""
    raise RoseError(f"{location.key}={path}: no such file or folder, nor a hub dataset id (owner/name){meant}")


def _wild(path: str) -> tuple[Path, str]:
    """A path as a folder and what is meant of all below it: a pattern, where the path has one and is nothing itself."""
    whole = Path(path).expanduser()
    first = next((place for place, part in enumerate(whole.parts) if re.search(r"[*?[]", part)), None)
    if first is None or whole.exists():
        return whole, EVERY
    return Path(*whole.parts[:first]), str(Path(*whole.parts[first:]))


def _download(location: Location) -> Path:
    assert location.path is not None  # `_local` has refused it
    patterns = list(location.files) or ["README.md", *(f"*{suffix}" for suffix in READERS)]
    try:
        where = {"repo_type": "dataset", "revision": location.revision}
        folder = snapshot_download(location.path, allow_patterns=patterns, **where)
    except Exception as err:  # the client's errors share no base class
        raise RoseError(
            f"{location.key}={location.path}: no such folder here, and the hub gave no dataset of that id "
            f"({one_line(err, 100)}); without network give the path of a local file or folder"
        ) from err
    return Path(folder)


def _local_files(location: Location, path: Path, told: bool = False) -> list[tuple[str, Path]]:
    """(name relative to the location, path) of the files to read; `told`: the log says which are not."""
    if path.is_file():
        if not suffix_of(path.name):
            raise RoseError(f"{location.key}={location.path}: must end in one of {', '.join(READERS)}")
        if location.files:
            raise RoseError(
                f"{location.key}={location.path}: is one file, of which files={list(location.files)} cannot choose; "
                "must be a folder, or files=[]"
            )
        return [(path.name, _data(location, path.name, path))]
    pattern = _wild(location.path or "")[1]
    inside = {file.relative_to(path).as_posix(): file for file in sorted(path.glob(pattern)) if file.is_file()}
    inside = {name: file for name, file in inside.items() if suffix_of(name) and not re.search(r"(^|/)\.", name)}
    rows = [name for name, file in inside.items() if name in location.files or not NO_ROWS.fullmatch(file.name)]
    names = _matching(location, rows) if rows and location.files else rows
    if not names:
        nothing = "the folder holds no file" if pattern == EVERY else "the pattern matches no file"
        raise RoseError(f"{location.key}={location.path}: {nothing} ending in {', '.join(READERS)}")
    files = re.sub(r"^preference", "preference.pairs", location.key).replace("path", "files")
    try:
        read = names if location.files else declared(path, names, location.split)
    except Damaged as error:
        raise RoseError(f"{location.key}={location.path}: {error}; {files} says which files to read") from error
    if told and len(read) < len(names):
        left = _few([name for name in names if name not in read])
        what = f"{len(names) - len(read)} files are left out, named as not of the {location.split} part ({left})"
        log.warning("%s=%s: %s; %s says which to read", location.key, location.path, what, files)
    return [(name, _data(location, name, _inside(location, path, inside[name]))) for name in read]


def _matching(location: Location, inside: list[str]) -> list[str]:
    """The files that the location's patterns choose, in the patterns' order."""
    names: dict[str, None] = {}
    for pattern in location.files:
        matching = [name for name in inside if name == pattern or fnmatchcase(name, pattern)]
        if not matching:
            fault = f"no file matches {pattern!r} of files; there are {_few(inside)}"
            raise RoseError(f"{location.key}={location.path}: {fault}")
        names.update(dict.fromkeys(matching))
    return list(names)


def _data(location: Location, name: str, file: Path) -> Path:
    """The file, if it is not what version control leaves in its place."""
    with open(file, "rb") as start:
        if POINTER.match(start.read(200)):
            remedy = "is a Git LFS pointer, not the data: run `git lfs pull` where it was cloned"
            raise RoseError(f"{location.key}={location.path}: {name} {remedy}")
    return file


def _few(names: list[str]) -> str:
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "")


def _stem(name: str) -> str:
    return name.removesuffix(suffix_of(name))


def _inside(location: Location, folder: Path, file: Path) -> Path:
    """The file, if it lies in the folder or where the hub's cache has what a snapshot links to."""
    real, home = file.resolve(), folder.resolve()
    homes = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    if not any(map(real.is_relative_to, homes)):
        raise RoseError(
            f"{location.key}={location.path}: {file.relative_to(folder)} is a link to {real}, outside of the folder; "
            f"copy the file, or give {location.key} its own path"
        )
    return file
