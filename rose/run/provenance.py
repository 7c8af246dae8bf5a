"""How numbers came about, for the report's foot: what a job, and a sweep, write down of themselves."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from omegaconf import DictConfig

from rose.config.reference import first_comment
from rose.stages.build import installed

ROOT = Path(__file__).resolve().parents[2]


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def begun() -> dict[str, Any]:
    """What a job knows as it begins: when, and the commit, which may be another by its end."""
    return {"began": now(), "commit": _commit()}


def of_job(begun: dict[str, Any]) -> dict[str, Any]:
    """When a job began and ended, its commit, versions and machine; no name of a machine or of a person."""
    machine = {
        "system": f"{platform.system()} {platform.machine()}",
        "vectors": _vectors(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": psutil.virtual_memory().total,
        "gpus": _gpus(),
    }
    versions = installed() | {"python": platform.python_version()}
    return begun | {"ended": now(), "versions": versions, "machine": machine}


def command() -> str:
    """The command line of this process, as one would type it again."""
    first, *rest = sys.orig_argv[1:] or [""]
    return shlex.join(["python", first, *rest] if first.startswith("-") else [Path(first).name, *rest])


def question(config: DictConfig) -> str:
    """The first line of comment of the experiment that was asked for, in our conf/ or in the user's; "" without."""
    runtime = config.hydra.runtime
    name, sources = runtime.choices.get("experiments"), runtime.config_sources
    paths = [Path(source.path) / "experiments" / f"{name}.yaml" for source in sources if source.schema == "file"]
    return next((first_comment(path) for path in paths if path.is_file()), "")


def _commit() -> str:
    """Of the clone that runs, "-dirty" where its files have changed since; "" of an installed package."""
    if not (ROOT / ".git").exists():
        return ""
    describe = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(describe, capture_output=True, text=True, check=True, timeout=60).stdout.strip()  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""


def _vectors() -> str:
    """The widest instructions that torch uses on this processor, such as AVX512: others round otherwise."""
    torch = sys.modules.get("torch")
    return torch.backends.cpu.get_cpu_capability() if torch else ""


def _gpus() -> list[str]:
    """Those that this process has used: to ask a GPU for its name would make it one that does."""
    torch = sys.modules.get("torch")
    if not torch or not torch.cuda.is_initialized():
        return []
    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
