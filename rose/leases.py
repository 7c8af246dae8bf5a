"""Who computes a stage: one process at a time, and what becomes of the work of one that was stopped."""

import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import filelock
import psutil

LEASE = 60.0  # seconds without a sign of life after which another host's process is taken for dead
TORN = 5.0  # seconds that a lease may be empty: its owner writes into it at once
POLL = 0.2  # seconds between looks at what other processes hold
RELEASED = "released"  # in place of a host: whoever wrote this has let go of it


def lease(target: Path) -> filelock.SoftFileLease:
    """The right to compute `target`: a file that its owner touches as long as it lives, on any file system.

    On the owner's host others see at once that it has died, elsewhere once they have seen no touch for LEASE seconds
    by their own clock.
    """
    for directory in (target.parent, locks := target.parents[1] / ".locks"):
        directory.mkdir(parents=True, exist_ok=True)
    return filelock.SoftFileLease(locks / f"{target.parent.name}-{target.name}.lease", lease_duration=LEASE)


def acquire(mine: filelock.SoftFileLease) -> AbstractContextManager | None:
    """The lease, held until the context ends; None while another process has it."""
    try:
        return mine.acquire(blocking=False)
    except filelock.Timeout:
        _mend(Path(mine.lock_file))
        return None


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Waits for the lease `path` and holds it."""
    mine = filelock.SoftFileLease(path, lease_duration=LEASE)
    while (lock := acquire(mine)) is None:
        time.sleep(POLL)
    with lock:
        yield


def _mend(marker: Path) -> None:
    """A process killed between making its lease and writing its name into it leaves an empty file, which filelock
    takes for a live owner's for ever. Its age is told by the clock of the file system.
    """
    with suppress(OSError):
        if marker.stat().st_size == 0:
            probe = marker.with_name(f"{marker.name}.{uuid.uuid4().hex[:6]}")
            probe.touch()
            now = probe.stat().st_mtime
            probe.unlink()
            found = marker.stat()
            if found.st_size == 0 and now - found.st_mtime > TORN:
                marker.unlink()


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
