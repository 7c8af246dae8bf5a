"""Where a report comes from: its question, its jobs' files, and by what its numbers were made."""

import shlex
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from rose.report.results import JobRecord, announced
from rose.report.table import seeds
from rose.report.text import counted

FILES = {"log": "rose.log", "selected.jsonl": "selected.jsonl", "adapter": "adapter", "metrics.json": "metrics.json"}


class Links(NamedTuple):
    """A job, and the addresses of its folder and files, relative to the page."""

    name: str
    state: str
    address: str
    files: dict[str, str]


def question(sweep: Path) -> str:
    """What the experiment asks, in the words of its file; "" where it has none."""
    return str(announced(sweep).get("question") or "")


def links(sweep: Path, jobs: list[JobRecord]) -> list[Links]:
    """In the order of the sweep."""
    result = []
    for job in sorted(jobs, key=lambda job: job.place):
        folder = job.dir.relative_to(sweep)
        there = {name: folder / file for name, file in FILES.items() if (job.dir / file).exists()}
        address = quote(f"{folder}/") if job.dir.is_dir() else ""
        result.append(Links(job.dir.name, job.state, address, {name: quote(str(path)) for name, path in there.items()}))
    return result


def origin(sweep: Path, jobs: list[JobRecord]) -> dict[str, str]:
    """Command, date, versions, machine and seeds, as far as they were written down."""
    made = [job.provenance for job in jobs if job.provenance]
    alone = jobs[0].overrides if jobs[0].dir == sweep else None
    command = shlex.join(["rose", *alone]) if alone is not None else str(announced(sweep).get("command") or "")
    silent = f" ({len(made)} of {counted(len(jobs), 'job')} say when)" if len(made) < len(jobs) else ""
    parts = {
        "Command": command,
        "Run": _dates(made) + silent if made else "",
        "Code": "; ".join(dict.fromkeys(map(code, made))),
        "Libraries": "; ".join(dict.fromkeys(map(_libraries, made))),
        "Machine": "; ".join(dict.fromkeys(map(_machine, made))),
        "Seeds": seeds(jobs),
    }
    return {name: text or "not written down: the jobs are older than this" for name, text in parts.items()}


def _dates(made: list[dict[str, Any]]) -> str:
    began, ended = (sorted(str(one.get(name, "")) for one in made) for name in ("began", "ended"))
    first, last = (text[:16].replace("T", " ") for text in (began[0], ended[-1]))
    return f"{first} to {last.removeprefix(first[:11])} UTC"


def code(made: dict[str, Any]) -> str:
    """By what a job was run, from its provenance: the version of Rose, and in a clone the commit."""
    version, commit = made.get("versions", {}).get("rose-select", ""), made.get("commit", "")
    clean, dirty = commit.removesuffix("-dirty"), ", with changes" if commit.endswith("-dirty") else ""
    return f"Rose {version}".strip() + (f", commit {clean}{dirty}" if commit else "")


def _libraries(made: dict[str, Any]) -> str:
    versions = sorted(made.get("versions", {}).items())
    return ", ".join(f"{name} {version}" for name, version in versions if name != "rose-select")


def _machine(made: dict[str, Any]) -> str:
    machine = made.get("machine", {})
    cores, memory, gpus = machine.get("cores"), machine.get("memory"), machine.get("gpus") or []
    names = [f"{gpus.count(gpu)} × {gpu}" for gpu in dict.fromkeys(gpus)] or ["no GPU in use"]
    size = [f"{memory / 2**30:.0f} GiB of memory"] if isinstance(memory, int) else []
    system = f"{machine.get('system', '?')} {machine.get('vectors', '')}".strip()
    return ", ".join([system, counted(cores or "?", "core"), *size, *names])
