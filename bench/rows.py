"""Whether memory grows with the pool's rows: scores and selection on made-up features of few dimensions.

`python -m bench.rows 1000000`: each stage in a process of its own, on a tenth of the rows and on all.
"""

import argparse
import json
import shutil
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy
import torch
from hydra import compose, initialize_config_dir

from bench.memory import tokens
from bench.printing import table
from rose.__main__ import ROOT
from rose.config.choices import Normalize, ProjectionKind, StoreDtype
from rose.config.compose import typed
from rose.gradients.feature_store import VALID, FeatureStore
from rose.gradients.quantize import encode
from rose.gradients.spaces import description
from rose.methods.scores import score
from rose.methods.selection import select

DIM, CHECKPOINTS, PAIRS, SUBTASKS = 64, 4, 90, 5  # ROSE's pairs of SHP; what is held a row does not depend on DIM
TOKENS, VOCABULARY, BLOCK = 30, 32_000, 1 << 14
STAGES = ("scores", "selection")


def make(folder: Path, rows: int) -> None:
    """What the two stages read: a pool, its tokens, its features and those of the targets."""
    shutil.rmtree(folder, ignore_errors=True)
    tokens(folder / "tokens", numpy.random.default_rng(0).integers(1, 2 * TOKENS, rows), VOCABULARY)
    ids, generator = [f"row-{number}" for number in range(rows)], torch.Generator().manual_seed(0)
    subtasks = [f"subtask {number % SUBTASKS}" for number in range(PAIRS)]
    for name, count, dtype in (("features", rows, StoreDtype.int4), ("targets", PAIRS, StoreDtype.float32)):
        for number in range(CHECKPOINTS):
            (folder / name / str(number)).mkdir(parents=True)
            header = description(ProjectionKind.sketch, 0, DIM), {f"checkpoint-{number + 1}": 1.0}
            its = (ids, None) if name == "features" else (ids[:PAIRS], subtasks)
            store = FeatureStore.create(folder / name / str(number), its[0], dtype, *header, its[1])
            with open(store.file(0, "rows"), "wb") as codes, open(store.file(0, "scale"), "wb") as scales:
                for start in range(0, count, BLOCK):
                    some = torch.randn(min(BLOCK, count - start), DIM, generator=generator) / DIM**0.5
                    for file, values in zip((codes, scales), encode(some, dtype), strict=True):
                        file.write(values.numpy().tobytes())
            store.file(0, "done").write_bytes(bytes([VALID]) * count)
    (folder / "pool").mkdir()
    with open(folder / "pool" / "pool.jsonl", "w") as file:
        file.writelines(json.dumps({"id": name, "dataset": "s", "messages": []}) + "\n" for name in ids)


def run(stage: str, folder: Path) -> dict[str, float]:
    """One stage in this process: seconds, and MiB at most, in all and without mapped files."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = typed(compose("config", ["method=rose"], return_hydra_config=True))
    out, ended, own = folder / stage, threading.Event(), [0.0]
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    start, before = time.perf_counter(), _status("VmRSS")

    def watch() -> None:
        while not ended.wait(0.02):
            own[0] = max(own[0], _status("RssAnon"))

    watching = threading.Thread(target=watch)
    watching.start()
    if stage == "scores":
        stores = (
            tuple(folder / name / str(number) for number in range(CHECKPOINTS)) for name in ("features", "targets")
        )
        score(out, config.method, folder / "tokens", (Normalize.per_pair, *stores))
    else:
        select(out, replace(config.selection, ratio=0.05), False, folder / "scores", folder / "pool")
    ended.set()
    watching.join()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "before": before, "peak": _status("VmHWM"), "of it no mapped files": own[0]}


def _status(name: str) -> float:
    """MiB, of what Linux says of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def main(rows: int, folder: Path) -> None:
    found = []
    for count in (rows // 10, rows):
        make(folder, count)
        with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as alone:
            found += [{"stage": name, "rows": count} | alone.submit(run, name, folder).result() for name in STAGES]
    print(table(found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.rows", description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="?", type=int, default=1_000_000)
    main(parser.parse_args().rows, ROOT / "outputs" / "bench" / "rows")
