"""A sweep of four tiny jobs in a process of its own, under any launcher; and five jobs of which two die."""

import json
import os
import subprocess
import sys
from pathlib import Path

from waiting import until

from rose.__main__ import ROOT

SWEEP = ["-m", "method=rose,random", "seed=0,1"]
SMALL = [  # every stage lasts long enough to be struck; faults/fault_runs.TINY is for runs by the hundred
    "model.base.pretraining.conversations=128",
    "model.base.pretraining.training.epochs=1",
    "model.base.pretraining.width=32",
    "dataset.world.rows=80",
    "preference.pairs.world.targets=6",
    "preference.pairs.world.tests=8",
    "warmup.ratio=0.3",
    "warmup.epochs=2",
    "finetune.epochs=1",
    "evaluation.max_new_tokens=4",
    "projection=sketch",
    "projection.dim=64",
    "tracking=none",
]
APP = """
import os, time
from pathlib import Path
import hydra, psutil
def alive(process):
    try:
        return psutil.Process(process).status() not in ("zombie", "dead")
    except psutil.NoSuchProcess:
        return False
@hydra.main(version_base="1.3", config_path=None)
def job(config):
    folder = Path(config.folder)
    (folder / f"begun-{config.number}-{time.monotonic_ns()}-{os.getpid()}").touch()
    while config.company and config.number < 2 and len([*folder.glob("begun-[01]-*")]) < 2:
        time.sleep(0.01)
    begun = [int(path.name.split("-")[-1]) for path in folder.glob("begun-*")]
    (folder / f"beside-{config.number}-{sum(map(alive, set(begun)))}").touch()
    time.sleep(0.3)
    {1: lambda: os.kill(os.getpid(), 9), 2: lambda: os._exit(3)}.get(config.number, lambda: None)()
    (folder / f"ended-{config.number}-{time.monotonic_ns()}-{os.environ.get('OMP_NUM_THREADS')}").touch()
if __name__ == "__main__":
    job()
"""


def rose(outputs: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "rose", *SWEEP, *SMALL, f"outputs={outputs}", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with open(outputs / "stderr", "w") as file:
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=file, env=environment)


def ended(sweep: subprocess.Popen, outputs: Path) -> tuple[int, str]:
    """(exit code, stderr)"""
    sweep.wait()
    return sweep.returncode, (outputs / "stderr").read_text()


def results(outputs: Path) -> dict[str, bytes]:
    """What every job of the sweep selected and measured, by job and file."""
    (sweep,) = (outputs / "sweeps").iterdir()
    files = [path for name in ("selected.jsonl", "metrics.json", "scores.parquet") for path in sweep.glob(f"*/{name}")]
    return {str(path.relative_to(sweep)): path.read_bytes() for path in files}


def states(outputs: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in outputs.glob("sweeps/*/*/status.json")}


def owner(sweep: subprocess.Popen, outputs: Path, stage: str) -> int:
    """The process of a running sweep that computes a stage now."""
    part, *_ = until(lambda: list(outputs.glob(f"stages/{stage}/.*.part")), sweep)
    return int(part.name.split(".")[-3])


def died(tmp_path: Path, launcher: str, company: bool = False, **settings: object) -> tuple[dict[str, str], str]:
    """Five jobs of which number 1 kills itself and number 2 leaves: what is said of the dead, and stderr.

    With `company` numbers 0 and 1 wait until both have begun.
    """
    (tmp_path / "app.py").write_text(APP)
    arguments = [
        "-m",
        "+number=0,1,2,3,4",
        f"+folder={tmp_path}",
        f"+company={company}",
        f"hydra.sweep.dir={tmp_path}/sweep",
    ]
    target = f"hydra.launcher._target_=hydra_plugins.rose_launchers.{launcher}"
    settings = [f"+hydra.launcher.{name}={value}" for name, value in settings.items()]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "app.py", *arguments, target, *settings],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment | {"PYTHONPATH": str(ROOT)},
    )
    said = {path.parent.name: json.loads(path.read_text())["error"] for path in tmp_path.glob("sweep/*/status.json")}
    return said, done.stderr


def marks(folder: Path, name: str) -> list[list[str]]:
    return sorted(path.name.split("-")[1:] for path in folder.glob(f"{name}-*"))


def unhashed(found: dict[str, bytes]) -> dict[tuple[str, str], bytes]:
    """By job and file; a job's name without the hash of its overrides."""
    return {(Path(place).parent.name.rpartition("-")[0], Path(place).name): data for place, data in found.items()}
