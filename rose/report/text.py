"""Numbers and other people's text, for people to read."""

import re

from rose.report.statistics import Estimate

# Control characters but for line feed and tab, and those that reorder what stands around them.
UNSEEN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
MOST_DECIMALS = 6
HALVES = re.compile("[\ud800-\udfff]")  # of surrogate pairs: no file can hold one


def number(value: float, sign: str = "", digits: int | None = None) -> str:
    """Three decimals, fewer of a large number, no −0; `sign="+"` shows the sign of positive ones too."""
    digits = _decimals(value) if digits is None else digits
    return f"{round(value, digits) + 0.0:{sign},.{digits}f}".replace("-", "−")


def _decimals(value: float) -> int:
    return 3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0


def shown(estimate: Estimate, sign: str = "") -> tuple[str, str, str]:
    """Mean, low and high with equally many decimals: those of the largest, more where the ends would look the same."""
    three = (estimate.mean, estimate.low, estimate.high)
    if not estimate.has_interval:
        return number(estimate.mean, sign), "", ""
    digits = min(map(_decimals, three))
    while digits < MOST_DECIMALS and round(estimate.low, digits) == round(estimate.high, digits):
        digits += 1
    mean, low, high = (number(value, sign, digits) for value in three)
    return mean, low, high


def interval(estimate: Estimate, sign: str = "") -> str:
    """`0.610 (0.245–0.975)`; the mean alone without an interval, nothing without a mean.

    `sign="+"` shows signs.
    """
    if not estimate.seeds:
        return ""
    mean, low, high = shown(estimate, sign)
    between = " to " if sign or estimate.low < 0 else "–"
    return f"{mean} ({low}{between}{high})" if low else mean


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
