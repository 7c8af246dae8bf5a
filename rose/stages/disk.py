"""Writing so that others see the old or the new, also after the power was cut."""

import json
import os
import re
import stat
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}")  # the name of a file that `replace` has not finished


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Puts what `write` leaves at the path it is given in place of `path`, in one step."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        write(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    replace(path, lambda part: part.write_text(json.dumps(value, indent=1) + "\n"))


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    """JSON lines, a row each."""

    def write(part: Path) -> None:
        with open(part, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    replace(path, write)


def vouch(path: Path, value: Any) -> None:
    """Writes `path`, which says that what lies beside it is whole, when all that is on the disk."""
    sync(path.parent)
    write_json(path, value)
    sync(path.parent)


def sync(directory: Path) -> None:
    """Puts everything on the disk, with the permissions that the umask gave the directory:
    safetensors, for one, writes files that no other user may read.
    """
    mode = directory.stat().st_mode & 0o666
    for path in directory.rglob("*"):
        if path.is_file():
            status = path.stat()
            if stat.S_IMODE(status.st_mode) != mode and status.st_uid == os.geteuid():
                path.chmod(mode)
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        else:
            sync_directory(path)
    sync_directory(directory)


def sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clock(folder: Path) -> float:
    """The time by the clock that dates what is written in `folder`: a file server has its own."""
    probe = folder / f".{uuid.uuid4().hex[:8]}"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()
