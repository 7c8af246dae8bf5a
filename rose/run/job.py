"""One job: builds the stages it needs and leaves its results, timings and state in its own directory."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import shutil
import sys
import uuid
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from rose import pipeline, ranks
from rose.config.choices import Until
from rose.config.schema import Config
from rose.errors import RoseError, one_line
from rose.evaluation.items import merge_items
from rose.run import tracking
from rose.stages import checksums, leases
from rose.stages.build import Built, assist, build, leading
from rose.stages.disk import write_json
from rose.stages.graph import Node, plan
from rose.stages.kinds import KINDS, MEASURES, ZERO_SHOT, Kind
from rose.training.processes import micro_batches

log = logging.getLogger(__name__)


def run(config: Config, directory: Path, group: str) -> None:
    """Runs the job. A failed one does not raise: `status.json` says why, and with ROSE_DEBUG=1 the log how.

    Of several processes (`rose.ranks`) the first does; the others do their part of its stages.
    """
    with ranks.joined():
        if not ranks.is_first():
            _assist(config)
            return
        directory.mkdir(parents=True, exist_ok=True)
        # The same command twice at once: one works, the other finds it done. A dead owner's lease ends.
        with leases.held(directory / ".lease"):
            _run_alone(config, directory, group)


def build_stages(config: Config, names: list[str]) -> None:
    """Builds some of a job's stages, for jobs that will need them (`rose.plan`), with all of its processes."""
    with ranks.joined():
        if not ranks.is_first():
            _assist(config)
            return
        nodes = {node.name: node for node in _prepared(config).values()}
        with leading():
            for name in names:
                if name not in nodes:
                    raise RoseError(f"{name}: the data or the model have changed since the plan was made")
                build(nodes[name], Path(config.outputs))


def _assist(config: Config) -> None:
    try:
        assist(_prepared(config).values(), Path(config.outputs))
    except Exception as error:
        if not isinstance(error, ranks.Elsewhere):
            log.error("process %d: %s", ranks.rank(), one_line(error))
        sys.exit(1)


def _prepared(config: Config) -> dict[str, Node]:
    """The job's stages. Every process looks at its own inputs, and all go on or none does."""
    if config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)
    nodes: dict[str, Node] = {}

    def prepare() -> None:
        for name in ("warmup", "finetune"):
            micro_batches(getattr(config, name), f"{name}.")  # refused here rather than after hours of features
        nodes.update(pipeline.stages(config))

    ranks.together(prepare)
    return nodes


def _run_alone(config: Config, directory: Path, group: str) -> None:
    if not _is_done(directory):
        _say(directory, "running")
    try:
        nodes = _prepared(config)
        with leading():
            _run(config, nodes, directory, group)
    except Exception as error:
        message = one_line(error)
        log.error("%s failed: %s", directory.name, message)
        log.log(logging.ERROR if os.environ.get("ROSE_DEBUG") else logging.DEBUG, "traceback", exc_info=True)
        _say(directory, "failed", message)
    except BaseException:
        _say(directory, "failed", "interrupted")
        raise
    else:
        _say(directory, "done")
        (directory / "claims.json").unlink(missing_ok=True)


def _say(directory: Path, state: str, error: str | None = None) -> None:
    """Writes status.json; where the disk takes no more, the log has to do."""
    try:
        write_json(directory / "status.json", {"state": state, "error": error})
    except OSError as full:
        log.error("%s: status.json cannot be written (%s); it should say %s", directory.name, full.strerror, state)


def _is_done(directory: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return json.loads((directory / "status.json").read_text())["state"] == "done"
    return False


def _run(config: Config, nodes: dict[str, Node], directory: Path, group: str) -> None:
    outputs = Path(config.outputs)
    names = {node.name: name for name, node in reversed(nodes.items())}
    stages: dict[str, dict] = {}

    def done(node: Node, built: Built) -> None:
        name = names[node.name]
        if name in stages:
            return
        if built.state == "computed":
            log.info("%s: %s computed in %.1f s", directory.name, name, built.cost["seconds"])
        folder = str(built.path.relative_to(outputs))
        stages[name] = {"dir": folder, "state": built.state} | built.cost
        if not finished:  # else stages.json is whole already, and stays so
            write_json(directory / "stages.json", stages)

    wanted = goals(config.until, nodes)
    states = {node.name: state for goal in chain(*wanted) for node, state in plan(nodes[goal], outputs)}
    finished = "missing" not in states.values() and _is_done(directory)
    if not finished:
        _say(directory, "running")
        claim(directory, outputs, [name for name, state in states.items() if state != "gone"])
    with _tracked(config, directory, group, list(states.values())) as run:
        failures = _build_all(wanted, nodes, lambda goal: build(goal, outputs, done))
        for goal in chain(*goals(Until.evaluation, nodes)):  # run again up to an earlier stage it keeps what it had
            for node, state in plan(nodes[goal], outputs):
                if state == "ready" and names[node.name] not in stages:
                    build(node, outputs, done)
        write_json(directory / "stages.json", stages)
        paths = {name: outputs / entry["dir"] for name, entry in stages.items()}
        with checksums.blamed(paths.values()):
            collect(directory, paths)
        reused = sum(entry["state"] == "reused" for entry in stages.values())
        metrics = json.loads((directory / "metrics.json").read_text())
        tracking.log(run, directory / "metrics.jsonl", stages, metrics)
        if config.tracking.artifacts:
            tracking.log_artifacts(run, directory)
        if failures:
            raise failures[0]
        log.info("%s: done, %d stages computed, %d reused", directory.name, len(stages) - reused, reused)


def _build_all(wanted: list[list[str]], nodes: dict[str, Node], make: Callable[[Node], Any]) -> list[Exception]:
    """Builds the goals of each list in turn; what goes wrong after the first list ends its own list only."""
    failures = []
    for number, names in enumerate(wanted):
        try:
            for name in names:
                make(nodes[name])
        except Exception as error:
            if number == 0:
                raise
            log.error("%s: %s", name, one_line(error))
            failures.append(error)
    return failures


def claim(directory: Path, outputs: Path, names: list[str]) -> None:
    """Says which stages this job is going to use, until it is done, so that rose.store leaves them alone."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "claims.json", names)
    if not directory.resolve().is_relative_to(outputs.resolve()):  # rose.store looks for jobs in there
        address = outputs / "stages" / ".jobs" / hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:12]
        address.parent.mkdir(parents=True, exist_ok=True)
        address.write_text(str(directory.resolve()))


def _tracked(config: Config, directory: Path, group: str, states: list[str]) -> contextlib.AbstractContextManager:
    """A W&B run, unless there is nothing to compute and the job's folder holds its run already."""
    if "missing" not in states and tracking.holds_run(directory):
        return contextlib.nullcontext()
    return tracking.track(config.tracking, directory, dataclasses.asdict(config), group, directory.name)


def dry_run(config: Config) -> None:
    """Prints which stages are ready and which would be computed; computes nothing."""
    nodes = pipeline.stages(config)
    names = {node.name: name for name, node in reversed(nodes.items())}
    states = {
        node.name: state
        for goal in chain(*goals(config.until, nodes))
        for node, state in plan(nodes[goal], Path(config.outputs))
    }
    for node, state in states.items():
        print(f"{state:8} {names[node]:18} {Path(config.outputs) / 'stages' / node}")


def goals(until: Until, nodes: dict[str, Node]) -> list[list[str]]:
    """The stages asked for, what they need being built with them: first those that a job cannot do without.

    A list after the first may fail and leave the others' results: a judge that is down costs the win rate alone.
    """
    ends = {
        Until.answers: [["zero_shot_answers", "answers"]],
        Until.evaluation: [
            ["zero_shot", "evaluation"],
            ["diagnostics"],
            ["zero_shot_tasks", "tasks"],
            ["zero_shot_answers", "answers", "zero_shot_verdicts", "verdicts"] if "verdicts" in nodes else [],
        ],
    }.get(until, [[until.value]])
    return [[name for name in names if name in nodes] for names in ends]


def collect(directory: Path, stages: dict[str, Path]) -> None:
    """Copies what people look for into the job's directory: scores, selection, checks, adapter, curves, items."""
    for name, folder in stages.items():
        target = directory / "adapter" if name == "finetune" else directory
        for path in folder.glob(copied) if (copied := KINDS.get(name, Kind()).copied) else ():
            target.mkdir(exist_ok=True)
            _copy(path, target / path.name)
    _write_lines(directory / "metrics.jsonl", _curves(stages))
    write_json(directory / "metrics.json", _metrics(stages))
    for prefix in ("", "zero_shot_"):
        items = [stages[name] / "items.parquet" for name in _evaluating(prefix) if name in stages]
        if items:
            _replace(directory / f"{prefix}items.parquet", merge_items(items).to_parquet)


def _curves(stages: dict[str, Path]) -> list[dict]:
    return [
        {"stage": stage} | json.loads(line)
        for stage, kind in KINDS.items()
        if kind.curve and stage in stages and (stages[stage] / "log.jsonl").exists()
        for line in (stages[stage] / "log.jsonl").read_text().splitlines()
    ]


def _metrics(stages: dict[str, Path]) -> dict[str, float]:
    sources = [("selection", ""), ("fidelity", ""), *((name, "") for name in _evaluating(""))]
    metrics = {}
    for stage, prefix in (*sources, *((name, "zero_shot/") for name in _evaluating("zero_shot_"))):
        if stage in stages:
            values = json.loads((stages[stage] / "metrics.json").read_text())
            metrics |= {prefix + name: value for name, value in values.items()}
    return metrics


def _evaluating(prefix: str) -> list[str]:
    """The stages that measure the fine-tuned model, or with the prefix `zero_shot_` the base model."""
    return [ZERO_SHOT[name] if prefix else name for name in MEASURES]


def _copy(source: Path, target: Path) -> None:
    """A copy, not a link: what people do to a job's files must not reach the stage that other jobs share."""
    _replace(target, lambda part: shutil.copyfile(source, part))


def _replace(target: Path, write: Callable[[Path], Any]) -> None:
    """What `write` leaves at the path it is given takes the place of `target` in one step."""
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    write(part)
    part.replace(target)


def _write_lines(path: Path, rows: list[dict]) -> None:
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    part.write_text("".join(json.dumps(row) + "\n" for row in rows))
    part.replace(path)
