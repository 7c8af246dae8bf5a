"""`python -m bench.peers`: our numbers beside other packages', as a table and docs/CHECKS.md.

Ends with 1 where a tolerance is not met. A peer that is not here is a row that says so. Nothing is
fetched: `make check-peers` has installed the peers in an environment of their own.
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
ABSENT = "not compared"
QUIET = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}


def main(page: Path = PAGE) -> int:
    os.environ.update(QUIET)  # before a peer is imported
    warnings.simplefilter("ignore")
    commit, found = _commit(), {}
    for name in PEERS:
        start = time.perf_counter()
        found[name] = list(check(name))
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    everything = [row for rows in found.values() for row in rows]
    promised = [row for row in everything if row.tolerance is not None]
    missed = [row for row in promised if not row.met]
    said = f"{len(promised) - len(missed)} of {len(promised)} tolerances met"
    absent = sum(row.what == ABSENT for row in everything)
    said += f", {absent} of {len(PEERS)} checks not made or not whole" if absent else ""
    print(f"{table(everything)}\n{said}")
    page.write_text(text(found, f"{said} at commit {commit}"))
    return 1 if missed else 0


def text(found: dict[str, list[Row]], said: str) -> str:
    """The page: a section a peer, its text the docstring of the check."""
    versions = ", ".join(version(name) for name in ("torch", "transformers", "peft"))
    parts = [
        "# Our numbers beside other people's",
        f"Written by `make check-peers` on {datetime.date.today()}: {said}\n"
        f"(Python {platform.python_version()}, {versions}, {platform.machine()}).\n"
        "A row without a tolerance states a difference that is known.",
    ]
    for name, rows in found.items():
        title, _, about = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text())).partition("\n\n")
        parts += [f"## {title}", about, table(rows)]
    return "\n\n".join(parts) + "\n"


def check(name: str) -> Iterator[Row]:
    """The rows of one peer; where it cannot be imported, those before that and the reason."""
    try:
        yield from importlib.import_module(f"bench.peers.{name}").rows()
    except ImportError as error:
        if (error.name or "").split(".")[0] in ("rose", "bench"):
            raise
        yield Row(ABSENT, name, str(error))


def _commit() -> str:
    """The commit that is measured, and whether files other than the page have changed since."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", ".", ":!docs/CHECKS.md"], capture_output=True)
    return (commit or "unknown") + (" and changes" if changed.returncode else "")


if __name__ == "__main__":
    sys.exit(main())
