"""How much of the whole pool's selection the candidates still hold, where a sweep has both."""

from contextlib import suppress
from dataclasses import replace

import pyarrow
import pyarrow.parquet

from rose.report.results import JobRecord
from rose.report.selections import front

RECALL = "candidates_recall"


def with_recall(jobs: list[JobRecord]) -> list[JobRecord]:
    """The jobs, those with candidates with a metric more, where the same job without is there too."""
    whole = [job for job in jobs if not job.value("candidates.method.name")]
    return [replace(job, metrics=job.metrics | _recall(job, whole)) for job in jobs]


def _recall(job: JobRecord, whole: list[JobRecord]) -> dict[str, float]:
    """The share of the rows that the job without candidates selects which were candidates; {} where it is not known."""
    if not job.value("candidates.method.name"):
        return {}
    with suppress(ValueError, KeyError, OSError, ZeroDivisionError, pyarrow.ArrowException):
        for other in whole:
            if _but_for_candidates(other) == _but_for_candidates(job):
                with open(other.dir / "selected.jsonl", encoding="utf-8") as file:
                    selected = {front(line)[0] for line in file}
                table = pyarrow.parquet.read_table(job.dir / "scores.parquet", columns=["id", "candidate"]).to_pandas()
                return {RECALL: len(selected & set(table["id"][table["candidate"]])) / len(selected)}
    return {}


def _but_for_candidates(job: JobRecord) -> tuple[dict, str]:
    return {name: value for name, value in job.config.items() if name != "candidates"}, job.directory("pool")
