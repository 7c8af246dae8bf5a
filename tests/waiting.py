"""Waiting for what other processes do. No limit: a slow machine is no fault, and pytest's own ends what hangs."""

import subprocess
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import TypeVar

Value = TypeVar("Value")


def until(holds: Callable[[], Value], process: subprocess.Popen | BaseProcess | None = None) -> Value:
    """What `holds` returns when that is true at last. Fails when `process`, which is to bring it about, has ended."""
    while True:
        over = process is not None and ended(process)
        if value := holds():
            return value
        assert not over, f"{process} has ended before"
        time.sleep(0.005)


def ended(process: subprocess.Popen | BaseProcess) -> bool:
    return process.poll() is not None if isinstance(process, subprocess.Popen) else not process.is_alive()
