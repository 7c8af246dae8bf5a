"""Who computes a stage: one process at a time."""

import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import filelock

LEASE = 60.0  # seconds without a sign of life after which another host's process is taken for dead
TORN = 5.0  # seconds that a lease may be empty: its owner writes into it at once
POLL = 0.2  # seconds between looks at what other processes hold


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
