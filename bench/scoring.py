"""The whole scores stage on a store of LESS's size: random codes, written straight in the store's own format."""

import time
from pathlib import Path

import numpy
import torch
from hydra import compose, initialize_config_dir

from bench.memory import tokens
from bench.setting import Setting
from rose.__main__ import ROOT
from rose.config.choices import Normalize, StoreDtype
from rose.config.compose import typed
from rose.config.schema import Method
from rose.gradients.feature_store import VALID, FeatureStore
from rose.gradients.quantize import width
from rose.methods.scores import score

ROWS, DIM, CHECKPOINTS, PAIRS, SUBTASKS = 270_679, 8192, 4, 90, 5  # LESS's pool and store, ROSE's pairs of SHP
TOKENS, VOCABULARY = 300, 32_000  # tokens of a row, on average
SPACE = {"kind": "sketch", "seed": 0, "dim": DIM, "version": 1}
WEIGHTS = {f"checkpoint-{number}": 1.0 for number in range(1, CHECKPOINTS + 1)}


def make(setting: Setting, folder: Path, share: int) -> dict:
    """One in `share` of the ROWS: a store with every row valid, targets of SUBTASKS subtasks, and tokens."""
    rows = ROWS // share
    _features(folder / "features", rows)
    _targets(folder / "targets")
    tokens(folder / "tokens", numpy.random.default_rng(0).integers(1, 2 * TOKENS, rows), VOCABULARY)
    return {}


def scoring(setting: Setting, folder: Path) -> dict:
    """Seconds of the stage on what `make` made, read from the page cache, and what they come to for all ROWS."""
    for file in (folder / "features").iterdir():
        _read(file)
    (folder / "scores").mkdir(exist_ok=True)
    rows, method = len(FeatureStore.open(folder / "features")), _method()
    start = time.perf_counter()
    score(folder / "scores", method, folder / "tokens", (Normalize.per_pair, folder / "features", folder / "targets"))
    seconds = time.perf_counter() - start
    stored = CHECKPOINTS * rows * width(StoreDtype.int4, DIM)
    return {"rows": rows, "store_bytes": stored, "seconds": seconds, "seconds_of_all": seconds * ROWS / rows}


def _features(path: Path, rows: int) -> None:
    """Rows of about unit norm: uniform codes of −8 to 7 have a mean square of 21.5."""
    path.mkdir(parents=True, exist_ok=True)
    store = FeatureStore.create(path, _ids(rows), StoreDtype.int4, SPACE, WEIGHTS)
    rng = numpy.random.default_rng(0)
    for name in store.checkpoints:
        with open(path / f"{name}.rows", "wb") as file:
            for _ in range(rows):
                file.write(rng.bytes(width(StoreDtype.int4, DIM)))
        numpy.full(rows, (21.5 * DIM) ** -0.5, numpy.float32).tofile(path / f"{name}.scale")
        numpy.full(rows, VALID, numpy.uint8).tofile(path / f"{name}.done")


def _targets(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    subtasks = [f"subtask {number % SUBTASKS}" for number in range(PAIRS)]
    store = FeatureStore.create(path, _ids(PAIRS), StoreDtype.float32, SPACE, WEIGHTS, subtasks)
    generator = torch.Generator().manual_seed(0)
    for checkpoint in range(CHECKPOINTS):
        store.write(checkpoint, range(PAIRS), torch.randn(PAIRS, DIM, generator=generator))


def _ids(rows: int) -> list[str]:
    return [f"row-{number}" for number in range(rows)]


def _read(file: Path) -> None:
    """Brings a file into the page cache."""
    with open(file, "rb") as source:
        while source.read(1 << 24):
            pass


def _method() -> Method:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return typed(compose("config", ["method=rose"], return_hydra_config=True)).method
