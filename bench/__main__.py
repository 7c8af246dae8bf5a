"""`python -m bench`: every system on the same model, rows and batches, each in its own process; `python -m bench gpu`.

Others' packages are fetched into outputs/bench without their dependencies; a system that cannot be had is
null.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from bench import details, gpu, memory, scoring, systems
from bench.printing import THREADS, machine, table
from bench.setting import SETTINGS, save
from rose.config.choices import AdamMap

HERE = Path(__file__).parent
FOLDER = HERE.parent / "outputs" / "bench"
COLUMNS = ["examples_per_s", "ratio_to_backward", "peak_mb", "rmse_cos", "overlap_top5", "bytes_per_example"]
# the limit and this project take turns and the better run counts: their ratio is what noise would blur
ORDER = (
    "backward",
    "rose",
    "backward",
    "rose",
    "rose_no_adam",
    "stream",
    "readout",
    "less",
    "vmap",
    "bergson",
    "dattri_llm",
)
SCORED = 10  # of LESS's pool, one row in so many is scored; what the rest takes is extrapolated
POOLS = (1_000, 20_000)  # rows, between which memory must not grow
MEASURES: dict[str, Callable[..., dict]] = {
    "exact": save,
    "backward": systems.backward,
    "rose": systems.rose,
    "rose_no_adam": partial(systems.rose, adam=AdamMap.none),
    "stream": systems.stream,
    "readout": systems.readout,
    "less": systems.less,
    "vmap": systems.vmap,
    "bergson": systems.bergson,
    "dattri_llm": systems.dattri_llm,
    "widths": details.widths,
    "balance": details.balance,
    "scoring_store": partial(scoring.make, share=SCORED),
    "scoring": scoring.scoring,
    "pools": partial(memory.make, sizes=POOLS),
} | {f"pool_{rows}": partial(memory.featurise, rows=rows) for rows in POOLS}
PACKAGES = {
    "bergson": "bergson==2.5.1 jaxtyping wadler-lindig simple-parsing docstring-parser natsort ml_dtypes "
    "petname torchopt optree",
    "dattri_llm": "dattri-llm==0.1.0 dattri==0.3.0",
}


def main() -> None:
    results = compare("cpu", ORDER)
    more = {name: _run(name)["table"] for name in ("widths", "balance")}
    _run("scoring_store")
    _run("pools", "tiny")
    more |= {"scoring": [_run("scoring")], "memory": [_run(f"pool_{rows}", "tiny") for rows in POOLS]}
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "details.json").write_text(json.dumps({"machine": machine(), **more}, indent=1) + "\n")
    for rows in (results, *more.values()):
        print(table(rows))
    print(machine())


def compare(setting: str, order: tuple[str, ...]) -> list[dict]:
    """A row a system: `order` says which run, and how often; the best run of each counts."""
    best: dict[str, dict] = {}
    if order:
        _run("exact", setting)
    for name in order:
        found = _run(name, setting) if name not in PACKAGES or _install(name, PACKAGES[name]) else None
        if found and found["examples_per_s"] > best.get(name, {}).get("examples_per_s", 0):
            best[name] = found
    for found in best.values():
        found["ratio_to_backward"] = found["examples_per_s"] / best["backward"]["examples_per_s"]
    names = dict.fromkeys(("rose", *order))
    return [{"system": name} | {column: best.get(name, {}).get(column) for column in COLUMNS} for name in names]


def measure(name: str, setting: str, out: Path) -> None:
    """Runs one system in this process and writes what it returns, and its peak memory (the GPU's on a GPU)."""
    torch.set_num_threads(THREADS)
    chosen = SETTINGS[setting]
    if chosen.device == "cpu":
        half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        resource.setrlimit(resource.RLIMIT_DATA, (half, half))  # a system that wants more fails, not the machine
    found = MEASURES[name](chosen, out.parent)
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = host if chosen.device == "cpu" else torch.cuda.max_memory_allocated()
    out.write_text(json.dumps(found | {"peak_mb": peak / 2**20}))


def _run(name: str, setting: str = "cpu") -> dict | None:
    out = FOLDER / setting / f"{name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.unlink(missing_ok=True)
    path = os.pathsep.join(str(part) for part in (FOLDER / name, HERE.parent))
    environment = os.environ | {
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": str(THREADS),
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, "-m", "bench", name, setting, str(out)]
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    if done.returncode:
        if name not in PACKAGES:
            raise SystemExit(done.stderr)
        print(f"{name} fails: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return json.loads(out.read_text())


def _install(name: str, packages: str) -> bool:
    if (FOLDER / name).exists():
        return True
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(FOLDER / name)]
    return subprocess.run([*command, *packages.split()], capture_output=True).returncode == 0


if __name__ == "__main__":
    match sys.argv[1:]:
        case [name, setting, out] if name in MEASURES and setting in SETTINGS:  # what _run starts
            measure(name, setting, Path(out))
        case arguments:
            parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
            parser.add_argument(
                "table", nargs="?", choices=["cpu", "gpu"], default="cpu", help="default: cpu, ten minutes"
            )
            {"cpu": main, "gpu": gpu.main}[parser.parse_args(arguments).table]()
