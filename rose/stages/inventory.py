"""What lies under outputs/stages, which job uses it, and how it is removed safely."""

import json
import shutil
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rose.errors import RoseError
from rose.stages import disk, leases, unfinished

ABANDONED_HOURS = 24  # another host's process cannot be asked; one that writes nothing for so long is taken for dead
TRASH = ".trash"


@dataclass(frozen=True)
class Artifact:
    name: str  # stage/label-hash
    path: Path
    users: list[str]  # jobs, as folders relative to outputs
    needed: bool  # by a used artifact that was made from it

    @property
    def orphan(self) -> bool:
        return not self.users and not self.needed


def artifacts(outputs: Path) -> list[Artifact]:
    """Every finished artifact, with the jobs that use it."""
    paths, users = finished(outputs), claims(outputs)
    needed = _upstream(paths, set(users))
    return [Artifact(name, path, users.get(name, []), name in needed) for name, path in paths.items()]


def claims(outputs: Path) -> dict[str, list[str]]:
    """The jobs that use each artifact. RoseError for a job whose record cannot be read."""
    users: dict[str, list[str]] = defaultdict(list)
    for job in jobs(outputs):
        label = str(job.relative_to(outputs) if job.is_relative_to(outputs) else job)
        for name in _used(job):
            users[name].append(label)
    return dict(users)


def jobs(outputs: Path) -> Iterator[Path]:
    """Every job's folder under outputs/, and those elsewhere that `rose.run.record.claim` told of."""
    folders = [path for path in sorted(outputs.iterdir()) if path.is_dir() and path.name not in ("stages", "models")]
    folders += [Path(link.read_text()) for link in sorted(stages_of(outputs).glob(".jobs/*"))]
    while folders:
        folder = folders.pop()
        if any((folder / name).exists() for name in ("status.json", "stages.json", "claims.json")):
            yield folder
        elif folder.is_dir():
            folders += [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]


def garbage(outputs: Path) -> Iterator[tuple[Path, str]]:
    """What may go, and why."""
    for artifact in artifacts(outputs):
        if artifact.orphan:
            yield artifact.path, "no job uses it"
    wanted = claims(outputs)
    for path in sorted(stages_of(outputs).glob("*/.*.part")):
        if reason := _abandoned(path, wanted):
            yield path, reason
    for path in sorted(stages_of(outputs).glob(f"{TRASH}/*")):
        yield path, "left by a gc that was interrupted"
    for job in jobs(outputs):
        for path in sorted([*job.glob(".*"), *job.glob("adapter/.*")]):
            if disk.TEMPORARY.fullmatch(path.name) and hours(path) > 1:
                yield path, "a file that was never finished"


def remove(outputs: Path, paths: list[Path]) -> list[Path]:
    """Removes `paths`, but for what a job has claimed meanwhile. Returns what is gone."""
    aside = {path: place for path in paths if (place := set_aside(outputs, path))}
    users = claims(outputs)
    claimed = set(users) | _upstream(finished(outputs) | {_name(path): aside[path] for path in aside}, set(users))
    for path, place in aside.items():
        if _name(path) in claimed and not path.exists():
            place.replace(path)
        elif place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink()
    return [path for path in paths if not path.exists()]


def set_aside(outputs: Path, path: Path) -> Path | None:
    """Moves `path` away in one step: no reader finds half of it. None if it has gone by itself."""
    trash = stages_of(outputs) / TRASH
    trash.mkdir(exist_ok=True)
    place = path if path.parent == trash else trash / f"{path.parent.name}~{path.name}"
    try:
        return path.replace(place)
    except FileNotFoundError:
        return None


def finished(outputs: Path) -> dict[str, Path]:
    return {_name(path): path for path in sorted(stages_of(outputs).glob("[!.]*/[!.]*"))}


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _used(job: Path) -> set[str]:
    """Names of the artifacts that a job has used, and until it is done of those it is going to use."""
    try:
        stages = json.loads((job / "stages.json").read_text()) if (job / "stages.json").exists() else {}
        claimed = json.loads((job / "claims.json").read_text()) if (job / "claims.json").exists() else []
        return {entry["dir"].removeprefix("stages/") for entry in stages.values()} | set(claimed)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        fault = "stages.json or claims.json is damaged, so that what the job uses is not known"
        raise RoseError(f"{job}: {fault}; run the job again, or remove its folder") from error


def _upstream(paths: dict[str, Path], used: set[str]) -> set[str]:
    """What the artifacts `used` were made from, at any remove."""
    needed: set[str] = set()
    todo = list(used)
    while todo:
        path = paths.get(todo.pop())
        fresh = _inputs(path) - needed if path is not None else set()
        needed |= fresh
        todo += fresh
    return needed


def _inputs(path: Path) -> set[str]:
    """Every text in inputs.json: those that name no artifact do no harm."""
    try:
        todo, texts = [json.loads((path / "inputs.json").read_text())["inputs"]], set()
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = f"python -m rose.stages verify --remove outputs={path.parents[2]}"
        raise RoseError(f"{path}: inputs.json is damaged; remedy: {remedy}") from error
    while todo:
        value = todo.pop()
        todo += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        if isinstance(value, str):
            texts.add(value)
    return texts


def _abandoned(path: Path, wanted: Collection[str]) -> str | None:
    """Why nobody works on a .part directory any more, nor will go on from it."""
    part = unfinished.read(path)
    if part and part.owner.host == unfinished.RELEASED:  # by a job that was stopped in order, and may come back for it
        return None if _name(part.target) in wanted else "left by a job that was stopped"
    if part and part.owner.host == leases.host():
        return f"left by process {part.owner.pid}, which is dead" if part.free else None
    if part and _leased(part.target):
        return None
    idle = min(hours(inside) for inside in (path, *path.rglob("*")))
    return f"another host's, untouched for {idle:.0f} hours" if idle > ABANDONED_HOURS else None


def _leased(target: Path) -> bool:
    """Whether a process computes `target`: one that writes nothing still touches its lease."""
    marker = leases.marker(target)
    with suppress(FileNotFoundError):
        return disk.clock(marker.parent) - marker.stat().st_mtime < leases.LEASE
    return False


def hours(path: Path) -> float:
    return (time.time() - path.lstat().st_mtime) / 3600


def stages_of(outputs: Path) -> Path:
    if not (outputs / "stages").is_dir():
        raise RoseError(f"outputs={outputs}: holds no stages; give the folder that jobs were run with as outputs=")
    return outputs / "stages"
