"""A sweep's jobs on disk as one table: a row a job, then the base model's (`method=zero_shot`)."""

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas
from omegaconf import OmegaConf

from rose.errors import RoseError, one_line
from rose.stages.kinds import MEASURES, ZERO_SHOT, own_cost, part_of

StageEntry = dict[str, Any]  # of stages.json: "dir", "state" (computed, reused) and what it cost
# Naming column → the configuration key it shows; a group's own name is enough to identify it.
NAMING = {
    "method": "method.name",
    "model": "model.name",
    "dataset": "dataset.name",
    "preference": "preference.name",
    "projection": "projection.kind",
    "ratio": "selection.ratio",
    "seed": "seed",
}
SOME_HAVE = {"student": "student.name", "candidates": "candidates.method.name"}  # likewise, where any job does
BASE = "zero_shot/"  # before the base model's metrics
REFERENCE = re.compile(r"\$\{(?P<dots>\.*)(?P<key>\w[\w.]*)\}")  # to another key: `${seed}`, `${..path}`
MOST_FOLLOWED = 10


@dataclass(frozen=True)
class JobRecord:
    """What a job's directory says; files that are missing or unreadable leave their part empty."""

    dir: Path
    config: dict[str, Any]  # as it is written: nothing in it is resolved by whoever reads it
    choices: dict[str, str]  # configuration group → the option chosen
    overrides: list[str]
    state: str  # running | done | failed; missing (no status.json), unreadable (a file is broken)
    error: str
    metrics: dict[str, float]
    stages: dict[str, StageEntry]
    provenance: dict[str, Any] = field(default_factory=dict)  # of `rose.run.provenance`; older jobs have none
    place: int = 0  # in the sweep, as its command line has it; 0 of all where that is not known

    def directories(self, *names: str) -> list[str]:
        """Of those of these stages that the job has, as they stand in stages.json."""
        return [str(self.stages[name]["dir"]) for name in names if "dir" in self.stages.get(name, {})]

    def directory(self, *names: str) -> str:
        """The first of these; "" without."""
        return next(iter(self.directories(*names)), "")

    def stage(self, name: str) -> Path | None:
        """The directory of a stage; None where the job has none or it is gone."""
        folder = self.directory(name)
        root = next((parent for parent in self.dir.absolute().parents if (parent / "stages").is_dir()), None)
        return root / folder if folder and root and (root / folder).is_dir() else None

    def value(self, key: str) -> Any:
        """The value of a configuration key, or the option chosen for a group, or None."""
        value = self.choices[key] if key in self.choices else _referred(self.config, key)
        return value if isinstance(value, bool | int | float | str | None) else str(value)


def unresolved(text: str) -> Any:
    """A file of somebody's configuration as plain values, `${…}` in it as text.

    A resolver would read this machine for them: the environment of whoever makes the report, say.
    """
    return OmegaConf.to_container(OmegaConf.create(text), resolve=False)


def _referred(config: dict[str, Any], key: str, followed: int = 0) -> Any:
    """The value of a key; where it is another key's, as `${seed}`, that one's. None without."""
    names = key.split(".")
    value: Any = config
    for place, name in enumerate(names, start=1):
        value = value.get(name) if isinstance(value, dict) else None
        other = REFERENCE.fullmatch(value) if isinstance(value, str) else None
        if other and followed < MOST_FOLLOWED:
            parents = names[: place - len(other["dots"])] if other["dots"] else []
            value = _referred(config, ".".join([*parents, other["key"]]), followed + 1)
    return None if value == "???" else value


def read_jobs(sweep: Path) -> list[JobRecord]:
    """The jobs in the folder `sweep`, which may be a job's own directory, by directory name.

    Each knows its place in the sweep.

    Raises RoseError where there is no such folder or no job in it.
    """
    if not sweep.is_dir():
        raise RoseError(f"{sweep}: no such folder; a sweep's is outputs/sweeps/NAME")
    if _is_job(sweep):
        places = {sweep: 0}
    elif (names := announced(sweep).get("jobs")) is not None:
        places = {sweep / name: place for place, name in reversed(list(enumerate(names)))}
    else:
        places = dict.fromkeys(filter(_is_job, sweep.iterdir()), 0)
    if not places:
        raise RoseError(f"{sweep}: holds no job (a directory with .hydra/ or status.json); a sweep's does")
    return [_read_job(directory, places[directory]) for directory in sorted(places)]


def announced(sweep: Path) -> dict[str, Any]:
    """What the last command that ran this sweep wrote down: its question, its jobs (null: a search) and itself."""
    path = sweep / "sweep.json"
    return json.loads(path.read_text()) if path.exists() else {}


def tabulate(jobs: list[JobRecord]) -> pandas.DataFrame:
    """One row a job: swept keys, naming columns, `state`, metrics; then the zero-shot rows.

    Ordered by the naming columns and the swept keys; same jobs, same table.
    """
    columns = naming_columns(jobs)
    named, last = [*columns, "state"], ["result", "job"]
    rows = [_row(job, columns) for job in jobs]
    zero_shot = _zero_shot_rows(jobs, columns)
    metrics = sorted({name for row in (*rows, *zero_shot) for name in row} - {*named, *last})
    order = ["model", "dataset", "preference", "projection", "method", "ratio", *columns]
    for part in (rows, zero_shot):
        part.sort(key=lambda row: [_sortable(row.get(name)) for name in order])
    frame = pandas.DataFrame([*rows, *zero_shot], columns=[*named, *metrics, *last], dtype=object)
    return frame.convert_dtypes()


def naming_columns(jobs: list[JobRecord]) -> list[str]:
    """The swept keys, `student` and `candidates` where any job has them, and NAMING's."""
    some = [name for name, key in SOME_HAVE.items() if any(job.value(key) for job in jobs)]
    return [*swept_keys(jobs), *some, *NAMING]


def swept_keys(jobs: list[JobRecord]) -> list[str]:
    """The overridden keys and groups, NAMING's aside, whose value differs between jobs."""
    overrides = [entry for job in jobs for entry in job.overrides]
    keys = dict.fromkeys(entry.lstrip("+~").split("=")[0] for entry in overrides)
    named = {*NAMING, *NAMING.values(), "model@student", "method@candidates.method", *SOME_HAVE, *SOME_HAVE.values()}
    return [key for key in keys if key not in named and len({job.value(key) for job in jobs}) > 1]


def costs(stages: dict[str, StageEntry]) -> dict[str, float]:
    """`cost/<kind>/<what>` of all stages of a kind, `reused` (0 or 1) too, and `cost/<what>` of the method.

    All that finds an expensive method's candidates is of one kind, `candidates`.
    The latter is what the method's own stages, selection and fine-tuning included, cost when each
    was computed, by whichever job; memory is the greatest of them. Reused is what was reused as a
    whole.
    """
    parts: dict[str, list[float]] = defaultdict(list)
    for name, stage in stages.items():
        for key in stage.keys() - {"dir", "state"}:
            parts[f"cost/{part_of(name)}/{key}"].append(stage[key])
            if own_cost(name):
                parts[f"cost/{key}"].append(stage[key])
        if "state" in stage:
            parts[f"cost/{part_of(name)}/reused"].append(float(stage["state"] == "reused"))
    merge = {"peak_memory": max, "reused": min}
    return {name: merge.get(name.rpartition("/")[2], sum)(values) for name, values in parts.items()}


def _row(job: JobRecord, columns: list[str], of_base: bool = False) -> dict[str, Any]:
    """The row of a job's model, or of the base model that it was measured against."""
    row = {name: job.value((NAMING | SOME_HAVE).get(name, name)) for name in columns}
    if "student" in row:
        row["student"] = job.value("student.name") or row["model"]
    if of_base:
        row |= {"method": "zero_shot", "projection": None, "ratio": None}
        row |= {"candidates": None} if "candidates" in row else {}
    if "student" in row and row["method"] == "zero_shot":
        row["model"] = None  # nothing was selected: such a row measures the student
    stages = [ZERO_SHOT[name] if of_base else name for name in MEASURES]
    row |= {"state": "done" if of_base else job.state, "result": " ".join(job.directories(*stages)) or None}
    metrics = {name: value for name, value in job.metrics.items() if name.startswith(BASE) is of_base}
    return row | {name.removeprefix(BASE): value for name, value in metrics.items()} | {"job": job.dir.name}


def _zero_shot_rows(jobs: list[JobRecord], columns: list[str]) -> list[dict[str, Any]]:
    """One row per model, dataset, preference, seed and outcome.

    Swept keys that made no difference stay blank. Where a job of method=zero_shot is that row
    itself, there is no second one.
    """
    asked = [name for name in ("model", "student", "dataset", "preference", "seed") if name in columns]
    of_base = [_row(job, columns) for job in jobs if job.value("method.name") == "zero_shot"]
    there = {tuple(row[name] for name in asked) for row in of_base}
    groups: dict[tuple, list[dict[str, Any]]] = defaultdict(list)
    for job in jobs:
        row = _row(job, columns, of_base=True)
        setting = tuple(row[name] for name in asked)
        metrics = [(name, value) for name, value in job.metrics.items() if name.startswith(BASE)]
        if metrics and setting not in there:
            groups[*setting, *sorted(metrics)].append(row)
    return [
        {name: value for name, value in first.items() if name == "job" or all(row[name] == value for row in others)}
        for first, *others in groups.values()
    ]


def _sortable(value: Any) -> tuple[int, float, str]:
    if value is None:
        return (0, 0.0, "")
    return (1, float(value), "") if isinstance(value, int | float) else (2, 0.0, str(value))


def _is_job(path: Path) -> bool:
    return path.is_dir() and ((path / ".hydra").is_dir() or (path / "status.json").is_file())


def _read_job(directory: Path, place: int) -> JobRecord:
    errors = []

    def read(name: str, parse: Any, default: Any) -> Any:
        path = directory / name
        try:
            value = parse(path.read_text()) if path.exists() else default
            if not isinstance(value, type(default)):
                raise ValueError(f"holds a {type(value).__name__}, not a {type(default).__name__}")
            return value
        except Exception as error:  # one broken file must not hide the other jobs
            errors.append(f"{name} cannot be read: {one_line(error)}")
            return default

    hydra = read(".hydra/hydra.yaml", unresolved, {})
    choices = _referred(hydra, "hydra.runtime.choices")
    status = read("status.json", json.loads, {"state": "missing"})
    config = read(".hydra/config.yaml", unresolved, {})
    overrides = read(".hydra/overrides.yaml", unresolved, [])
    stages = read("stages.json", json.loads, {})
    metrics = read("metrics.json", json.loads, {}) | costs(stages)
    provenance = read("provenance.json", json.loads, {})
    return JobRecord(
        dir=directory,
        config=config,
        choices={str(group): str(option) for group, option in choices.items()} if isinstance(choices, dict) else {},
        overrides=[str(override) for override in overrides],
        state="unreadable" if errors else status.get("state", "unreadable"),
        error=errors[0] if errors else status.get("error") or "",
        metrics=metrics,
        stages=stages,
        provenance=provenance,
        place=place,
    )
