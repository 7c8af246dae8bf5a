"""What a check finds, and how a page of them reads."""

import importlib.metadata
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy


@dataclass(frozen=True)
class Row:
    """One comparison: the largest difference and what is allowed of it, or words.

    Without a tolerance nothing is promised: the row states a difference that is there on purpose, or is known.
    """

    what: str
    peer: str
    found: float | str
    tolerance: float | None = None

    @property
    def met(self) -> bool:
        """Not where the difference is NaN."""
        return self.tolerance is None or (not isinstance(self.found, str) and float(self.found) <= self.tolerance)


def version(package: str) -> str:
    """A package's name and the version that is installed."""
    return f"{package} {importlib.metadata.version(package)}"


def largest(ours: object, theirs: object) -> float:
    """The largest absolute difference; infinite where shapes differ, NaN where one has a NaN."""
    ours, theirs = numpy.asarray(ours, dtype=float), numpy.asarray(theirs, dtype=float)
    return float(numpy.abs(ours - theirs).max()) if ours.shape == theirs.shape else math.inf


def relative(ours: object, theirs: object) -> float:
    """The largest distance of a row from the other's, in units of that one's length."""
    ours, theirs = numpy.asarray(ours, dtype=float), numpy.asarray(theirs, dtype=float)
    if ours.shape != theirs.shape:
        return math.inf
    return float((numpy.linalg.norm(ours - theirs, axis=-1) / numpy.linalg.norm(theirs, axis=-1)).max())


def table(rows: Sequence[Row]) -> str:
    """Markdown, as wide as its widest cells."""
    head = ["compared", "with", "difference", "allowed", ""]
    cells = [head, *([_cell(text) for text in _cells(row)] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _cells(row: Row) -> list[str]:
    found = row.found if isinstance(row.found, str) else f"{row.found:.2g}"
    if row.tolerance is None:
        return [row.what, row.peer, found, "–", ""]
    return [row.what, row.peer, found, f"{row.tolerance:.2g}", "met" if row.met else "NOT MET"]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ⏎ ")
