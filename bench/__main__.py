"""`python -m bench`: every system on the same model, rows and batches, each in its own process; one table.

Others' packages are fetched into outputs/bench without their dependencies; a system that cannot be had is
null.
"""

import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import torch

from bench import details, setting, systems

HERE = Path(__file__).parent
FOLDER = HERE.parent / "outputs" / "bench"
THREADS = 2
COLUMNS = ["examples_per_s", "ratio_to_backward", "peak_mb", "rmse_cos", "overlap_top5", "bytes_per_example"]
# the limit and this project take turns and the better run counts: their ratio is what noise would blur
ORDER = ("backward", "rose", "backward", "rose", "less", "vmap", "bergson", "dattri_llm")
PACKAGES = {
    "bergson": "bergson==2.5.1 jaxtyping wadler-lindig simple-parsing docstring-parser natsort ml_dtypes "
    "petname torchopt optree",
    "dattri_llm": "dattri-llm==0.1.0 dattri==0.3.0",
}


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    _run("exact")
    best: dict[str, dict] = {}
    for name in ORDER:
        found = _run(name) if name not in PACKAGES or _install(name) else None
        if found and found["examples_per_s"] > best.get(name, {}).get("examples_per_s", 0):
            best[name] = found
        print(f"{name}: {found and round(found['examples_per_s'], 2)} examples/s", file=sys.stderr, flush=True)
    limit = best["backward"]["examples_per_s"]
    for found in best.values():
        found["ratio_to_backward"] = found["examples_per_s"] / limit
    results = [
        {"system": name} | {column: best.get(name, {}).get(column) for column in COLUMNS}
        for name in dict.fromkeys(("rose", *ORDER))
    ]
    more = {name: _run(name)["table"] for name in ("widths", "balance")}
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "details.json").write_text(json.dumps({"machine": _machine(), **more}, indent=1) + "\n")
    for table in (results, *more.values()):
        print(_table(table))
    print(_machine())


def measure(name: str, out: Path) -> None:
    """Runs one system in this process and writes what it returns, and the process's peak memory."""
    torch.set_num_threads(THREADS)
    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    resource.setrlimit(resource.RLIMIT_DATA, (half, half))  # a system that wants more fails, not the machine
    if name == "exact":
        setting.save(FOLDER)
        return
    found = (getattr(details, name, None) or getattr(systems, name))(FOLDER)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    out.write_text(json.dumps(found | {"peak_mb": peak}))


def _run(name: str) -> dict | None:
    out = FOLDER / f"{name}.json"
    out.unlink(missing_ok=True)
    path = os.pathsep.join(str(part) for part in (FOLDER / name, HERE.parent))
    environment = os.environ | {
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": str(THREADS),
        "PYTHONWARNINGS": "ignore",
    }
    done = subprocess.run(
        [sys.executable, "-m", "bench", name, str(out)], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        if name not in PACKAGES:
            raise SystemExit(done.stderr)
        print(f"{name} fails: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return json.loads(out.read_text()) if out.exists() else None


def _install(name: str) -> bool:
    if (FOLDER / name).exists():
        return True
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(FOLDER / name)]
    return subprocess.run([*command, *PACKAGES[name].split()], capture_output=True).returncode == 0


def _table(rows: list[dict]) -> str:
    cells = [list(rows[0])] + [[_cell(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:], ""])


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _machine() -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers", "peft"))
    return f"{platform.machine()}, {THREADS} of {os.cpu_count()} cores, {versions}"


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
