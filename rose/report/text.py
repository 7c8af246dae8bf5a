"""Numbers and other people's text, for people to read."""

import re

from rose.report.statistics import Estimate

# Control characters but for line feed and tab, and those that reorder what stands around them.
UNSEEN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
HALVES = re.compile("[\ud800-\udfff]")  # of surrogate pairs: no file can hold one


def number(value: float, sign: str = "") -> str:
    """Three decimals, fewer of a large number, no −0; `sign="+"` shows the sign of positive ones too."""
    digits = 3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    return f"{round(value, digits) + 0.0:{sign},.{digits}f}".replace("-", "−")


def interval(estimate: Estimate, sign: str = "") -> str:
    """`0.610 (0.245–0.975)`; the mean alone without an interval, nothing without a mean.

    `sign="+"` shows signs.
    """
    if not estimate.seeds:
        return ""
    if not estimate.has_interval:
        return number(estimate.mean, sign)
    between = " to " if sign or estimate.low < 0 else "–"
    return f"{number(estimate.mean, sign)} ({number(estimate.low, sign)}{between}{number(estimate.high, sign)})"


def counted(count: int | str, noun: str) -> str:
    """`1 seed`, `3 seeds`, `ten seeds`."""
    return f"{count} {noun}{'' if count in (1, 'one') else 's'}"


def printable(text: str) -> str:
    """`text` with control and reordering characters spelt out, what has no encoding replaced."""
    whole = HALVES.sub("\N{REPLACEMENT CHARACTER}", text)
    return UNSEEN.sub(lambda match: f"[U+{ord(match[0]):04X}]", whole)


def shorten(value: object, limit: int) -> str:
    """The first `limit` characters as `printable`, and how many are left out."""
    text = str(value)
    rest = len(text) - limit
    return printable(text[:limit]) + (f" … {rest:,} more characters" if rest > 0 else "")
