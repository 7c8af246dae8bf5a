"""The hub's cards of a selection and of the adapter that was trained on it: what is known of them, and from where."""

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import pyarrow.parquet
from huggingface_hub import DatasetCard, DatasetCardData, EvalResult, ModelCard, ModelCardData

from rose.data import files
from rose.report.item_tables import Items
from rose.report.metrics import MORE, QUALITY, SELECTION, bounds, stands_for
from rose.report.origin import code
from rose.report.results import BASE, JobRecord
from rose.report.statistics import NOTHING, Estimate, from_items
from rose.report.text import interval, number, printable
from rose.run.licences import Licensed
from rose.run.names import PLACE

HERE = Path(__file__).parent
TAGS = ["rose", "data-selection"]
LICENCE_ID = re.compile(r"[a-z0-9][a-z0-9.-]*")  # as the hub spells them; others are text for people
PRIVATE = (*PLACE, "judge.base_url", "judge.cache", "judge.key_variable")  # of a command: this machine's, and no result
METHOD_KEYS = ("representation", "target", "estimator", "rule", "lesson")


class Measured(NamedTuple):
    metric: str
    job: Estimate
    base: Estimate  # the base model's

    @property
    def value(self) -> str:
        return interval(self.job)


def dataset_card(job: JobRecord, repo: str, licences: Sequence[Licensed]) -> DatasetCard:
    rows = sum(each.rows for each in licences)
    data = DatasetCardData(
        license=_identifiers(licences),
        size_categories=_size(rows),
        task_categories=["text-generation"],
        tags=[*TAGS, "sft"],
        pretty_name=repo.rpartition("/")[2],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "selected.jsonl"}]}],
    )
    checks = json.loads(path.read_text()) if (path := job.dir / "diagnostics.json").exists() else []
    return DatasetCard.from_template(
        data,
        str(HERE / "dataset_card.md.jinja"),
        rows=rows,
        licences=[_cells(each.source, ", ".join(each.licences), each.said_by, each.rows) for each in licences],
        scored=_scored(job),
        numbers=[(name, number(job.metrics[name])) for name in _of(job, SELECTION)],
        planted=sum("planted" in row for row in files.load(job.dir / "selected.jsonl")),
        checks=[(check["state"], printable(check["sentence"])) for check in checks],
        **_common(job, repo),
    )


def model_card(job: JobRecord, repo: str, licences: Sequence[Licensed], base_model: str | None) -> ModelCard:
    name, revision = base_of(job, base_model)
    measured = _measured(job)
    data = ModelCardData(
        base_model=name,
        library_name="peft",
        pipeline_tag="text-generation",
        datasets=[repo] if licences else None,
        tags=[*TAGS, "lora"],
        model_name=repo,
        eval_results=[_result(job, each) for each in measured] or None,
    )
    lora = json.loads((job.dir / "adapter" / "adapter_config.json").read_text())
    sources = [_cells(each.source, ", ".join(each.licences), each.rows) for each in licences]
    where = {"base": name, "revision": revision, "lora": lora, "sources": sources}
    own = "" if name else printable(str(job.value("student.name") or job.value("model.name")))
    return ModelCard.from_template(data, str(HERE / "model_card.md.jinja"), own_base=own, **where, **_common(job, repo))


def base_of(job: JobRecord, told: str | None) -> tuple[str | None, str | None]:
    """The fine-tuned model's id on the hub and its revision, `told` or as the job has it; None where it has none."""
    model = "student" if job.value("student.name") else "model"
    path, revision = job.value(f"{model}.base.path"), job.value(f"{model}.base.revision")
    if told:
        return told, revision
    copied = re.fullmatch(r"\$\{rose\.local_or_hub:.*,([\w.-]+/[\w.-]+)\}", str(path))
    name = copied[1] if copied else path
    on_hub = name and re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)) and not Path(str(name)).exists()
    return (str(name), revision) if on_hub else (None, None)


def _common(job: JobRecord, repo: str) -> dict[str, Any]:
    method = {key: job.value(f"method.{key}") for key in METHOD_KEYS}
    return {
        "repo": repo,
        "method": printable(str(job.value("method.name"))),
        "settings": {key: value for key, value in method.items() if value not in (None, "none")},
        "pool": printable(str(job.value("dataset.name"))),
        "pairs": printable(str(job.value("preference.name"))),
        "selector": printable(str(job.value("model.name"))),
        "seed": job.value("seed"),
        "measured": [(each.metric, each.value, interval(each.base)) for each in _measured(job)],
        "prompts": max((each.job.prompts for each in _measured(job)), default=0),
        "command": command(job),
        "made_by": code(job.provenance),
    }


def command(job: JobRecord) -> str:
    """What to run for the same, without what only says where and how on this machine."""
    keys = [text.lstrip("+~").partition("=")[0] for text in job.overrides]
    kept = [
        text
        for key, text in zip(keys, job.overrides, strict=True)
        if not any(key == name or key.startswith(f"{name}.") for name in PRIVATE)
    ]
    return printable(shlex.join(["rose", *kept])).replace("\n", " ")


def _measured(job: JobRecord) -> list[Measured]:
    """What the model is measured by, with an interval where each item has a value; the base model's beside it."""
    items = Items()
    tables = [items.read(job.dir / name) for name in ("items.parquet", "zero_shot_items.parquet")]
    found = []
    for name in _of(job, (*QUALITY, *MORE)):
        both = [job.metrics.get(f"{prefix}{name}") for prefix in ("", BASE)]
        own, base = (_estimate(table, name, value) for table, value in zip(tables, both, strict=True))
        found.append(Measured(name, own, base))
    return found


def _of(job: JobRecord, entries: Sequence[str]) -> list[str]:
    """The job's metrics that the entries stand for, in their order."""
    return list(dict.fromkeys(name for entry in entries for name in job.metrics if stands_for(entry, name)))


def _estimate(table: Any, metric: str, value: float | None) -> Estimate:
    if metric in table:
        prompts = table.index.get_level_values(0)
        return from_items(table[metric].to_numpy()[None], numpy.unique(prompts, return_inverse=True)[1], bounds(metric))
    return NOTHING if value is None else Estimate(1, 0, value)


def _result(job: JobRecord, measured: Measured) -> EvalResult:
    of_tasks = measured.metric.startswith("accuracy_")
    tested = str(job.value("tasks.name" if of_tasks else "preference.name"))
    value = measured.value if measured.job.has_interval else number(measured.job.mean)
    return EvalResult(
        task_type="text-generation",
        dataset_type=tested,
        dataset_name=tested,
        metric_type=measured.metric,
        metric_name=measured.metric,
        metric_value=value,
    )


def _scored(job: JobRecord) -> int | None:
    """How many rows of the pool were ranked."""
    path = job.dir / "scores.parquet"
    return pyarrow.parquet.read_metadata(path).num_rows if path.exists() else None


def _identifiers(licences: Sequence[Licensed]) -> list[str]:
    """For the hub's own field: as given where that is a name of its kind, else `other`."""
    names = {name if LICENCE_ID.fullmatch(name) else "other" for each in licences for name in each.licences}
    return sorted(names)


def _size(rows: int) -> str:
    """The hub's name for so many rows."""
    steps = [(10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M")]
    return next((name for limit, name in steps if rows < limit), "n>10M" if rows >= 10**9 else "10M<n<100M")


def _cells(*values: object) -> list[str]:
    """Other people's texts in a table's row."""
    return [printable(str(value)).replace("|", "\\|").replace("\n", " ") for value in values]
