"""Sizes and checksums of an artifact's files: written with it, compared before it is read."""

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xxhash

from rose.errors import RoseError
from rose.stages import disk

NAME = "checksums.json"
CHECKED_BYTES = 1 << 30  # an artifact up to this size is read twice rather than trusted; a tenth of a second


def record(directory: Path) -> None:
    """Writes checksums.json: {file, relative: [bytes, xxh3_128]} of every file of `directory`."""
    values = {name: [path.stat().st_size, checksum(path)] for name, path in _files(directory)}
    disk.write_json(directory / NAME, values)


def checksum(path: Path, algorithm: Any = xxhash.xxh3_128) -> str:
    """XXH3 (128 bits) finds damage, not forgery; it is faster than any disk."""
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def remembered(path: Path, algorithm: Any = xxhash.xxh3_128) -> bytes:
    """A file's whole digest; all jobs of a sweep read the file once while its size and time stay."""
    state = path.stat()
    return bytes.fromhex(_remembered(path.absolute(), state.st_size, state.st_mtime_ns, algorithm))


@functools.cache
def _remembered(path: Path, size: int, changed: int, algorithm: Any) -> str:
    return checksum(path, algorithm)


def recorded(directory: Path) -> bool:
    """Whether there is anything to compare with: older artifacts have no checksums.json."""
    return (directory / NAME).exists()


def damage(directory: Path, contents: bool = True) -> list[str]:
    """What is not as it was published: files gone, of another size or (`contents`) checksum."""
    if not recorded(directory):
        return []
    try:
        values = json.loads((directory / NAME).read_bytes())
        published = [(str(name), int(size), str(digest)) for name, (size, digest) in values.items()]
    except (ValueError, TypeError, AttributeError):
        return [f"{NAME}: cannot be read"]
    faults = ((name, _fault(directory / name, size, digest if contents else None)) for name, size, digest in published)
    return [f"{name}: {fault}" for name, fault in faults if fault]


def require(directory: Path, contents: bool | None = None) -> None:
    """Raises RoseError with the remedy if `directory` is damaged.

    Sizes are always compared; contents too if `contents`, or by default where there are few.
    """
    faults = damage(directory, contents=False)
    if contents is None:
        contents = sum(path.stat().st_size for _, path in _files(directory)) <= CHECKED_BYTES
    if contents and not faults:
        faults = damage(directory)
    if faults:
        name = f"{directory.parent.name}/{directory.name}"
        raise RoseError(
            f"{directory} is damaged ({faults[0]}); `python -m rose.stages verify --remove {name} "
            f"outputs={directory.parents[2]}` removes it, and the next run makes it again"
        )


@contextmanager
def blamed(directories: Iterable[Path]) -> Iterator[None]:
    """What fails in the body is blamed on a damaged one of the `directories`, if there is one."""
    try:
        yield
    except Exception as error:
        for directory in directories:
            try:
                require(directory, contents=True)
            except RoseError as damaged:
                raise damaged from error
        raise


def _fault(path: Path, size: int, digest: str | None) -> str | None:
    try:
        found = path.stat().st_size
        if found != size:
            return f"{found} bytes, published with {size}"
        if digest is not None and checksum(path) != digest:
            return "contents have changed"
    except FileNotFoundError:
        return "missing"
    return None


def _files(directory: Path) -> list[tuple[str, Path]]:
    paths = sorted(path for path in directory.rglob("*") if path.is_file() and path != directory / NAME)
    return [(path.relative_to(directory).as_posix(), path) for path in paths]
