"""`python -m bench.peers`: our numbers beside other packages', printed and written to docs/CHECKS.md.

Ends with 1 where a tolerance is not met. A peer that is not here is a row that says so. Nothing is fetched: `make
check-peers` has installed the peers in an environment of their own.
"""

import ast
import datetime
import importlib
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from bench.peers.row import Row, table, version

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PAGE = ROOT / "docs" / "CHECKS.md"
PEERS = ("trak", "formulas", "trl", "dattri", "bm25", "lm_eval", "alpaca_eval", "statistics")
QUIET = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}


def main(page: Path = PAGE) -> int:
    os.environ.update(QUIET)  # before a peer is imported
    warnings.simplefilter("ignore")
    commit = _commit()  # before the page changes
    found = {}
    for name in PEERS:
        start = time.perf_counter()
        found[name] = list(check(name))
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    everything = [row for rows in found.values() for row in rows]
    print(table(everything))
    held = [row for row in everything if row.tolerance is not None]
    missed = [row for row in held if not row.met]
    said = f"{len(held) - len(missed)} of {len(held)} tolerances met"
    print(said)
    versions = ", ".join(version(name) for name in ("torch", "transformers", "peft"))
    lines = [
        "# Our numbers beside other people's",
        f"Written by `make check-peers`: {datetime.date.today()}, commit {commit}, Python {platform.python_version()},\n"
        f"{versions}, {platform.machine()}. {said}; a row without one states a difference that is known.",
    ]
    for name, rows in found.items():
        title, _, text = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text())).partition("\n\n")
        lines += [f"## {title}", text, table(rows)]
    page.write_text("\n\n".join(lines) + "\n")
    return 1 if missed else 0


def check(name: str) -> Iterator[Row]:
    """The rows of one peer; where it cannot be imported, those before that and one which says why."""
    try:
        yield from importlib.import_module(f"bench.peers.{name}").rows()
    except ImportError as error:
        if (error.name or "").split(".")[0] in ("rose", "bench"):
            raise
        yield Row("not compared", name, str(error))


def _commit() -> str:
    def git(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)

    commit = git("rev-parse", "--short", "HEAD").stdout.strip() or "unknown"
    changed = git("diff", "--quiet", "HEAD", "--", ".", ":!docs/CHECKS.md").returncode
    return f"{commit} and changes" if changed else commit


if __name__ == "__main__":
    sys.exit(main())
