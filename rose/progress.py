"""Progress bars for long stages: shown on a terminal, silent elsewhere."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

from rose import ranks

Item = TypeVar("Item")


def track(items: Iterable[Item], description: str, total: float | None = None) -> Iterable[Item]:
    """Yields `items` while drawing a bar on stderr."""
    shown = sys.stderr.isatty() and ranks.is_first()
    return rich_track(items, description, total=total, console=Console(stderr=True), disable=not shown)
