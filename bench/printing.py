"""How the bench prints: rows as a markdown table, and the machine that they were measured on."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

import torch

THREADS = 2


def table(rows: list[dict]) -> str:
    cells = [list(rows[0])] + [[_cell(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:], ""])


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def machine() -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers", "peft"))
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    git = shutil.which("git")
    describe = [git, "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(describe, capture_output=True, text=True).stdout.strip() if git else ""
    return (
        f"{platform.machine()}, {THREADS} of {os.cpu_count()} cores, {card}, {versions}; commit {commit or 'unknown'}"
    )
