"""python -m bench.tables [--write]: the READMEs' tables, made again from experiments/results without a model.

A table stands between `<!-- table FILE: COLUMN … -->` and `<!-- end -->`, FILE a sweep's results.csv
kept as experiments/results/FILE.csv: a row a method, a mean over seeds a column, best first by the
first column. It differs from what is written: exit code 1, and the lines that differ.
"""

import argparse
import difflib
import re
import sys
from pathlib import Path

import pandas

from rose.report.metrics import bounds, lower_is_better
from rose.report.statistics import from_seeds

ROOT = Path(__file__).resolve().parents[1]
READMES = ("README.md", "experiments/README.md")
TABLE = re.compile(r"(<!-- table (\S+): ([^>]+?) -->\n).*?(<!-- end -->)", re.S)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.tables", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the tables instead of comparing them")
    write = parser.parse_args().write
    differences = [line for name in READMES for line in renewed(ROOT / name, write)]
    print("\n".join(differences) or "every table is as its results say")
    sys.exit(bool(differences) and not write)


def renewed(readme: Path, write: bool) -> list[str]:
    """The lines of a README that its tables, made again, would change."""
    text = readme.read_text()
    anew = TABLE.sub(lambda found: f"{found[1]}{table(found[2], found[3].split())}{found[4]}", text)
    if write:
        readme.write_text(anew)
    return [*difflib.unified_diff(text.splitlines(), anew.splitlines(), str(readme), "results", lineterm="", n=0)]


def table(name: str, columns: list[str]) -> str:
    """Markdown, `mean (low–high)` a cell: a report's 95 % interval over the seeds, if there are several."""
    jobs = pandas.read_csv(ROOT / "experiments" / "results" / f"{name}.csv")
    jobs = jobs[jobs.state == "done"]
    means = jobs.groupby("method")[columns].mean()
    order = means.sort_values(columns[0], ascending=lower_is_better(columns[0]), kind="stable").index
    lines = [f"| method | seeds | {' | '.join(columns)} |", f"|---|---:|{'---:|' * len(columns)}"]
    for method in order:
        of = jobs[jobs.method == method]
        cells = " | ".join(cell(of[column].dropna(), column) for column in columns)
        lines.append(f"| {method} | {len(of)} | {cells} |")
    return "\n".join(lines) + "\n"


def cell(values: pandas.Series, column: str) -> str:
    if values.empty:
        return "–"
    mean = from_seeds(values.to_numpy(), bounds(column))
    return f"{mean.mean:.2f} ({mean.low:.2f}–{mean.high:.2f})" if mean.has_interval else f"{mean.mean:.2f}"


if __name__ == "__main__":
    main()
