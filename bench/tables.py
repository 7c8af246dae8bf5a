"""python -m bench.tables [--keep SWEEP …] [--write]: the READMEs' tables, made again without a model.

A table stands between `<!-- table FILE: METRIC … -->` and `<!-- end -->`, FILE a sweep's results.csv
kept as experiments/results/FILE.csv: a row a method, a mean over seeds a column, best first by the
first metric. `<!-- table FILE METHOD …: METRIC … -->` turns it: a row a metric, the methods in that
order. `FILE@KEY` has a row a value of that key instead, of the named methods' jobs alone,
`FILE@KEY,KEY/ACROSS` a row a metric and combination of values, and a column a value of the key ACROSS;
`FILE+FILE@KEY,KEY` a row a combination, of the jobs of two sweeps. The metric `cost/flops/METHOD` is the FLOPs in
units of that method's, as it comes, with the same seed.
`<!-- differences FILE REFERENCE: METRIC … -->` is likewise a table, of what other methods have above
one, paired by test prompt; seeds × items stand beside them.
`<!-- figure FILE@KEY,KEY/ACROSS METHOD …: METRIC -->` draws into the image of the next line; where ACROSS
is a cost, the metric against it, and the Pareto front.

Where anything differs from what is written: exit code 1, and the lines that differ. So do two-digit
figures in the prose of a section with tables that none of them has. `--keep` takes the results of a
sweep's folder into experiments/results first, but for what single stages cost, and with `--items`
what each test pair was worth, for differences.
"""

import argparse
import difflib
import math
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import pandas
from pandas.api.typing import DataFrameGroupBy

from rose.report.comparison import compare
from rose.report.metrics import MARGINS, bounds, lower_is_better
from rose.report.results import read_jobs
from rose.report.statistics import from_items, from_seeds

ROOT = Path(__file__).resolve().parents[1]
READMES = ("README.md", "experiments/README.md")
TABLE = re.compile(r"(<!-- (table|differences) (\S+?)((?: \S+)*): ([^>]+?) -->\n).*?(<!-- end -->)", re.S)
FIGURE = re.compile(r"<!-- figure (\S+?)((?: \S+)*): (\S+) -->\n!\[[^]]*\]\(([^)]+)\)")
ITEM_METRICS = [*MARGINS, "preference_accuracy", "chosen_loss"]
NUMBER = re.compile(r"(?<![\d.])\d*\.\d\d(?!\.?\d)")
ASIDE = re.compile(r"`[^`]*`|\([^() ]+\)|<!--.*?-->", re.S)  # code, links and comments say no results


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.tables", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the tables instead of comparing them")
    parser.add_argument("--keep", metavar="SWEEP", type=Path, nargs="+", default=[], help="a sweep's folder")
    parser.add_argument("--items", action="store_true", help="keep what each test pair was worth, too")
    arguments = parser.parse_args()
    for sweep in arguments.keep:
        keep(sweep, arguments.items)
    differences = [line for name in READMES for line in renewed(ROOT / name, arguments.write)]
    print("\n".join(differences) or "every table is as its results say")
    sys.exit(bool(differences) and not arguments.write)


def keep(sweep: Path, items: bool = False) -> None:
    jobs = pandas.read_csv(sweep / "results.csv")
    columns = [name for name in jobs if name not in ("result", "job") and name.count("/") < 2]
    kept = ROOT / "experiments" / "results" / sweep.resolve().name
    jobs[columns].to_csv(f"{kept}.csv", index=False)
    if items:
        runs = [((arm.method, of), run) for arm in compare(read_jobs(sweep)).arms for of, run in arm.runs.items()]
        of = dict(runs)
        if len(of) < len(runs):
            sys.exit(f"{sweep}: a method has several settings there; --items tells methods and seeds apart alone")
        tables = {key: result.items.filter(ITEM_METRICS) for key, result in of.items() if len(result.items)}
        both = pandas.concat({(method, " ".join(seeds)): table for (method, seeds), table in tables.items()})
        both.rename_axis(["method", "seed", "prompt", "item"]).astype("float32").to_parquet(f"{kept}.items.parquet")


def renewed(readme: Path, write: bool) -> list[str]:
    """The lines of a README and its figures that would change, were they made again."""
    text = readme.read_text()
    make = {"table": table, "differences": differences}
    anew = TABLE.sub(lambda it: f"{it[1]}{make[it[2]](it[3], it[4].split(), it[5].split())}{it[6]}", text)
    changed = [*difflib.unified_diff(text.splitlines(), anew.splitlines(), str(readme), "results", lineterm="", n=0)]
    figures = {readme.parent / it[4]: figure(it[1], it[2].split(), it[3]) for it in FIGURE.finditer(text)}
    for path, svg in figures.items():
        if not path.exists() or path.read_text() != svg:
            changed.append(f"{path} is not as its results draw it")
    if write:
        readme.write_text(anew)
        for path, svg in figures.items():
            path.write_text(svg)
    return [*changed, *unfounded(anew, readme)]


def unfounded(text: str, readme: Path) -> list[str]:
    """Figures in the prose of sections with tables, a line each, that none of the section's tables has."""
    lines = []
    for section in re.split(r"^(?=#)", text, flags=re.M):
        tables = " ".join(it[0] for it in TABLE.finditer(section))
        known = {float(number) for number in NUMBER.findall(tables)}
        prose = ASIDE.sub("", TABLE.sub("", section))
        unknown = [number for number in NUMBER.findall(prose) if float(number) not in known]
        if tables and unknown:
            lines.append(f"{readme}, {section.splitlines()[0]!r}: no table has {', '.join(unknown)}")
    return lines


def results(name: str, methods: list[str]) -> tuple[pandas.DataFrame, list[str], str]:
    """The finished jobs of FILE@KEY,KEY/ACROSS, of `methods` if any are named; its keys; what goes across."""
    files, _, keys = name.partition("@")
    rows, _, across = keys.partition("/")
    tables = [pandas.read_csv(ROOT / "experiments" / "results" / f"{file}.csv") for file in files.split("+")]
    jobs = pandas.concat(tables)
    jobs = jobs[jobs.state == "done"]
    if len(tables) > 1:  # what both have counts once
        jobs = jobs.drop_duplicates(list({*rows.split(","), "method", "seed"}))
    if methods:
        jobs = jobs[jobs.method.isin(methods)]
        jobs["method"] = pandas.Categorical(jobs.method, methods)  # groups come in that order
    return jobs, rows.split(",") if rows else ["method"], across


def table(name: str, methods: list[str], columns: list[str]) -> str:
    """Markdown, `mean (low–high)` a cell: a report's 95 % interval over the seeds, if there are several."""
    jobs, keys, across = results(name, methods)
    if across:
        return crossed(jobs, keys, across, columns)
    jobs = with_shares(jobs, keys, columns)
    rows = combinations(jobs, keys)
    cells = {row: [cell(of[column].dropna(), column) for column in columns] for row, of in rows}
    if methods and keys == ["method"]:
        return markdown(["", *methods], zip(columns, *(cells[(method,)] for method in methods), strict=True))
    means, seeds = rows[columns[0]].mean(), rows.size()
    order = means.sort_values(ascending=lower_is_better(columns[0]), kind="stable").index
    of = {row: row if len(keys) > 1 else (row,) for row in order}
    return markdown(
        [*keys, "seeds", *columns],
        ([*map(shown, of[row]), str(seeds[row]), *cells[of[row]]] for row in order),
    )


def combinations(jobs: pandas.DataFrame, keys: list[str]) -> DataFrameGroupBy:
    """The jobs by what they have of several keys; what is not set is blank."""
    blank = jobs[keys].astype(object).where(jobs[keys].notna(), "")
    return jobs.assign(**{key: blank[key] for key in keys}).groupby(keys, sort=False)


def with_shares(jobs: pandas.DataFrame, keys: list[str], columns: list[str]) -> pandas.DataFrame:
    """The jobs with what of `columns` is a cost in units of a method's, whose other keys are not set."""
    for column in (each for each in columns if each.startswith("cost/") and each.count("/") == 2):
        cost, _, method = column.rpartition("/")
        others = jobs[[key for key in keys if key != "method"]].isna().all(axis=1)
        unit = jobs[(jobs.method == method) & others].set_index("seed")[cost]
        jobs = jobs.assign(**{column: jobs[cost] / jobs["seed"].map(unit)})
    return jobs


def crossed(jobs: pandas.DataFrame, keys: list[str], across: str, columns: list[str]) -> str:
    """A row a metric and combination of `keys`, a column a value of `across`."""
    values = sorted(jobs[across].dropna().unique())
    rows = [
        [column, *map(shown, key), *(cell(of.loc[of[across] == value, column].dropna(), column) for value in values)]
        for column in columns
        for key, of in jobs.dropna(subset=[across]).groupby(keys, observed=True, dropna=False)
    ]
    return markdown(["", *keys, *map(shown, values)], rows)


def differences(name: str, references: list[str], columns: list[str]) -> str:
    """Markdown, `mean (low–high)` a cell: methods less the reference, over seeds and test prompts that both have."""
    items = pandas.read_parquet(ROOT / "experiments" / "results" / f"{name}.items.parquet")
    (reference,) = references
    of = {method: table.droplevel("method") for method, table in items.groupby(level="method")}
    rows = []
    for method in (each for each in of if each not in (reference, "zero_shot")):
        less = (of[method] - of[reference]).dropna(how="all")
        rows.append([f"{method} − {reference}", *(paired(less[column], column) for column in columns)])
    return markdown(["", *columns], rows)


def paired(values: pandas.Series, column: str) -> str:
    table = values.unstack("seed")
    least, most = bounds(column)
    mean = from_items(
        table.to_numpy().T, table.index.get_level_values("prompt").to_numpy(), (least - most, most - least)
    )
    low, middle, high = (two(value, "+") for value in (mean.low, mean.mean, mean.high))
    return f"{middle} ({low} to {high}), {mean.seeds} × {mean.items}"


def shown(value: object) -> str:
    if isinstance(value, float) and math.isnan(value):
        return ""  # a key that is not set
    return f"{value:g}" if isinstance(value, float) else str(value).strip("[']")  # a list of one is that one


def figure(name: str, methods: list[str], column: str) -> str:
    """An SVG: the metric's means and intervals along a key, a line for each combination of the others."""
    from bench.plots import front, lines

    jobs, keys, across = results(name, methods)
    if across.startswith("cost/"):
        of = combinations(jobs.dropna(subset=[across, column]), keys)
        both = {key: [from_seeds(rows[each].to_numpy(), bounds(each)) for each in (across, column)] for key, rows in of}
        return front({tuple(map(shown, key)): estimates for key, estimates in both.items()}, across, column)
    estimates = {
        (" ".join(map(shown, key)), value): from_seeds(of[column].dropna().to_numpy(), bounds(column))
        for (*key, value), of in jobs.dropna(subset=[across]).groupby([*keys, across], observed=True, dropna=False)
    }
    return lines(estimates, across, column)


def markdown(header: list[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |\n" for cells in (header, *rows)]
    return "".join([lines[0], f"|---|{'---:|' * (len(header) - 1)}\n", *lines[1:]])


def cell(values: pandas.Series, column: str) -> str:
    if values.empty:
        return "–"
    mean = from_seeds(values.to_numpy(), bounds(column))
    between = " to " if mean.low < 0 else "–"
    return f"{two(mean.mean)} ({two(mean.low)}{between}{two(mean.high)})" if mean.has_interval else two(mean.mean)


def two(value: float, sign: str = "") -> str:
    """Two decimals, a minus sign, and no −0.00."""
    return f"{round(value, 2) + 0.0:{sign}.2f}".replace("-", "−")


if __name__ == "__main__":
    main()
