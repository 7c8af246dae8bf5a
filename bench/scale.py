"""What a sweep costs beside its stages: `python -m bench.scale` runs 1,000 jobs whose stages only sleep and write.

Sweeper, look-ahead, launcher, planner, leases, store, job folders and report are the program's own.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import hydra
from omegaconf import DictConfig

from rose.run import task
from rose.run.callback import LookAhead
from rose.stages.graph import Stage

ROOT = Path(__file__).parents[1]
WORKERS = 64
SEEDS, RATIOS = 25, 10  # × 4 methods = 1,000 jobs; up to their scores they need 204 stages, whatever the ratio
METHODS = ("rose", "less", "rose_whitened", "less_whitened")
SLEEP, BYTES = 0.5, 4096  # seconds that a stage takes, and what it writes
LIMIT = 0.5  # CPU seconds that a job may cost beside its stages and imports


def main(outputs: Path, workers: int = WORKERS, seeds: int = SEEDS, ratios: int = RATIOS) -> dict[str, float]:
    """Runs the sweep in a process of its own, into an empty folder; returns what it took."""
    shutil.rmtree(outputs, ignore_errors=True)
    outputs.mkdir(parents=True)
    overrides = [
        f"method={','.join(METHODS)}",
        f"seed={','.join(map(str, range(seeds)))}",
        f"selection.ratio={','.join(str((number + 1) / 100) for number in range(ratios))}",
        "until=scores",
        "tracking=none",
        "hydra/launcher=processes",
        f"runtime.workers={workers}",
        f"outputs={outputs.resolve()}",
    ]
    command = [sys.executable, "-c", "from bench.scale import launch; launch()", "-m", *overrides]
    start = cpu(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", "import hydra, rose.run.job"], cwd=ROOT, check=True)
    imports = cpu(resource.RUSAGE_CHILDREN) - start
    before, start = cpu(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    figures = counted(outputs)
    launcher = cpu(resource.RUSAGE_CHILDREN) - before - imports
    overhead = figures["CPU seconds in a job"] + launcher / figures["jobs"]
    return figures | {
        "seconds of the sweep": seconds,
        "of these looking ahead": float(done.stdout.split()[-2]),
        "of these reporting": float(done.stdout.split()[-1]),
        "CPU seconds of importing Python and torch, once": imports,
        "CPU seconds of the launcher besides, a job": launcher / figures["jobs"],
        "overhead a job, CPU seconds": overhead,
        f"which is {'at most' if overhead <= LIMIT else 'ABOVE'}": LIMIT,
    }


def launch() -> None:
    """`python -m rose`, with these stages; prints what looking ahead and reporting took."""
    looked, reported = [], []
    looks = mock.patch.object(LookAhead, "_look_ahead", timed(LookAhead._look_ahead, looked))
    reports = mock.patch.object(LookAhead, "_report", timed(LookAhead._report, reported))
    with looks, reports:
        job()
    print(sum(looked), sum(reported))


@hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name="config")
def job(config: DictConfig) -> None:
    """A job as it always is, but for its stages; writes down what it took."""
    from rose.stages import build

    start, begun, waits = time.perf_counter(), cpu(resource.RUSAGE_SELF), []
    with mock.patch.object(Stage, "__call__", idle), mock.patch.object(build, "_wait", timed(build._wait, waits)):
        task.task(config)
    took = {"seconds": time.perf_counter() - start, "begun": begun, "cpu": cpu(resource.RUSAGE_SELF)}
    append(Path(config.outputs) / "took.jsonl", took | {"waits": waits})


def idle(stage: Stage, out: Path, **inputs: Any) -> None:
    """In place of what a stage does: sleeps, writes, and says that it was computed."""
    time.sleep(SLEEP)
    (out / "scores.parquet").write_bytes(bytes(BYTES))
    append(out.parents[2] / "computed.jsonl", f"{stage.name}/{out.name.split('.')[1]}")


def cpu(whose: int) -> float:
    used = resource.getrusage(whose)
    return used.ru_utime + used.ru_stime


def timed(function: Callable, seconds: list[float]) -> Callable:
    def call(*arguments: Any) -> None:
        start = time.perf_counter()
        function(*arguments)
        seconds.append(time.perf_counter() - start)

    return call


def append(file: Path, value: Any) -> None:
    """One line, whole, whoever else writes."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(descriptor, (json.dumps(value) + "\n").encode())
    os.close(descriptor)


def counted(outputs: Path) -> dict[str, float]:
    """What the jobs wrote down, and what they left behind."""
    took = [json.loads(line) for line in (outputs / "took.jsonl").read_text().splitlines()]
    computed = Counter((outputs / "computed.jsonl").read_text().splitlines())
    stored, kept = (sum(1 for _ in (outputs / part).rglob("*")) for part in ("stages", "sweeps"))
    states = Counter(json.loads(file.read_text())["state"] for file in outputs.glob("sweeps/*/*/status.json"))
    return {
        "jobs": len(took),
        "jobs done": states["done"],
        "unique stages": len(computed),
        "stages computed twice": computed.total() - len(computed),
        "CPU seconds in a job": sum(each["cpu"] for each in took) / len(took),
        "of these until it begins": sum(each["begun"] for each in took) / len(took),
        "jobs that waited for another's stage": sum(bool(each["waits"]) for each in took),
        "seconds a job waited": sum(sum(each["waits"]) for each in took) / len(took),
        "looks at a lease while waiting, a job": sum(len(each["waits"]) for each in took) / len(took),
        "inodes a stage": stored / len(computed),
        "inodes a job": kept / len(took),
    }


def table(figures: dict[str, float]) -> str:
    width = max(map(len, figures))
    return "\n".join(f"{name:{width}}  {value:.4g}" for name, value in figures.items())


if __name__ == "__main__":
    about = f"{__doc__.splitlines()[0]} It empties outputs/bench/scale first."
    argparse.ArgumentParser(prog="python -m bench.scale", description=about).parse_args()
    print(table(main(ROOT / "outputs" / "bench" / "scale")))
