"""Computes what is asked for and missing: each stage once, and whole or not at all."""

import errno
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from rose import device, ranks
from rose.stages import checksums, disk, leases, unfinished
from rose.stages.cost import merged, metered, stored
from rose.stages.graph import Node, ordered, plan

log = logging.getLogger(__name__)

PACKAGES = ("rose-select", "torch", "transformers", "peft", "tokenizers")


class Built(NamedTuple):
    path: Path
    state: str  # computed | reused
    cost: dict[str, float]  # what computing it took, then or now: `cost.metered`, and bytes


def build(goal: Node, outputs: Path, done: Callable[[Node, Built], None] = lambda node, built: None) -> Path:
    """The directory of `goal`, computed with what it needs; `done` hears of every stage.

    Where another process computes a stage, this one takes the next that it can, or waits.
    """
    told: set[str] = set()
    watched: dict[str, leases.Lease] = {}  # kept: only who watches a lease learns that its owner is dead

    def tell(node: Node, state: str) -> None:
        told.add(node.name)
        target = node.path(outputs)
        with checksums.blamed([target]):
            cost = json.loads((target / "cost.json").read_text())
        done(node, Built(target, state, cost))

    while True:
        steps = plan(goal, outputs)
        for node, state in steps:
            if state == "ready" and node.name not in told:
                checksums.require(node.path(outputs), contents=False)
                tell(node, "reused")
        missing = [node for node, state in steps if state == "missing"]
        able = [node for node in missing if all(other.path(outputs).exists() for other in node.upstream)]
        if not able:
            return goal.path(outputs)
        for node in able:
            if node.name not in watched:
                watched[node.name] = leases.lease(node.path(outputs))
            now = _compute_once(node, outputs, watched[node.name])
            if now is not None:
                tell(node, now)
                break
        else:
            names = ", ".join(node.name for node in able)
            if names not in told:
                log.info("waiting for %s, which another process computes", names)
                told.add(names)
            time.sleep(leases.POLL)


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
            _name_place(error, target)
            with suppress(OSError):  # what was lost may be the file server
                if node.stage.resumable and _right_so_far(error):  # goes on from here, on whatever host
                    unfinished.release(part, target)
                else:
                    shutil.rmtree(part, ignore_errors=True)
                if isinstance(error, Exception) and not isinstance(error, ranks.Lost) and unfinished.published(target):
                    return "reused"  # who took this process for dead has finished, and cleared its directory away
            raise
        return unfinished.publish(part, target)


def _name_place(error: BaseException, target: Path) -> None:
    """Says where a disk was full, or could not be written to: an open file does not know, nor does safetensors say."""
    if isinstance(error, OSError) and error.errno and error.filename is None:
        error.filename = str(target)
    elif "os error" in str(error):
        error.add_note(str(target))


def _right_so_far(error: BaseException) -> bool:
    """Whether `error` says nothing against what was written before it."""
    if isinstance(error, OSError):
        # A full disk needs the room more than the work. A file that is missing may be missing from
        # the work, and one that a library calls wrong (without a number) may be the work's.
        # Otherwise the file system is to blame.
        return error.errno not in (None, errno.ENOSPC, errno.EDQUOT, errno.ENOENT)
    return isinstance(error, ranks.Lost) or device.failed(error) or not isinstance(error, Exception)


def _compute(node: Node, part: Path, outputs: Path) -> None:
    upstream = [other.path(outputs) for other in node.upstream]
    for directory in upstream:
        checksums.require(directory)
    with checksums.blamed(upstream):
        _compare_versions(upstream)
        if node.stage.together:
            ranks.alone(lambda: (node.name, part))  # what the others wait for, in `assist`
            cost = merged(ranks.together(lambda: _run(node, part, outputs)))
        else:
            cost = _run(node, part, outputs)
    disk.write_json(part / "cost.json", cost | {"bytes": stored(part)})
    disk.write_json(part / "inputs.json", node.key | {"versions": installed()})
    checksums.record(part)


@cache
def installed() -> dict[str, str]:
    """The versions of the libraries that make a stage: recorded beside its inputs, no part of its name."""
    versions = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):  # rose itself, run from its source
            versions[name] = version(name)
    return versions


def _compare_versions(directories: Iterable[Path]) -> None:
    """Says which of the artifacts that are about to be read were made by other versions."""
    for directory in directories:
        made = json.loads((directory / "inputs.json").read_text()).get("versions", {})  # older artifacts do not say
        current = installed().items()
        changes = [f"{name} {made[name]} (now {now})" for name, now in current if made.get(name, now) != now]
        if changes:
            _say_once(directory.parent.name, ", ".join(changes))


@cache
def _say_once(stage: str, changes: str) -> None:
    log.warning("a stage reads %s, made with %s", stage, changes)


def _run(node: Node, part: Path, outputs: Path) -> dict[str, float]:
    device.multiply()
    with metered() as cost:
        node.run(part, outputs)
    return cost


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
