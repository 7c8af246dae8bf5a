"""Small inputs for methods: a method from conf/, feature stores from plain numbers, a pool of a few rows."""

import dataclasses
import json
from pathlib import Path

import pandas
import torch
from datasets import Dataset
from hydra import compose, initialize_config_dir

from rose.__main__ import ROOT
from rose.config.choices import Dedup, ProjectionKind, StoreDtype
from rose.config.compose import typed
from rose.config.schema import Method, Selection
from rose.gradients.feature_store import FeatureStore
from rose.gradients.spaces import VERSIONS
from rose.methods.scores import score
from rose.methods.selection import select

METHODS = sorted(path.stem for path in (ROOT / "conf" / "method").glob("*.yaml"))
TOLD = {"reward": ["method.reward_model=some/reward"], "column": ["method.column=quality"]}  # what has no default


def chosen(name: str) -> list[str]:
    """The overrides that choose a method of conf/."""
    return [f"method={name}", *TOLD.get(name, [])]


def composed_method(name: str, *overrides: str) -> Method:
    """The method of conf/method/<name>.yaml."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return typed(compose("config", [f"method={name}", *overrides], return_hydra_config=True)).method


def store(
    path: Path, checkpoints: list[list[list[float]]], rates: list[float], subtasks=None, names=None, dtype="float32"
) -> Path:
    """A feature store written from plain numbers: one [rows, d] list a checkpoint."""
    values = torch.tensor(checkpoints)
    ids = [f"r{row}" for row in range(values.shape[1])]
    projection = {
        "kind": "none",
        "version": VERSIONS[ProjectionKind.none],
        "dim": values.shape[2],
        "seed": 0,
    }
    names = names or [f"checkpoint-{i + 1}" for i in range(len(rates))]
    weights = dict(zip(names, rates, strict=True))
    path.mkdir()
    made = FeatureStore.create(path, ids, StoreDtype(dtype), projection, weights, subtasks)
    for checkpoint in range(len(rates)):
        made.write(checkpoint, range(len(ids)), values[checkpoint])
    return path


def rows_table(count: int, **columns) -> pandas.DataFrame:
    """What a rule sees of `count` rows r0, r1, …: of length 1, 2, …, the last token of each an answer."""
    lengths = range(1, count + 1)
    table = {"id": [f"r{i}" for i in range(count)], "dataset": "s", "length": lengths, "answer_tokens": 1}
    return pandas.DataFrame(table | columns)


def tokens_of(path: Path, rows: list[dict]) -> Path:
    """A tokens artifact of {"input_ids", "labels"} rows r0, r1, …"""
    columns = {"id": [f"r{i}" for i in range(len(rows))], "dataset": ["s"] * len(rows)}
    columns |= {name: [row[name] for row in rows] for name in ("input_ids", "labels")}
    Dataset.from_dict(columns).save_to_disk(path / "rows")
    return path


def scored(path: Path, method: Method, *representation, planted: Path | None = None) -> pandas.DataFrame:
    """The scores table of three rows of one, two and three tokens, the last one the answer."""
    rows = [{"input_ids": [1] * n, "labels": [-100] * (n - 1) + [1]} for n in (1, 2, 3)]
    out = path / "scores"
    tokens_of(path / "tokens", rows)
    out.mkdir()
    score(out, method, path / "tokens", representation, planted)
    return pandas.read_parquet(out / "scores.parquet")


def lines(path: Path, rows: list[dict]) -> None:
    """Writes rows as JSON lines, and the folder they go to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def texts(path: Path, pool: list[str], chosen: list[str], subtasks: list[str] | None = None) -> tuple[Path, Path]:
    """A pool artifact of rows r0, r1, … and a preferences artifact, each text an answer without a prompt."""
    said = [[{"role": "assistant", "content": text}] for text in (*pool, *chosen)]
    lines(path / "pool" / "pool.jsonl", [{"id": f"r{i}", "messages": said[i]} for i in range(len(pool))])
    pairs = [
        {"id": f"p{i}", "subtask": subtasks[i] if subtasks else "a", "prompt": [], "chosen": said[len(pool) + i]}
        for i in range(len(chosen))
    ]
    lines(path / "pairs" / "target.jsonl", [pair | {"rejected": []} for pair in pairs])
    return path / "pool", path / "pairs"


def selected(path: Path, table: pandas.DataFrame, pool: list[dict] | None = None, **selection) -> list[dict]:
    """What the selection stage writes for a scores table; `pool` holds more of each row than its id."""
    for name in ("scores", "selection"):
        (path / name).mkdir(exist_ok=True)
    table.to_parquet(path / "scores" / "scores.parquet")
    rows = pool or [{} for _ in table["id"]]
    row_ids = table["id"].tolist()
    common = [{"id": own, "messages": [], "useful": own == "r1"} for own in row_ids]
    lines(path / "pool" / "pool.jsonl", [one | more for one, more in zip(common, rows, strict=True)])
    values = {field.name: None for field in dataclasses.fields(Selection)}
    made = Selection(**(values | {"ratio": 1.0, "dedup": Dedup.none, "seed": 0} | selection))
    select(path / "selection", made, True, path / "scores", path / "pool")
    return [json.loads(line) for line in (path / "selection" / "selected.jsonl").read_text().splitlines()]
