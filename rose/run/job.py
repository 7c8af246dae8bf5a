"""One job: builds the stages it needs; what it leaves in its folder is in rose.run.record."""

import dataclasses
import json
import logging
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from rose import pipeline, ranks
from rose.config.choices import Until
from rose.config.schema import Config
from rose.data import pool, preferences
from rose.errors import RoseError, one_line
from rose.methods import candidates
from rose.run import early, process, provenance, record, tracking
from rose.stages import checksums, leases
from rose.stages.build import Built, assist, build, leading
from rose.stages.disk import write_json
from rose.stages.graph import Node, plan
from rose.stages.kinds import kind_of
from rose.training.processes import micro_batches

log = logging.getLogger(__name__)


def run(config: Config, directory: Path, group: str) -> None:
    """Runs the job. Where it fails, status.json says why, and with ROSE_DEBUG=1 the log how.

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
    """Builds some of a job's stages with all of its processes, for the jobs of a `rose.plan`."""
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
    process.settle()
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
    if record.state(directory) != "done":
        record.say(directory, "running")
    try:
        nodes = _prepared(config)
        if (seen := torch.cuda.device_count()) > 1 and ranks.world_size() == 1:
            log.info("%d GPUs are here, and a process uses one: torchrun --nproc_per_node %d -m rose …", seen, seen)
        with leading():
            _run(config, nodes, directory, group)
    except Exception as error:
        message = one_line(error)
        level = logging.DEBUG if isinstance(error, early.SaidAlready) else logging.ERROR
        log.log(level, "%s failed: %s", directory.name, message)
        log.log(logging.ERROR if os.environ.get("ROSE_DEBUG") else logging.DEBUG, "traceback", exc_info=True)
        record.say(directory, "failed", message)
    except BaseException:
        record.say(directory, "failed", "interrupted")
        raise
    else:
        record.say(directory, "done")
        (directory / "claims.json").unlink(missing_ok=True)


def _run(config: Config, nodes: dict[str, Node], directory: Path, group: str) -> None:
    outputs, names, begun = Path(config.outputs), _names(nodes), provenance.begun()
    stages: dict[str, dict[str, Any]] = {}  # what stages.json holds

    def done(node: Node, built: Built) -> None:
        name = names[node.name]
        if name in stages:
            return
        if built.state == "computed":
            log.info("%s: %s computed in %.1f s", directory.name, name, built.cost["seconds"])
        stages[name] = {"dir": str(built.path.relative_to(outputs)), "state": built.state} | built.cost
        if not finished:  # else stages.json is whole already, and stays so
            write_json(directory / "stages.json", stages)

    states = _states(config.until, nodes, outputs)
    finished = "missing" not in states.values() and record.state(directory) == "done"
    if not finished:
        record.say(directory, "running")
        record.claim(directory, outputs, [name for name, state in states.items() if state != "gone"])
    # else the folder holds its run
    tracked = "missing" in states.values() or not tracking.holds_run(directory) or tracking.asked_for()
    settings = (config.tracking, directory, dataclasses.asdict(config), group, directory.name)
    with tracking.track(*settings) if tracked else nullcontext() as run:
        make = partial(build, outputs=outputs, done=done)
        wanted = goals(config.until, nodes, outputs)
        if not any(wanted):
            log.warning("%s: method=%s has nothing to do until=%s", directory.name, config.method.name, config.until)
        early.begin([name for name in wanted[0] if name in early.ORDER], nodes, outputs, directory, make)
        candidates.leave_enough(config, nodes["tokens"].path(outputs))
        failures = _build_all(wanted, nodes, make)
        by_name = {node.name: node for node in nodes.values()}
        for name, state in _states(Until.evaluation, nodes, outputs).items():
            if state == "ready" and names[name] not in stages:  # run up to an earlier stage it keeps what it had
                build(by_name[name], outputs, done)
        write_json(directory / "stages.json", stages)
        paths = {name: outputs / entry["dir"] for name, entry in stages.items()}
        with checksums.blamed(paths.values()):
            metrics = record.collect(directory, paths)
        if not finished:
            write_json(directory / "provenance.json", provenance.of_job(begun))
        tracking.log(run, directory / "metrics.jsonl", stages, metrics)
        if config.tracking.artifacts:
            tracking.log_artifacts(run, directory)
        if failures:
            raise failures[0]
        reused = sum(entry["state"] == "reused" for entry in stages.values())
        if "planted" in paths:
            log.info("%s: %s", directory.name, json.loads((paths["planted"] / "planted.json").read_text())["sentence"])
        message = "%s: done, %d stages computed, %d reused%s"
        log.info(message, directory.name, len(stages) - reused, reused, _lost(metrics, paths))


def _lost(metrics: dict[str, float], paths: dict[str, Path]) -> str:
    """How many pool rows no stage saw, and where they are listed."""
    if not (lost := metrics.get("pool_rows_dropped")):
        return ""
    total = f" of {metrics['pool_rows']}" if "pool_rows" in metrics else ""
    return f"; {lost}{total} pool rows dropped at tokenising: {paths['tokens'] / 'dropped.jsonl'}"


def _build_all(wanted: list[list[str]], nodes: dict[str, Node], make: Callable[[Node], Any]) -> list[Exception]:
    """Builds the goals of each list in turn; what fails after the first list ends only its own."""
    failures = []
    for number, names in enumerate(wanted):
        name = ""
        try:
            for name in names:
                make(nodes[name])
        except Exception as error:
            if number == 0:
                raise
            log.error("%s: %s", name, one_line(error))
            failures.append(error)
    return failures


def dry_run(config: Config) -> None:
    """Prints which stages are ready and which would be computed; computes nothing, but reads the data's first rows."""
    nodes, outputs = pipeline.stages(config), Path(config.outputs)
    pool.try_layout(config.dataset)
    preferences.try_layout(config.preference.pairs)
    names = _names(nodes)
    for name, state in _states(config.until, nodes, outputs).items():
        print(f"{state:8} {names[name]:24} {outputs / 'stages' / name}")


def _names(nodes: dict[str, Node]) -> dict[str, str]:
    """What the job calls each directory; the first of its names where two are the same stage."""
    return {node.name: name for name, node in reversed(nodes.items())}


def _states(until: Until, nodes: dict[str, Node], outputs: Path) -> dict[str, str]:
    """Each directory that the stages asked for rest on, and its state (`rose.stages.graph.plan`)."""
    return {
        node.name: state for goal in chain(*goals(until, nodes, outputs)) for node, state in plan(nodes[goal], outputs)
    }


def goals(until: Until, nodes: dict[str, Node], outputs: Path) -> list[list[str]]:
    """The stages asked for, in lists: first those that a job cannot do without, what comes early before all.

    A later list may fail and leave the others' results: a judge that is down costs the win rate.
    """
    ends = {
        Until.answers: [["zero_shot_answers", "answers"]],
        Until.evaluation: [
            ["zero_shot", "evaluation"],
            ["diagnostics"],
            ["zero_shot_tasks", "tasks"],
            ["zero_shot_answers", "answers", "zero_shot_verdicts", "verdicts"] if "verdicts" in nodes else [],
        ],
    }.get(until, [[name for name in nodes if kind_of(name) == until.value]])
    asked = [[name for name in names if name in nodes] for names in ends]
    return [early.early(nodes, asked, outputs) + asked[0], *asked[1:]]
