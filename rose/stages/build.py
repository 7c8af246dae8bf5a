"""Finished stages on disk: one directory each, named by its inputs; a directory that exists is complete.

A stage is a plain function `stage(out, *inputs)` that writes into `out` and sees nothing but its inputs, so
its inputs are its cache key. A `Node` is a stage together with its inputs, some of which are other nodes;
nothing is computed until `build` asks for it, and only what is missing.
"""

import dataclasses
import errno
import hashlib
import inspect
import json
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from rose import ranks
from rose.stages import checksums, disk, leases, unfinished
from rose.stages.cost import Meter, merged, stored
from rose.stages.disk import write_json

log = logging.getLogger(__name__)


def stage(name: str, version: int, resumable: bool = False, together: bool = False) -> Callable[[Callable], Callable]:
    """Marks a function as a stage; raise `version` when the meaning of its output changes.

    A `resumable` stage may find in `out` what a process that was killed left there, and goes on from it. One that works
    `together` is run by all of a job's processes (`rose.ranks`) with the same `out`, others by the first alone.
    """

    def mark(function: Callable) -> Callable:
        function.stage, function.version, function.resumable, function.together = name, version, resumable, together
        return function

    return mark


class Node:
    """A stage and its inputs: dataclasses, plain values, other nodes, or tuples of these."""

    def __init__(self, function: Callable, *inputs: Any, label: str = ""):
        self.function, self.inputs = function, inputs
        self.own_label = re.sub(r"\W+", "_", label)  # a name of the user's must not leave its folder

    @cached_property
    def key(self) -> dict[str, Any]:
        """What the directory is named by: stage, version, values, and the names of upstream directories."""
        parameters = list(inspect.signature(self.function).parameters)[1:]
        values = {name: _canonical(value) for name, value in zip(parameters, self.inputs, strict=True)}
        return {"stage": self.function.stage, "version": self.function.version, "inputs": values}

    @cached_property
    def name(self) -> str:
        """`<stage>/<readable label>-<12 hex>`."""
        text = json.dumps(self.key, sort_keys=True, separators=(",", ":"))
        return f"{self.function.stage}/{self.label}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @cached_property
    def label(self) -> str:
        parts = [part for node in self.upstream for part in node.label.split("-")]
        return "-".join(dict.fromkeys(part for part in (*parts, self.own_label) if part))[:80]

    @cached_property
    def upstream(self) -> list["Node"]:
        return list(_nodes(self.inputs))

    def path(self, outputs: Path) -> Path:
        return outputs / "stages" / self.name


class Built(NamedTuple):
    path: Path
    state: str  # computed | reused
    cost: dict[str, float]  # what computing it took, then or now: `cost.Meter`, and bytes


def plan(goal: Node, outputs: Path) -> list[tuple[Node, str]]:
    """What `goal` rests on, upstream first: each node as "ready", "missing", or "gone" (absent but not needed)."""
    needed: set[str] = set()

    def require(node: Node) -> None:
        if node.name not in needed and not node.path(outputs).exists():
            needed.add(node.name)
            for upstream in node.upstream:
                require(upstream)

    require(goal)
    return [
        (node, "ready" if node.path(outputs).exists() else "missing" if node.name in needed else "gone")
        for node in _ordered(goal)
    ]


def build(goal: Node, outputs: Path, done: Callable[[Node, Built], None] = lambda node, built: None) -> Path:
    """The directory of `goal`, computed with whatever it needs unless it is there; `done` hears of every stage.

    Where another process computes a stage, this one takes the next that it can, and waits when there is none.
    """
    told: set[str] = set()
    watched: dict[str, leases.Lease] = {}  # kept: only who watches a lease learns that its owner is dead
    while True:
        steps = plan(goal, outputs)
        for node, state in steps:
            if state == "ready" and node.name not in told:
                checksums.require(node.path(outputs), contents=False)
                _tell(node, outputs, "reused", told, done)
        able = [
            node
            for node, state in steps
            if state == "missing" and all(upstream.path(outputs).exists() for upstream in node.upstream)
        ]
        if not able:
            return goal.path(outputs)
        for node in able:
            if node.name not in watched:
                watched[node.name] = leases.lease(node.path(outputs))
            now = _compute_once(node, outputs, watched[node.name])
            if now is not None:
                _tell(node, outputs, now, told, done)
                break
        else:
            _wait(able, told)


def _wait(busy: list[Node], told: set[str]) -> None:
    names = ", ".join(node.name for node in busy)
    if names not in told:
        log.info("waiting for %s, which another process computes", names)
        told.add(names)
    time.sleep(leases.POLL)


def _tell(node: Node, outputs: Path, state: str, told: set[str], done: Callable[[Node, Built], None]) -> None:
    told.add(node.name)
    target = node.path(outputs)
    with checksums.blamed([target]):
        cost = json.loads((target / "cost.json").read_text())
    done(node, Built(target, state, cost))


def _ordered(goal: Node) -> list[Node]:
    order: dict[str, Node] = {}

    def visit(node: Node) -> None:
        if node.name not in order:
            for upstream in node.upstream:
                visit(upstream)
            order[node.name] = node

    visit(goal)
    return list(order.values())


def _compute_once(node: Node, outputs: Path, mine: leases.Lease) -> str | None:
    """None where another process is at it. The lease only saves work: were two processes to believe that they hold
    it, each writes a directory of its own, and by the rename below one of them wins, whole.
    """
    target = node.path(outputs)
    held = mine.acquire()
    if held is None:
        return None
    with held:
        if unfinished.published(target):
            return "reused"
        part = unfinished.private(target, node.function.resumable)
        try:
            if not unfinished.published(target):  # what another left may have taken long to copy
                _compute(node, part, outputs)
                disk.sync(part)
        except BaseException as error:
            with suppress(OSError):  # what was lost may be the file server
                if node.function.resumable and _right_so_far(error):  # goes on from here, on whatever host
                    unfinished.release(part, target)
                else:
                    shutil.rmtree(part, ignore_errors=True)
                if isinstance(error, Exception) and not isinstance(error, ranks.Lost) and unfinished.published(target):
                    return "reused"  # who took this process for dead has finished, and cleared its directory away
            raise
        return unfinished.publish(part, target)


def _right_so_far(error: BaseException) -> bool:
    """Whether what was written before `error` is as good as before: it says nothing against the work."""
    if isinstance(error, OSError):
        # A full disk needs the room more than the work. A file that is missing may be missing from the work, and one
        # that a library calls wrong (without a number) may be the work's. Otherwise the file system is to blame.
        return error.errno not in (None, errno.ENOSPC, errno.EDQUOT, errno.ENOENT)
    return isinstance(error, ranks.Lost) or not isinstance(error, Exception)


def _compute(node: Node, part: Path, outputs: Path) -> None:
    upstream = [other.path(outputs) for other in node.upstream]
    for directory in upstream:
        checksums.require(directory)
    with checksums.blamed(upstream):
        if node.function.together:
            ranks.alone(lambda: (node.name, part))  # what the others wait for, in `assist`
            cost = merged(ranks.together(lambda: _run(node, part, outputs)))
        else:
            cost = _run(node, part, outputs)
    write_json(part / "cost.json", cost | {"bytes": stored(part)})
    write_json(part / "inputs.json", node.key)
    checksums.record(part)


def _run(node: Node, part: Path, outputs: Path) -> dict[str, float]:
    with Meter() as meter:
        node.function(part, *_replace(node.inputs, lambda other: other.path(outputs)))
    return meter.values


def assist(goals: Iterable[Node], outputs: Path) -> None:
    """What a job's other processes do while the first one is `leading`: their part of the stages that it names."""
    nodes = {node.name: node for goal in goals for node in _ordered(goal)}
    while (order := ranks.alone(lambda: None)) is not None:
        name, part = order
        with suppress(ranks.Elsewhere):  # the first process knows, and says what comes next
            ranks.together(lambda name=name, part=part: _run(nodes[name], part, outputs))


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


def _canonical(value: Any) -> Any:
    if isinstance(value, Node):
        return value.name
    if dataclasses.is_dataclass(value):
        fields = [field for field in dataclasses.fields(value) if field.metadata.get("in_key", True)]
        return {field.name: _canonical(getattr(value, field.name)) for field in fields}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _canonical(item) for name, item in value.items()}
    return value.name if isinstance(value, Path) else value


def _nodes(value: Any) -> Iterator[Node]:
    if isinstance(value, Node):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _nodes(item)


def _replace(value: Any, path: Callable[[Node], Path]) -> Any:
    if isinstance(value, Node):
        return path(value)
    return tuple(_replace(item, path) for item in value) if isinstance(value, tuple) else value
