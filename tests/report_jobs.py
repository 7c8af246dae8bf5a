"""Job directories written by hand, for the report to read, and what its table says of them."""

import json
from pathlib import Path

import numpy
import pandas
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from rose.report.comparison import compare
from rose.report.results import read_jobs, tabulate
from rose.report.table import render


def write_job(
    directory: Path,
    metrics: dict | None = None,
    state: str | None = "done",
    error: str | None = None,
    method: str = "rose",
    target: str = "null",
    model: str = "tiny",
    student: str = "",
    ratio: float = 0.05,
    count: int | str = "null",
    part: int | str = "null",
    seed: int = 0,
    warmup_seed: int | str = "${seed}",
    overrides: tuple[str, ...] = (),
    beta: float = 0.1,
    preference: str = "world",
    result: str = "",
) -> None:
    (directory / ".hydra").mkdir(parents=True)
    config = f"""
        method: {{name: {method}, target: {target}}}
        model: {{name: {model}}}
        student: {f"{{name: {student}}}" if student else "null"}
        dataset: {{name: world}}
        preference: {{name: {preference}, beta: {beta}}}
        projection: {{kind: trak, seed: "${{seed}}"}}
        selection: {{ratio: {ratio}, count: {count}, slice: {part}}}
        warmup: {{seed: "{warmup_seed}"}}
        finetune: {{seed: "${{seed}}"}}
        broken: "${{only_the_job_knows:this}}"
        seed: {seed}
    """
    choices = f"hydra:\n  runtime:\n    choices:\n      method: {method}\n      finetune: short\n"
    named = (f"method={method}", f"model={model}", f"selection.ratio={ratio}", f"seed={seed}")
    (directory / ".hydra" / "config.yaml").write_text(config)
    (directory / ".hydra" / "hydra.yaml").write_text(choices)
    entries = "".join(f"- {entry}\n" for entry in (*named, *overrides))
    (directory / ".hydra" / "overrides.yaml").write_text(entries)
    if state:
        (directory / "status.json").write_text(json.dumps({"state": state, "error": error}))
    if metrics is not None:
        (directory / "metrics.json").write_text(json.dumps(metrics))
        evaluation = {"dir": f"stages/evaluation/{result or directory.name}"}
        (directory / "stages.json").write_text(
            json.dumps({"evaluation": evaluation, "zero_shot": {"dir": f"base-{seed}"}})
        )


def add_stages(job: Path, **directories: str) -> None:
    """Stages that `job` says it used, by what it calls them."""
    stages = json.loads((job / "stages.json").read_text())
    (job / "stages.json").write_text(json.dumps(stages | {name: {"dir": path} for name, path in directories.items()}))


def row_of(text: str, *cells: str) -> list[str]:
    """The cells of the one table row that begins with `cells`."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    found = [row for row in rows if row[: len(cells)] == list(cells)]
    assert len(found) == 1, text
    return found[0]


def write_items(path: Path, columns: dict[str, list[float]], prompts: list[str] | None = None, start: int = 0) -> None:
    """items.parquet with an item a value; every item has a prompt of its own unless `prompts` says otherwise."""
    size = len(next(iter(columns.values())))
    ids = [f"test-{start + number}" for number in range(size)]
    frame = pandas.DataFrame({"id": ids, "prompt": prompts or ids, "subtask": "all", **columns})
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path, index=False)


def write_selection(
    outputs: Path, job: Path, pool: list[dict], scores: dict[str, float], taken: int, pool_name: str = "pool"
) -> None:
    """scores.parquet, selected.jsonl and a pool of `job`, which lies below `outputs`; a row's length is its text's."""
    folder = outputs / "stages" / "pool" / pool_name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pool))
    lengths = [len(row["messages"][-1]["content"]) for row in pool]
    table = pandas.DataFrame({"id": [row["id"] for row in pool], "score": [scores[row["id"]] for row in pool]})
    table.assign(length=lengths).to_parquet(job / "scores.parquet", index=False)
    best = sorted(pool, key=lambda row: -scores[row["id"]])[:taken]
    rows = [row | {"score": scores[row["id"]], "rank": rank} for rank, row in enumerate(best, start=1)]
    (job / "selected.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stages = json.loads((job / "stages.json").read_text())
    (job / "stages.json").write_text(json.dumps(stages | {"pool": {"dir": f"stages/pool/{pool_name}", "seconds": 1.0}}))


def collect(sweep: Path) -> pandas.DataFrame:
    return tabulate(read_jobs(sweep))


def text_of(sweep: Path) -> str:
    """report.md, without the figures that `write_report` draws."""
    jobs = read_jobs(sweep)
    return render(jobs, compare(jobs), sweep.name)


def mean_and_interval(*values: float) -> str:
    """Mean and Student's t interval, as the table shows them."""
    mean, error = sum(values) / len(values), stats.sem(values)
    low, high = stats.t.interval(0.95, len(values) - 1, mean, error)
    return _shown(mean, low, high)


def rate_and_interval(*values: float) -> str:
    """The same of a rate: statsmodels' Wilson interval of as many items as would have Student's t interval."""
    mean, quantiles = sum(values) / len(values), (stats.norm.ppf(0.975), stats.t.ppf(0.975, len(values) - 1))
    items = mean * (1 - mean) / stats.sem(values) ** 2 * (quantiles[0] / quantiles[1]) ** 2
    return _shown(mean, *proportion_confint(items * mean, items, method="wilson"))


def _shown(mean: float, low: float, high: float) -> str:
    between = " to " if low < 0 else "–"
    return f"{mean:.3f} ({low:.3f}{between}{high:.3f})".replace("-", "−")


def paired_sweep(folder: Path, gain: float, items: int = 200) -> None:
    """rose is better than random by `gain` on every prompt and seed, but for a little noise; prompts differ a lot."""
    generator = numpy.random.default_rng(0)
    prompts = generator.normal(0, 1, items)
    for seed in range(3):
        for method, shift in (("rose", gain), ("random", 0.0)):
            job = folder / f"{method}-{seed}"
            reward = prompts + shift + generator.normal(0, 0.02, items)
            write_job(job, {"reward": float(reward.mean())}, method=method, seed=seed)
            write_items(job / "items.parquet", {"reward": reward.tolist()})
