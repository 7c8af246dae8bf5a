"""Computes what is asked for and missing: each stage once, and whole or not at all."""

import errno
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from rose import ranks
from rose.stages import checksums, disk, leases, unfinished, versions
from rose.stages.cost import Meter, merged, stored
from rose.stages.graph import Node, ordered, plan

log = logging.getLogger(__name__)


class Built(NamedTuple):
    path: Path
    state: str  # computed | reused
    cost: dict[str, float]  # what computing it took, then or now: `cost.Meter`, and bytes


def build(goal: Node, outputs: Path, done: Callable[[Node, Built], None] = lambda node, built: None) -> Path:
    """The directory of `goal`, computed with what it needs; `done` hears of every stage.

    Where another process computes a stage, this one takes the next that it can, or waits.
    """
    reported: set[str] = set()
    watched: dict[str, leases.Lease] = {}  # kept: only who watches a lease learns that its owner is dead
    while True:
        steps = plan(goal, outputs)
        for node, state in steps:
            if state == "ready" and node.name not in reported:
                checksums.require(node.path(outputs), contents=False)
                _tell(node, outputs, "reused", reported, done)
        missing = [node for node, state in steps if state == "missing"]
        able = [node for node in missing if all(other.path(outputs).exists() for other in node.upstream)]
        if not able:
            return goal.path(outputs)
        for node in able:
            if node.name not in watched:
                watched[node.name] = leases.lease(node.path(outputs))
            now = _compute_once(node, outputs, watched[node.name])
            if now is not None:
                _tell(node, outputs, now, reported, done)
                break
        else:
            _wait(able, reported)


def _wait(busy: list[Node], reported: set[str]) -> None:
    names = ", ".join(node.name for node in busy)
    if names not in reported:
        log.info("waiting for %s, which another process computes", names)
        reported.add(names)
    time.sleep(leases.POLL)


def _tell(node: Node, outputs: Path, state: str, reported: set[str], done: Callable[[Node, Built], None]) -> None:
    reported.add(node.name)
    target = node.path(outputs)
    with checksums.blamed([target]):
        cost = json.loads((target / "cost.json").read_text())
    done(node, Built(target, state, cost))


def _compute_once(node: Node, outputs: Path, mine: leases.Lease) -> str | None:
    """None where another process is at it. The lease only saves work: of two that believe they hold
    it, each writes a directory of its own, and by the renaming below one of them wins, whole.
    """
    target = node.path(outputs)
    held = mine.acquire()
    if held is None:
        return None
    with held:
        if unfinished.published(target):
            return "reused"
        part = unfinished.private(target, node.stage.resumable)
        try:
            if not unfinished.published(target):  # what another left may have taken long to copy
                _compute(node, part, outputs)
                disk.sync(part)
        except BaseException as error:
            with suppress(OSError):  # what was lost may be the file server
                if node.stage.resumable and _right_so_far(error):  # goes on from here, on whatever host
                    unfinished.release(part, target)
                else:
                    shutil.rmtree(part, ignore_errors=True)
                if isinstance(error, Exception) and not isinstance(error, ranks.Lost) and unfinished.published(target):
                    return "reused"  # who took this process for dead has finished, and cleared its directory away
            raise
        return unfinished.publish(part, target)


def _right_so_far(error: BaseException) -> bool:
    """Whether `error` says nothing against what was written before it."""
    if isinstance(error, OSError):
        # A full disk needs the room more than the work. A file that is missing may be missing from
        # the work, and one that a library calls wrong (without a number) may be the work's.
        # Otherwise the file system is to blame.
        return error.errno not in (None, errno.ENOSPC, errno.EDQUOT, errno.ENOENT)
    return isinstance(error, ranks.Lost) or not isinstance(error, Exception)


def _compute(node: Node, part: Path, outputs: Path) -> None:
    upstream = [other.path(outputs) for other in node.upstream]
    for directory in upstream:
        checksums.require(directory)
    with checksums.blamed(upstream):
        versions.compare(upstream)
        if node.stage.together:
            ranks.alone(lambda: (node.name, part))  # what the others wait for, in `assist`
            cost = merged(ranks.together(lambda: _run(node, part, outputs)))
        else:
            cost = _run(node, part, outputs)
    disk.write_json(part / "cost.json", cost | {"bytes": stored(part)})
    disk.write_json(part / "inputs.json", node.key | {"versions": versions.installed()})
    checksums.record(part)


def _run(node: Node, part: Path, outputs: Path) -> dict[str, float]:
    with Meter() as meter:
        node.run(part, outputs)
    return meter.values


def assist(goals: Iterable[Node], outputs: Path) -> None:
    """What a job's other processes do while the first is `leading`: their part of its stages."""
    nodes = {node.name: node for goal in goals for node in ordered(goal)}
    while (order := ranks.alone(_next)) is not None:
        name, part = order
        with suppress(ranks.Elsewhere):  # the first process knows, and says what comes next
            ranks.together(lambda name=name, part=part: _run(nodes[name], part, outputs))


def _next() -> tuple[str, Path] | None:
    """In place of what the first process says: the stage to compute and where, or that there is no more."""


@contextmanager
def leading() -> Iterator[None]:
    """The first process's: its others `assist` until the body ends."""
    try:
        yield
    except ranks.Lost:
        raise
    except Exception:
        ranks.alone(lambda: None)
        raise
    ranks.alone(lambda: None)
