"""python -m bench.tables [--keep SWEEP …] [--write]: the READMEs' tables, made again without a model.

A table stands between `<!-- table FILE: COLUMN … -->` and `<!-- end -->`, FILE a sweep's results.csv
kept as experiments/results/FILE.csv: a row a method, a mean over seeds a column, best first by the
first column. `<!-- table FILE METHOD …: COLUMN … -->` turns it: a row a column, the methods in that
order; `FILE@KEY` has a row a value of that key instead of a method. It differs from what is written:
exit code 1, and the lines that differ. `--keep` takes the results of a sweep's folder into
experiments/results first, but for what single stages cost.
"""

import argparse
import difflib
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import pandas

from rose.report.metrics import bounds, lower_is_better
from rose.report.statistics import from_seeds

ROOT = Path(__file__).resolve().parents[1]
READMES = ("README.md", "experiments/README.md")
TABLE = re.compile(r"(<!-- table (\S+?)((?: \S+)*): ([^>]+?) -->\n).*?(<!-- end -->)", re.S)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.tables", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the tables instead of comparing them")
    parser.add_argument("--keep", metavar="SWEEP", type=Path, nargs="+", default=[], help="a sweep's folder")
    arguments = parser.parse_args()
    for sweep in arguments.keep:
        keep(sweep)
    differences = [line for name in READMES for line in renewed(ROOT / name, arguments.write)]
    print("\n".join(differences) or "every table is as its results say")
    sys.exit(bool(differences) and not arguments.write)


def keep(sweep: Path) -> None:
    jobs = pandas.read_csv(sweep / "results.csv")
    columns = [name for name in jobs if name not in ("result", "job") and name.count("/") < 2]
    jobs[columns].to_csv(ROOT / "experiments" / "results" / f"{sweep.resolve().name}.csv", index=False)


def renewed(readme: Path, write: bool) -> list[str]:
    """The lines of a README that its tables, made again, would change."""
    text = readme.read_text()
    anew = TABLE.sub(lambda it: f"{it[1]}{table(it[2], it[3].split(), it[4].split())}{it[5]}", text)
    if write:
        readme.write_text(anew)
    return [*difflib.unified_diff(text.splitlines(), anew.splitlines(), str(readme), "results", lineterm="", n=0)]


def table(name: str, methods: list[str], columns: list[str]) -> str:
    """Markdown, `mean (low–high)` a cell: a report's 95 % interval over the seeds, if there are several."""
    file, _, key = name.partition("@")
    jobs = pandas.read_csv(ROOT / "experiments" / "results" / f"{file}.csv")
    rows = jobs[jobs.state == "done"].groupby(key or "method")
    cells = {row: [cell(of[column].dropna(), column) for column in columns] for row, of in rows}
    if methods:
        return markdown(["", *methods], zip(columns, *(cells[method] for method in methods), strict=True))
    order = rows[columns[0]].mean().sort_values(ascending=lower_is_better(columns[0]), kind="stable").index
    seeds = rows.size()
    return markdown([key or "method", "seeds", *columns], ([str(row), str(seeds[row]), *cells[row]] for row in order))


def markdown(header: list[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |\n" for cells in (header, *rows)]
    return "".join([lines[0], f"|---|{'---:|' * (len(header) - 1)}\n", *lines[1:]])


def cell(values: pandas.Series, column: str) -> str:
    if values.empty:
        return "–"
    mean = from_seeds(values.to_numpy(), bounds(column))
    return f"{mean.mean:.2f} ({mean.low:.2f}–{mean.high:.2f})" if mean.has_interval else f"{mean.mean:.2f}"


if __name__ == "__main__":
    main()
