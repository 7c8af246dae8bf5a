"""Stages that last until a test lets them end, and processes that compute them."""

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from waiting import until

from rose.stages.build import build
from rose.stages.graph import Node, stage

FORK = multiprocessing.get_context("fork")


@stage("begin", version=1)
def begin(out: Path, folder: str) -> None:
    """Leaves a mark in `folder`, and lasts until there is a file `end` there."""
    (Path(folder) / f"begin-{os.getpid()}").touch()
    wait_for(Path(folder) / "end")


@stage("resuming", version=1, resumable=True)
def resuming(out: Path, folder: str) -> None:
    """Writes a line each time that it begins, and lasts until there is a file `go` in `folder`."""
    with open(out / "lines", "a") as file:
        file.write("begun\n")
    wait_for(Path(folder) / "go")


@stage("other", version=1)
def other(out: Path, folder: str) -> None:
    """Says whether `begin` was running, and lets it end."""
    (out / "begin was running").write_text(str(not list(Path(folder).glob("outputs/stages/begin/[!.]*"))))
    (Path(folder) / "end").touch()


def wait_for(file: Path) -> None:
    while not file.exists():
        time.sleep(0.005)


def start(
    node: Node, outputs: Path, host: str | None = None, first: Callable[[], None] = lambda: None
) -> multiprocessing.Process:
    """A process that builds `node`, on `host` for all that it can tell."""

    def work() -> None:
        if host:
            socket.gethostname = lambda: host
        signal.signal(signal.SIGTERM, lambda *_: exit(1))
        signal.signal(signal.SIGUSR1, fail)
        first()
        build(node, outputs)

    process = FORK.Process(target=work)
    process.start()
    return process


def fail(*_) -> None:
    raise RuntimeError("a file is not where it was")


def computing(folder: Path, node: Node, host: str | None = None) -> multiprocessing.Process:
    """A process that has begun to compute `node`."""
    process = start(node, folder / "outputs", host)
    until(lambda: written(folder) or begun(folder), process)
    return process


def parts(folder: Path) -> list[Path]:
    return list(folder.glob("outputs/stages/*/.*.part"))


def written(folder: Path) -> list[Path]:
    return [path for part in parts(folder) for path in part.iterdir() if path.stat().st_size]


def begun(folder: Path) -> list[Path]:
    return list(folder.glob("begin-*"))
