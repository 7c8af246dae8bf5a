"""The private directory that a stage is computed in, and what becomes of those whose process was stopped."""

import os
import shutil
import socket
import uuid
from contextlib import suppress
from pathlib import Path

import psutil

from rose import disk

RELEASED = "released"  # in place of a host: whoever wrote this has let go of it


def private(target: Path, resumable: bool) -> Path:
    """A directory of this process alone beside `target`, with what a process that has ended left of a resumable stage.

    What the dead of this host left, or anybody released, is taken over or removed. Of what another host's process
    left a copy is taken: that process may be slow rather than dead, and no two ever write into one directory.
    """
    here = socket.gethostname()
    part = _directory(target, here, os.getpid())
    for left in sorted(target.parent.glob(f".{target.name}.*.part")):
        host, pid, *_ = left.name.removeprefix(f".{target.name}.").rsplit(".", 3)
        wanted = resumable and not part.exists()
        with suppress(FileNotFoundError):  # another process was faster
            if host not in (here, RELEASED):
                if wanted:
                    _copy(left, part)
            elif not psutil.pid_exists(int(pid)):
                if wanted:
                    left.rename(part)
                else:
                    shutil.rmtree(left)
    part.mkdir(exist_ok=True)
    return part


def release(part: Path, target: Path) -> None:
    """Leaves an unfinished `part` to whoever computes `target` next, on whatever host."""
    part.rename(_directory(target, RELEASED, 0))


def publish(part: Path, target: Path) -> str:
    try:
        part.rename(target)
    except OSError:
        shutil.rmtree(part)
        if not target.exists():
            raise
        return "reused"  # lost a race that the lock did not see; the other's directory is as good
    disk.sync_directory(target.parent)
    return "computed"


def _directory(target: Path, host: str, pid: int) -> Path:
    return target.with_name(f".{target.name}.{host}.{pid}.{uuid.uuid4().hex[:6]}.part")


def _copy(left: Path, part: Path) -> None:
    """File by file in the order of their names: a store's flags (.done) before the rows and scales they vouch for."""
    try:
        for file in sorted(path for path in left.rglob("*") if path.is_file()):
            target = part / file.relative_to(left)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    except FileNotFoundError:
        shutil.rmtree(part, ignore_errors=True)
        raise
