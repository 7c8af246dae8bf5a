"""Progress of long stages: a bar on a terminal; elsewhere a line a minute, which rose.log has too."""

import logging
import multiprocessing
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

from rose import ranks

log = logging.getLogger(__name__)
Item = TypeVar("Item")

EVERY = 60.0  # seconds between two lines


def on_terminal() -> bool:
    """Whether there is one to draw a bar on, and nobody else who might: jobs that run at a time are no main process."""
    return sys.stderr.isatty() and ranks.is_first() and multiprocessing.parent_process() is None


def track(items: Iterable[Item], description: str, total: float | None = None, unit: str = "rows") -> Iterable[Item]:
    """Yields `items` and says how far it is: in `unit`, of which a list has as many as it is long."""
    if on_terminal():
        return rich_track(items, description, total=total, console=Console(stderr=True))
    return _told(items, description, total, unit)


class Pace:
    """Says in the log how far something is, at most every EVERY seconds."""

    def __init__(self, description: str, total: float, unit: str, done: float = 0):
        self.description, self.total, self.unit = description, total, unit
        self.first = self.done = done  # what was there before is no part of the rate
        self.begun = self.said = time.monotonic()

    def step(self, count: float = 1) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.said < EVERY:
            return
        self.said = now
        rate = (self.done - self.first) / (now - self.begun)
        left = _minutes((self.total - self.done) / rate) if rate else "an unknown time"
        of = f"{self.description}: {self.done:,.0f} of {self.total:,.0f} {self.unit}"
        pace = f"{1 / rate:.3g} s each" if 0 < rate < 1 else f"{rate:.3g} a second"
        log.info("%s, %s, %s left", of, pace, left)


def _told(items: Iterable[Item], description: str, total: float | None, unit: str) -> Iterator[Item]:
    if total is None:
        items = list(items)
        total = sum(map(_size, items))
    pace = Pace(description, total, unit)
    for item in items:
        yield item
        pace.step(_size(item))


def _size(item: object) -> int:
    """A batch is a list of rows; whatever else it is, an item is one."""
    return len(item) if isinstance(item, list) else 1


def _minutes(seconds: float) -> str:
    if seconds < 60:
        return "less than a minute"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"about {hours} h {minutes} min" if hours else f"about {minutes} min"
