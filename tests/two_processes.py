"""A script whose functions run in two forked processes that share one job; `python two_processes.py NAME FOLDER`."""

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from tiny_models import LORA, NUMERICS, TRAINING

from rose import ranks
from rose.config.schema import Warmup
from rose.stages.build import assist, build, leading
from rose.stages.graph import Node, stage
from rose.training.pairs import tune_by_dpo
from rose.training.sharded import fresh_adapter
from rose.training.warmup import warm_up


def two(do: Callable[[], None]) -> list[int]:
    """Exit status of each of two processes that run `do` together; 1 and a line on stdout where it raises."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            status = 0
            try:
                with ranks.joined():
                    do()
            except Exception as error:
                print(f"{rank} {type(error).__name__}: {error}", flush=True)
                status = 1
            os._exit(status)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


@stage("failing", version=1, together=True)
def failing(out: Path) -> None:
    (out / f"half-{ranks.rank()}").write_text("x")
    if not ranks.is_first():
        raise ValueError("no")
    ranks.barrier()


@stage("dying", version=1, resumable=True, together=True)
def dying(out: Path, folder: str) -> None:
    with open(out / f"lines-{ranks.rank()}", "a") as file:
        file.write("begun\n")
    if not ranks.is_first() and not (Path(folder) / "go").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    ranks.barrier()


@stage("lacking", version=1, resumable=True, together=True)
def lacking(out: Path, folder: str) -> None:
    with open(out / f"lines-{ranks.rank()}", "a") as file:
        file.write("begun\n")
    if not ranks.is_first() and not (Path(folder) / "room").exists():
        raise torch.OutOfMemoryError("CUDA out of memory.")
    ranks.barrier()


def train(folder: Path) -> None:
    """Warm-up and DPO by one process, by two, and by two that share the weights as well: 7 rows and 3 pairs, which two
    processes cannot share equally.
    """
    warmup = Warmup(**(vars(TRAINING) | {"epochs": 2, "batch_size": 4, "warmup_ratio": 0.0}), ratio=1.0)
    dpo = type(TRAINING)(**(vars(TRAINING) | {"epochs": 2}))

    def run(count: str, sharded: bool = False) -> None:
        numerics = replace(NUMERICS, sharded=sharded)
        for name in ("warmup", "dpo"):
            (folder / f"{name}-{count}").mkdir(exist_ok=True)
        warm_up(folder / f"warmup-{count}", warmup, LORA, numerics, folder / "base", folder / "tokens")
        tune_by_dpo(folder / f"dpo-{count}", dpo, 0.1, LORA, numerics, 64, folder / "base", folder / "pairs")

    if os.fork() == 0:
        run("one")
        os._exit(0)
    os.wait()
    assert two(lambda: run("two")) == [0, 0]
    assert two(lambda: run("sharded", sharded=True)) == [0, 0]


def halves(folder: Path) -> None:
    """Writes down what share of a sharded model's weights each process holds."""

    def count() -> None:
        model = fresh_adapter(folder / "base", LORA, replace(NUMERICS, sharded=True), seed=0)
        whole = sum(weight.numel() for weight in model.parameters())
        share = sum(weight.to_local().numel() for weight in model.parameters()) / whole
        (folder / f"share-{ranks.rank()}").write_text(str(share))

    assert two(count) == [0, 0]


def work(node: Node, outputs: Path) -> None:
    """What a job's processes do."""
    if not ranks.is_first():
        assist([node], outputs)
        return
    with leading():
        build(node, outputs)


def end(folder: Path) -> None:
    """Stages in which one process fails, or is killed, and the second again: prints the exit statuses of each."""
    node, statuses = Node(dying, str(folder)), []
    for one in (Node(failing), node, node):
        statuses.append(two(lambda one=one: work(one, folder)))
        if one is node:
            (folder / "go").touch()
    print(json.dumps(statuses))


def lack(folder: Path) -> None:
    """A stage for which the second process has no memory, and again: prints the exit statuses of each."""
    statuses = []
    for _ in range(2):
        statuses.append(two(lambda: work(Node(lacking, str(folder)), folder)))
        (folder / "room").touch()
    print(json.dumps(statuses))


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"train": train, "halves": halves, "end": end, "lack": lack}[sys.argv[1]](Path(sys.argv[2]))
