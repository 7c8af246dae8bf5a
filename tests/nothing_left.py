"""A test leaves no process behind, whatever becomes of it."""

import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

MARK = "ROSE_TEST"  # an environment variable, by which also those are known whose parents are gone


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Ends the processes that a test began: the descendants of this one, and all that bear the test's mark.

    What a fixture of wider scope began before is spared.
    """
    mark, before = uuid.uuid4().hex, set(psutil.pids())
    os.environ[MARK] = mark
    try:
        yield
    finally:
        os.environ.pop(MARK, None)
        if "wandb" in sys.modules:  # its service is asked to go, so that the next test gets one of its own
            sys.modules["wandb"].teardown()
        while left := list(begun(mark, before)):  # again: one may have begun another meanwhile
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=1)


def begun(mark: str, before: set[int]) -> Iterator[psutil.Process]:
    """What lives of a test."""
    for pid in set(psutil.pids()) - before:
        with suppress(psutil.Error):  # gone meanwhile, or another user's
            process = psutil.Process(pid)
            if not lives(pid):
                continue
            if psutil.Process() in process.parents() or process.environ().get(MARK) == mark:
                yield process


def lives(pid: int) -> bool:
    """Whether a process runs. A zombie does not: who collects it, and when, is its parent's affair."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
