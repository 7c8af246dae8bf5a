"""The last words of a single job: its numbers beside the base model's, its folder, and what may come next."""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rose.report.metrics import HEADLINE, MORE, stands_for
from rose.report.text import number
from rose.stages.__main__ import columns

BASE = "zero_shot/"
ALONE = ("method", "seed", "until", "dry_run", "name", "objective")  # what the sweep below says by itself, or anew


def ending(directory: Path, overrides: Sequence[str]) -> str:
    """`overrides`: the job's command line, which the sweep that is proposed goes on with."""
    metrics = json.loads((directory / "metrics.json").read_text())
    shown = [name for entry in (*HEADLINE, *MORE) for name in metrics if stands_for(entry, name)]
    parts = [_table(metrics, list(dict.fromkeys(shown)))] if shown else []
    parts.append(f"{directory}: metrics.json has all {len(metrics)} numbers" if metrics else str(directory))
    return "\n\n".join([*parts, _next(directory, overrides)])


def _table(metrics: dict[str, float], names: list[str]) -> str:
    """A metric a row; the base model's beside it where it was measured."""
    of_base = any(f"{BASE}{name}" in metrics for name in names)
    rows = [["metric", "this job", *["zero_shot"] * of_base]]
    for name in names:
        base = metrics.get(f"{BASE}{name}")
        rows.append([name, number(metrics[name]), *["" if base is None else number(base)] * of_base])
    return columns(rows)


def _next(directory: Path, overrides: Sequence[str]) -> str:
    """Commands that one is likely to want."""
    program = "python -m rose" if sys.argv[0].endswith("__main__.py") else "rose"
    lines = []
    if (directory / "selected.jsonl").exists():
        lines.append(["the best rows:", f"head -n 3 {shlex.quote(f'{directory}/selected.jsonl')}"])
    lines.append(["a report of this job:", f"{program} report {shlex.quote(str(directory))}"])
    if any(text.lstrip("+").startswith(("method.", "candidates")) for text in overrides):
        return columns(lines)  # they are this method's: with them random is refused, or draws from its candidates
    method = next((text.partition("=")[2] for text in overrides if text.startswith("method=")), "rose")
    methods = method if method == "random" else f"{method},random"
    rest = shlex.join(text for text in overrides if text.lstrip("+~").partition("=")[0] not in ALONE)
    sweep = f"{program} -m method={methods} seed=0,1,2 {rest}".rstrip()
    lines.append(["is it better than chance?", sweep])
    return columns(lines)
