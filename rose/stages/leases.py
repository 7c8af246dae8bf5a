"""Who computes a stage: one process at a time, wherever files are created and renamed in one step.

filelock's SoftFileLease has the same design, but in 4.2.11 nobody takes over a dead owner's lease
where two names cannot be exchanged in one step (NFS), nor an empty one, whose owner died before it
wrote. And a living owner's is taken at once on another machine of the same name.
"""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

log = logging.getLogger(__name__)

LEASE = 60.0  # seconds without a sign of life after which another host's process is taken for dead
POLL = 0.2  # seconds between looks at what other processes hold
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Owner(NamedTuple):
    """A process, among those of all hosts that share the file system."""

    host: str
    pid: int
    start: str  # when it began: numbers are given again, in a restarted container to the same program


def me() -> Owner:
    return Owner(host(), os.getpid(), _start(os.getpid()))


def host() -> str:
    """Where a process number means what it means here: this machine's name, container and boot.

    Machines may share a name, and outside of containers they all have one space of such numbers.
    """
    words = [socket.gethostname()]
    with suppress(OSError):
        words.append(str(os.stat("/proc/self/ns/pid").st_ino))
    with suppress(OSError):
        words.append(BOOT_ID.read_text()[:8])
    return "-".join(words)


def gone(owner: Owner) -> bool:
    """Whether a process of this host has ended; another's cannot be asked.

    A zombie has ended: in a container whose first process collects none, it stays for ever.
    """
    if owner.host != host():
        return False
    try:
        if psutil.Process(owner.pid).status() == psutil.STATUS_ZOMBIE:
            return True
    except psutil.NoSuchProcess:
        return True
    start = _start(owner.pid)
    return "" not in (start, owner.start) and start != owner.start


def _start(pid: int) -> str:
    """In ticks since the kernel booted, which no clock that is set changes; empty if not known."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    return ""


class Lease:
    """The right to do something: a file, `marker`, that its owner touches as long as it lives.

    On its host others see at once that it has died, elsewhere when they have seen no touch for
    LEASE seconds by their own clock. It saves work: who was taken for dead may still be at it.
    """

    def __init__(self, marker: Path):
        self.marker = marker
        self.seen, self.since = None, 0.0

    def acquire(self) -> AbstractContextManager | None:
        """The lease, held until the context ends; None while another process has it."""
        for _ in range(2):
            with suppress(FileExistsError):
                return self._hold(os.open(self.marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            if not self._clear():
                return None
        return None  # another process was faster

    @contextmanager
    def _hold(self, descriptor: int) -> Iterator[None]:
        ended = threading.Event()
        touching = threading.Thread(target=_touch, args=(descriptor, ended), daemon=True)
        try:
            os.write(descriptor, " ".join(map(str, (*me(), uuid.uuid4().hex))).encode())
            touching.start()
            yield
        finally:
            ended.set()
            if touching.ident:
                touching.join()
            with suppress(OSError):
                if os.path.samestat(os.fstat(descriptor), self.marker.stat()):  # else it was taken away
                    self.marker.unlink()
            os.close(descriptor)

    def _clear(self) -> bool:
        """Removes a dead owner's marker. False where there is a marker that stays."""
        try:
            look = _look(self.marker)
            if look != self.seen:
                self.seen, self.since = look, time.monotonic()
            if not _dead(look[0]) and time.monotonic() - self.since < LEASE:
                return False
            aside = self.marker.with_name(f"{self.marker.name}.{uuid.uuid4().hex[:6]}")
            if _look(self.marker) == look:
                self.marker.rename(aside)
                if _look(aside) == look:
                    aside.unlink()
                else:  # a living successor's, made between the look and the renaming
                    aside.rename(self.marker)
        except FileNotFoundError:
            pass  # its owner, or another that waits, was faster
        return True


def _look(marker: Path) -> tuple[str, int, int]:
    """What a marker says and is. A touch changes it."""
    with open(marker, errors="replace") as file:  # opened: a network file system asks its server anew
        status = os.fstat(file.fileno())
        return file.read(), status.st_ino, status.st_mtime_ns


def _dead(text: str) -> bool:
    """Whether a marker's owner is; of a text that is torn nobody knows whose it is."""
    words = text.split(" ")
    return len(words) == 4 and words[1].isdecimal() and gone(Owner(words[0], int(words[1]), words[2]))


def _touch(descriptor: int, ended: threading.Event) -> None:
    while not ended.wait(LEASE / 3):
        with suppress(OSError):  # the file server is away for a moment, or the marker was taken away
            os.utime(descriptor)


def lease(target: Path) -> Lease:
    """The right to compute `target`."""
    for directory in (target.parent, target.parents[1] / ".locks"):
        directory.mkdir(parents=True, exist_ok=True)
    return Lease(marker(target))


def marker(target: Path) -> Path:
    return target.parents[1] / ".locks" / f"{target.parent.name}-{target.name}.lease"


@contextmanager
def held(path: Path, what: str = "") -> Iterator[None]:
    """Waits for the lease `path` and holds it. Where it has to wait it says so once, of `what` it is."""
    mine, waiting = Lease(path), False
    while (lock := mine.acquire()) is None:
        if not waiting:
            log.info("waiting for %s, which another process %s", what or path, "computes" if what else "holds")
            waiting = True
        time.sleep(POLL)
    with lock:
        yield
