"""What a job leaves in its own folder: its state, what it uses, and its results."""

import hashlib
import json
import logging
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from rose.stages.disk import replace, write_json, write_lines
from rose.stages.kinds import KINDS, MEASURES, ZERO_SHOT, Kind

log = logging.getLogger(__name__)


def say(directory: Path, state: str, error: str | None = None) -> None:
    """Writes status.json; where the disk takes no more, the log has to do."""
    try:
        write_json(directory / "status.json", {"state": state, "error": error})
    except OSError as full:
        log.error("%s: status.json cannot be written (%s); it should say %s", directory.name, full.strerror, state)


def state(directory: Path) -> str:
    """running, done or failed; missing where status.json does not say."""
    with suppress(OSError, ValueError):
        return json.loads((directory / "status.json").read_text())["state"]
    return "missing"


def claim(directory: Path, outputs: Path, names: list[str]) -> None:
    """Says, until the job is done, which stages it will use: `rose.stages gc` leaves them."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "claims.json", names)
    if not directory.resolve().is_relative_to(outputs.resolve()):  # gc looks for jobs in there
        address = outputs / "stages" / ".jobs" / hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:12]
        address.parent.mkdir(parents=True, exist_ok=True)
        address.write_text(str(directory.resolve()))


def collect(directory: Path, stages: dict[str, Path]) -> dict[str, float]:
    """Copies what people look for into the job's folder; returns the metrics.

    Links would let what people do to a job's files reach the stages that other jobs share.
    """
    from rose.evaluation.items import merge_items  # late: the launchers need not wait for pandas

    for name, folder in stages.items():
        target = directory / "adapter" if name == "finetune" else directory
        for path in folder.glob(pattern) if (pattern := KINDS.get(name, Kind()).copied) else ():
            target.mkdir(exist_ok=True)
            replace(target / path.name, partial(shutil.copyfile, path))
    write_lines(directory / "metrics.jsonl", _curves(stages))
    metrics = _metrics(stages)
    write_json(directory / "metrics.json", metrics)
    for prefix in ("", "zero_shot_"):
        items = [stages[name] / "items.parquet" for name in _evaluating(prefix) if name in stages]
        if items:
            replace(directory / f"{prefix}items.parquet", merge_items(items).to_parquet)
    return metrics


def _curves(stages: dict[str, Path]) -> list[dict[str, Any]]:
    files = {name: stages[name] / "log.jsonl" for name, kind in KINDS.items() if kind.curve and name in stages}
    texts = {name: file.read_text() for name, file in files.items() if file.exists()}
    return [{"stage": name} | json.loads(line) for name, text in texts.items() for line in text.splitlines()]


def _metrics(stages: dict[str, Path]) -> dict[str, float]:
    sources = dict.fromkeys(["selection", "fidelity", *_evaluating("")], "")
    sources |= dict.fromkeys(_evaluating("zero_shot_"), "zero_shot/")
    metrics = {}
    for stage, prefix in sources.items():
        if stage in stages:
            values = json.loads((stages[stage] / "metrics.json").read_text())
            metrics |= {prefix + name: value for name, value in values.items()}
    return metrics


def _evaluating(prefix: str) -> list[str]:
    """The stages that measure the fine-tuned model, or with the prefix `zero_shot_` the base model."""
    return [ZERO_SHOT[name] if prefix else name for name in MEASURES]
