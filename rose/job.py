"""One job: builds the stages it needs and leaves its results, timings and state in its own directory."""

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import uuid
from pathlib import Path

import torch

from rose import pipeline, tracking
from rose.artifacts import Built, Node, build, plan, write_json
from rose.choices import Until
from rose.config import Config
from rose.errors import RoseError

log = logging.getLogger(__name__)

COLLECTED = (("scores", "scores.parquet"), ("selection", "selected.jsonl"), ("diagnostics", "diagnostics.json"))


def run(config: Config, directory: Path, group: str) -> None:
    """Runs the job. A failed one does not raise: `status.json` says why, and with ROSE_DEBUG=1 the log how."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "status.json", {"state": "running", "error": None})
    try:
        _run(config, directory, group)
    except Exception as error:
        message = one_line(error)
        log.error("%s failed: %s", directory.name, message)
        log.log(logging.ERROR if os.environ.get("ROSE_DEBUG") else logging.DEBUG, "traceback", exc_info=True)
        write_json(directory / "status.json", {"state": "failed", "error": message})
    except BaseException as error:
        write_json(directory / "status.json", {"state": "failed", "error": f"interrupted: {type(error).__name__}"})
        raise
    else:
        write_json(directory / "status.json", {"state": "done", "error": None})


def one_line(error: BaseException) -> str:
    """What went wrong, in one line; errors that are not the user's carry their type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, RoseError) else f"{type(error).__name__}: {text}"


def _run(config: Config, directory: Path, group: str) -> None:
    if config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)
    outputs, nodes = Path(config.outputs), pipeline.stages(config)
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
        write_json(directory / "stages.json", stages)

    wanted = [nodes[goal] for goal in goals(config.until) if goal in nodes]
    with _tracked(config, directory, group, [state for goal in wanted for _, state in plan(goal, outputs)]) as run:
        for goal in wanted:
            build(goal, outputs, done)
        for goal in goals(Until.evaluation):  # a job run again up to an earlier stage keeps what it had
            for node, state in plan(nodes[goal], outputs) if goal in nodes else ():
                if state == "ready" and names[node.name] not in stages:
                    build(node, outputs, done)
        collect(directory, {name: outputs / entry["dir"] for name, entry in stages.items()})
        reused = sum(entry["state"] == "reused" for entry in stages.values())
        log.info("%s: done, %d stages computed, %d reused", directory.name, len(stages) - reused, reused)
        metrics = json.loads((directory / "metrics.json").read_text())
        tracking.log(run, directory / "metrics.jsonl", stages, metrics)


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
        for goal in goals(config.until)
        if goal in nodes
        for node, state in plan(nodes[goal], Path(config.outputs))
    }
    for node, state in states.items():
        print(f"{state:8} {names[node]:12} {Path(config.outputs) / 'stages' / node}")


def goals(until: Until) -> list[str]:
    """The stages asked for; what they need is built with them."""
    return ["diagnostics", "zero_shot", "evaluation"] if until is Until.evaluation else [until.value]


def collect(directory: Path, stages: dict[str, Path]) -> None:
    """Copies what people look for into the job's directory: scores, selection, checks, adapter, curves, metrics."""
    for stage, name in COLLECTED:
        if stage in stages:
            _copy(stages[stage] / name, directory / name)
    if "finetune" in stages:
        (directory / "adapter").mkdir(exist_ok=True)
        for path in stages["finetune"].glob("adapter_*"):
            _copy(path, directory / "adapter" / path.name)
    _write_lines(directory / "metrics.jsonl", _curves(stages))
    write_json(directory / "metrics.json", _metrics(stages))


def _curves(stages: dict[str, Path]) -> list[dict]:
    return [
        {"stage": stage} | json.loads(line)
        for stage in ("base", "warmup", "finetune")
        if stage in stages and (stages[stage] / "log.jsonl").exists()
        for line in (stages[stage] / "log.jsonl").read_text().splitlines()
    ]


def _metrics(stages: dict[str, Path]) -> dict[str, float]:
    metrics = {}
    for stage, prefix in (("selection", ""), ("fidelity", ""), ("evaluation", ""), ("zero_shot", "zero_shot/")):
        if stage in stages:
            values = json.loads((stages[stage] / "metrics.json").read_text())
            metrics |= {prefix + name: value for name, value in values.items()}
    return metrics


def _copy(source: Path, target: Path) -> None:
    """A copy, not a link: what people do to a job's files must not reach the stage that other jobs share."""
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    shutil.copyfile(source, part)
    part.replace(target)


def _write_lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
