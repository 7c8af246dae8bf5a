"""Real `python -m rose` processes that can be started by the hundred, and what they leave, to be compared.

A fork server that has the imports behind it starts them, so that a run takes a second and can be killed anywhere in it.
"""

import contextlib
import json
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from pathlib import Path

import xxhash

CONTEXT = multiprocessing.get_context("forkserver")
TINY = [
    "model.base.pretraining.conversations=64",
    "model.base.pretraining.layers=1",
    "model.base.pretraining.width=16",
    "model.base.pretraining.heads=2",
    "model.base.pretraining.training.epochs=1",
    "model.base.pretraining.training.batch_size=32",
    "model.base.pretraining.training.micro_batch_size=32",
    "model.lora.rank=2",
    "model.batch_size=8",
    "model.micro_batch_size=8",
    "dataset.world.rows=48",
    "preference.pairs.world.targets=6",
    "preference.pairs.world.tests=4",
    "warmup.epochs=2",
    "projection=sketch",
    "projection.dim=32",
    "selection.ratio=0.25",
    "evaluation.max_new_tokens=8",
    "runtime.threads=1",
    "tracking=none",
]
# Files that tell of the computation, not of its outcome.
BESIDES = ("cost.json", "checksums.json", "README.md")


def start(outputs: Path, *arguments: str, first: Callable[[], None] | None = None) -> multiprocessing.Process:
    """`python -m rose arguments` on the tiny configuration; `first` runs in the process before it."""
    command = [*arguments, *_others(arguments), f"outputs={outputs}"]
    process = CONTEXT.Process(target=_rose, args=(command, dict(os.environ), _log(outputs), first))
    process.start()
    return process


def serve() -> None:
    """Starts the fork server, which all tests of a session share."""
    CONTEXT.set_forkserver_preload(["rose.__main__", "rose.run.job", "transformers.trainer", "peft", "bm25s"])
    os.environ["OMP_NUM_THREADS"] = "1"  # when the server starts: a process with threads cannot be forked
    forkserver.ensure_running()


def _others(arguments: tuple[str, ...]) -> list[str]:
    given = {text.split("=")[0] for text in arguments}
    return [text for text in TINY if text.split("=")[0] not in given]


def run(outputs: Path, *arguments: str, first: Callable[[], None] | None = None) -> tuple[int, str]:
    """(exit code, what it said)"""
    process = start(outputs, *arguments, first=first)
    process.join()
    return process.exitcode, said(outputs)


def said(outputs: Path) -> str:
    return _log(outputs).read_text()


def _log(outputs: Path) -> Path:
    """Not beside `outputs`: that disk may be full."""
    return outputs.parents[1] / f"{outputs.parent.name}-{outputs.name}.log"


def _rose(command: list[str], environment: dict[str, str], log: Path, first: Callable[[], None] | None) -> None:
    os.environ |= environment  # the server has that of its own start
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = ["rose", *command]
    if first is not None:
        first()
    from rose.__main__ import main

    main()


def parts(outputs: Path) -> list[Path]:
    """The private directories of stages that are being computed, or were when their process died."""
    return list((outputs / "stages").glob("*/.*.part"))


def kill_in(outputs: Path, wanted: set[str], delay: Callable[[str], float], *arguments: str) -> str | None:
    """Starts a run and kills it `delay(stage)` seconds after it began one of the stages `wanted`; which one it was.

    None if the run came to its end without beginning any.
    """
    process = start(outputs, *arguments)
    before = {path.name for path in parts(outputs)}
    while process.is_alive():
        for path in parts(outputs):
            if path.name not in before and path.parent.name in wanted:
                time.sleep(delay(path.parent.name))
                process.kill()
                process.join()
                return path.parent.name
        time.sleep(0.0005)
    assert process.exitcode == 0, said(outputs)
    return None


def seconds(outputs: Path) -> dict[str, float]:
    """How long each kind of stage took."""
    return {path.parents[1].name: json.loads(path.read_text())["seconds"] for path in costs(outputs)}


def costs(outputs: Path) -> list[Path]:
    return sorted((outputs / "stages").glob("[!.]*/[!.]*/cost.json"))


def results(outputs: Path) -> dict[str, str]:
    """A digest of every file of every artifact, and of every job's metrics, scores, selection and adapter."""
    found = [path for path in (outputs / "stages").glob("[!.]*/[!.]*/**/*") if path.is_file()]
    for name in ("metrics.json", "metrics.jsonl", "scores.parquet", "selected.jsonl", "adapter/*"):
        found += outputs.glob(f"runs/*/{name}")
        found += outputs.glob(f"sweeps/*/*/{name}")
    return {str(path.relative_to(outputs)): _digest(path) for path in found if path.name not in BESIDES}


def _digest(path: Path) -> str:
    if path.name == "adapter_config.json":  # PEFT keeps the targets as a set, in no order, and where the base lies
        config = json.loads(path.read_text()) | {"base_model_name_or_path": None}
        return json.dumps(config | {"target_modules": sorted(config["target_modules"])}, sort_keys=True)
    return xxhash.xxh3_128_hexdigest(path.read_bytes())


def forget(outputs: Path, stages: set[str], themselves: bool = True) -> None:
    """Removes the artifacts of some stages and all that was made from them, so that the next run makes them again."""
    left = {f"{path.parents[1].name}/{path.parent.name}": path.parent for path in costs(outputs)}
    inputs = {name: (path / "inputs.json").read_text() for name, path in left.items()}
    gone = {name for name in left if name.partition("/")[0] in stages}
    kept = set() if themselves else set(gone)
    while more := {name for name in set(left) - gone if any(f'"{other}"' in inputs[name] for other in gone)}:
        gone |= more
    for name in gone - kept:
        shutil.rmtree(left[name])


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A mount of util-linux at `folder`; skips the test where this is not allowed."""
    import subprocess

    import pytest

    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
