"""The private directory that a stage is computed in, and what becomes of a dead process's."""

import os
import re
import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from rose.stages import disk, leases

NAME = re.compile(r"\.(?P<target>.*?-[0-9a-f]{12})\.(?P<host>.+)\.(?P<pid>\d+)\.(?:(?P<start>\d*)-)?[0-9a-f]{6}\.part")
RELEASED = "released"  # in place of a host: whoever wrote this has let go of it


class Unfinished(NamedTuple):
    """A stage's private directory, and the process that made it."""

    path: Path
    target: Path
    owner: leases.Owner

    @property
    def free(self) -> bool:
        """Whether nobody writes into it any more, for certain."""
        return self.owner.host == RELEASED or leases.gone(self.owner)

    @property
    def touched(self) -> float:
        """When anything was last written in it, by the file system's clock; 0 if it has gone."""
        times = [0.0]
        with suppress(FileNotFoundError):
            times += (path.lstat().st_mtime for path in (self.path, *self.path.rglob("*")))
        return max(times)


def read(path: Path) -> Unfinished | None:
    """What the name of a private directory says; None where it is no such name."""
    match = NAME.fullmatch(path.name)
    if match is None:
        return None
    owner = leases.Owner(match["host"], int(match["pid"]), match["start"] or "")
    return Unfinished(path, path.with_name(match["target"]), owner)


def published(target: Path) -> bool:
    """Whether `target` is there. A network file system remembers absence until it is listed."""
    os.listdir(target.parent)
    return target.exists()


def private(target: Path, resumable: bool) -> Path:
    """A directory of this process alone beside `target`, with what was left of a resumable stage.

    What the dead of this host left, or anybody released, is taken over or removed. Another host's
    process may be slow rather than dead: what it left is copied, as no two write into one directory.
    """
    part = _directory(target, leases.me())
    leftovers = _others(target)
    for other in leftovers if resumable else ():
        if _take(other, part):
            break
    for other in leftovers:
        if other.free:
            shutil.rmtree(other.path, ignore_errors=True)
    part.mkdir(exist_ok=True)
    return part


def _others(target: Path) -> list[Unfinished]:
    """What is left of `target` by those that do not live on this host, in the order to go on from:
    what need not be copied comes first, then the newest.
    """
    parts = [part for path in target.parent.glob(f".{target.name}.*.part") if (part := read(path))]
    here = leases.host()
    return sorted((p for p in parts if p.free or p.owner.host != here), key=lambda part: (not part.free, -part.touched))


def _take(other: Unfinished, part: Path) -> bool:
    copy = part.with_suffix(".copy.part")  # until it is whole no name that anybody would go on from
    try:
        if other.free and other.path.stat().st_uid == os.geteuid():  # of another's files nobody can change the mode
            other.path.rename(part)
        else:
            _copy(other.path, copy)
            disk.sync(copy)
            copy.rename(part)
    except OSError:  # another process was faster, or this one may not read it
        shutil.rmtree(copy, ignore_errors=True)
        return False
    return True


def release(part: Path, target: Path) -> None:
    """Leaves an unfinished `part` to whoever computes `target` next, on whatever host."""
    part.rename(_directory(target, leases.Owner(RELEASED, 0, "")))


def publish(part: Path, target: Path) -> str:
    try:
        part.rename(target)
    except OSError:
        shutil.rmtree(part, ignore_errors=True)
        if not published(target):
            raise
        return "reused"  # lost a race that the lease did not see, or the answer of a file server; as good either way
    disk.sync_directory(target.parent)
    for other in _others(target):
        if other.free or disk.clock(target.parent) - other.touched > leases.LEASE:
            shutil.rmtree(other.path, ignore_errors=True)
    return "computed"


def _directory(target: Path, owner: leases.Owner) -> Path:
    return target.with_name(f".{target.name}.{owner.host}.{owner.pid}.{owner.start}-{uuid.uuid4().hex[:6]}.part")


def _copy(left: Path, part: Path) -> None:
    """In the order of names: a store's flags (.done) before the rows that they vouch for."""
    for file in sorted(path for path in left.rglob("*") if path.is_file()):
        target = part / file.relative_to(left)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
