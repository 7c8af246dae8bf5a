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


def dataset_info(selected: Path) -> dict[str, Any]:
    """How LLaMA-Factory reads selected.jsonl: under the name `selected` in a dataset_info.json beside it."""
    from rose.data import files

    tools = any(row.get("tools") or _calls(row["messages"]) for row in files.load(selected))
    columns = {"messages": "messages"} | ({"tools": "tools"} if tools else {})
    roles = {"user_tag": "user", "assistant_tag": "assistant", "system_tag": "system", "observation_tag": "tool"}
    tags = {"role_tag": "role", "content_tag": "content", **roles, "function_tag": "function_call"}
    # its `openai` reads calls of tools; `sharegpt` is what its documents name for messages without any
    shape = {"formatting": "openai" if tools else "sharegpt", "columns": columns, "tags": tags}
    return {"selected": {"file_name": selected.name, **shape}}


def _calls(messages: list[dict[str, Any]]) -> bool:
    return any(message.get("tool_calls") or message["role"] == "tool" for message in messages)


def collect(directory: Path, stages: dict[str, Path]) -> dict[str, float]:
    """Copies what people look for into the job's folder; returns the metrics.

    Links would let what people do to a job's files reach the stages that other jobs share.
    """
    from rose.data import files
    from rose.evaluation.items import merge_items  # late: the launchers need not wait for pandas

    for name, folder in stages.items():
        target = directory / "adapter" if name == "finetune" else directory
        for path in folder.glob(pattern) if (pattern := KINDS.get(name, Kind()).copied) else ():
            target.mkdir(exist_ok=True)
            replace(target / path.name, partial(shutil.copyfile, path))
    curves = {name: stages[name] / "log.jsonl" for name, kind in KINDS.items() if kind.curve and name in stages}
    texts = {name: file.read_text() for name, file in curves.items() if file.exists()}
    lines = [{"stage": name} | json.loads(line) for name, text in texts.items() for line in text.splitlines()]
    write_lines(directory / "metrics.jsonl", lines)
    of_base = [ZERO_SHOT[name] for name in MEASURES]
    metrics: dict[str, float] = {}
    for name in ("selection", "fidelity", *MEASURES, *of_base):
        if name in stages:
            values = json.loads((stages[name] / "metrics.json").read_text())
            metrics |= {f"{'zero_shot/' * (name in of_base)}{metric}": value for metric, value in values.items()}
    if "pool" in stages:
        metrics["pool_rows"] = files.count(stages["pool"] / "pool.jsonl")
    if "selection" in stages:
        write_json(directory / "dataset_info.json", dataset_info(directory / "selected.jsonl"))
    if "tokens" in stages:
        metrics["pool_rows_dropped"] = files.count(stages["tokens"] / "dropped.jsonl")
    write_json(directory / "metrics.json", metrics)
    for file, names in (("items.parquet", MEASURES), ("zero_shot_items.parquet", of_base)):
        if items := [stages[name] / "items.parquet" for name in names if name in stages]:
            replace(directory / file, merge_items(items).to_parquet)
    return metrics
