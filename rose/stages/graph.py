"""Stages and what they are made from: a directory each, named by its inputs; one that exists is whole.

A stage is a function `stage(out, …inputs)` that writes into `out` and sees nothing but its inputs,
so they are its cache key. A `Node` is a stage with its inputs, some of which are other nodes.
"""

import dataclasses
import functools
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any


class Stage:
    """A function whose result is kept: what its directory is called, and how it may be run.

    `version` is raised when the meaning of its output changes. A `resumable` stage may find in
    `out` what a killed process left there, and goes on from it. One that works `together` is run by
    all of a job's processes (`rose.ranks`) with the same `out`, others by the first alone.
    """

    def __init__(self, function: Callable[..., None], name: str, version: int, resumable: bool, together: bool):
        functools.update_wrapper(self, function)
        self.function, self.name, self.version = function, name, version
        self.resumable, self.together = resumable, together
        self.parameters = inspect.signature(function)

    def __call__(self, out: Path, *inputs: Any, **named: Any) -> None:
        self.function(out, *inputs, **named)

    def __reduce__(self) -> str:
        return self.function.__qualname__  # for other processes, as functions are: by where it is found


def stage(name: str, version: int, resumable: bool = False, together: bool = False) -> Callable[[Callable], Stage]:
    """Makes a stage of a function."""
    return lambda function: Stage(function, name, version, resumable, together)


class Node:
    """A stage and its inputs by name: dataclasses, plain values, other nodes, or tuples of these."""

    def __init__(self, stage: Stage, *inputs: Any, label: str = "", **named: Any):
        _, *bound = stage.parameters.bind(None, *inputs, **named).arguments.items()  # the first is `out`
        self.stage, self.inputs = stage, dict[str, Any](bound)
        self.own_label = re.sub(r"\W+", "_", label)  # a name of the user's must not leave its folder

    @cached_property
    def key(self) -> dict[str, Any]:
        """What names the directory: stage, version, values, and the names of upstream ones."""
        values = {name: _canonical(value) for name, value in self.inputs.items()}
        return {"stage": self.stage.name, "version": self.stage.version, "inputs": values}

    @cached_property
    def name(self) -> str:
        """`<stage>/<readable label>-<12 hex>`."""
        text = json.dumps(self.key, sort_keys=True, separators=(",", ":"))
        return f"{self.stage.name}/{self.label}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @cached_property
    def label(self) -> str:
        words = [word for node in self.upstream for word in node.label.split("-")]
        return "-".join(dict.fromkeys(word for word in (*words, self.own_label) if word))[:80]

    @cached_property
    def upstream(self) -> list["Node"]:
        return list(_nodes(tuple(self.inputs.values())))

    def path(self, outputs: Path) -> Path:
        return outputs / "stages" / self.name

    def run(self, out: Path, outputs: Path) -> None:
        """Computes the stage into `out`, from the directories of its upstream nodes."""
        self.stage(out, **{name: _located(value, outputs) for name, value in self.inputs.items()})


def plan(goal: Node, outputs: Path) -> list[tuple[Node, str]]:
    """What `goal` rests on, upstream first: each node as ready, missing, or gone but not needed."""
    needed: set[str] = set()

    def require(node: Node) -> None:
        if node.name not in needed and not node.path(outputs).exists():
            needed.add(node.name)
            for upstream in node.upstream:
                require(upstream)

    require(goal)
    return [
        (node, "ready" if node.path(outputs).exists() else "missing" if node.name in needed else "gone")
        for node in ordered(goal)
    ]


def ordered(goal: Node) -> list[Node]:
    """`goal` and all that it rests on, upstream first, each once."""
    order: dict[str, Node] = {}

    def visit(node: Node) -> None:
        if node.name not in order:
            for upstream in node.upstream:
                visit(upstream)
            order[node.name] = node

    visit(goal)
    return list(order.values())


def _canonical(value: Any) -> Any:
    if isinstance(value, Node):
        return value.name
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field for field in dataclasses.fields(value) if field.metadata.get("in_key", True)]
        values = {field: _canonical(getattr(value, field.name)) for field in fields}
        unset = {field for field, own in values.items() if own == field.default and field.metadata.get("in_key_if_set")}
        return {field.name: own for field, own in values.items() if field not in unset}
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


def _located(value: Any, outputs: Path) -> Any:
    """The value with directories in place of nodes."""
    if isinstance(value, Node):
        return value.path(outputs)
    return tuple(_located(item, outputs) for item in value) if isinstance(value, tuple) else value
