"""Which rows and files are refused: what JSON cannot say, and what has no end. How a value is named that is."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from rose.errors import RoseError, one_line

MAX_ROW = 256 << 20  # bytes of one row; a longer one is no text that anybody wrote
MAX_UNFOLDED = 1 << 30  # bytes that a file may always unfold to,
MAX_RATIO = 100  # and beyond these this many times its own size: texts compress to a third or a tenth
TOO_LONG = f"longer than {MAX_ROW >> 20} MiB"


class BadRow(RoseError):
    """Why one row cannot be used; `sift` adds where it is."""


Checked = dict[str, Any] | BadRow  # a row as plain JSON values, or what is wrong with it


class Damaged(ValueError):
    """Why a file as a whole cannot be used."""


def checked(row: object) -> Checked:
    """The row as JSON's kinds of values, NaN and infinity among its numbers: dates become text."""
    if not isinstance(row, dict):
        return BadRow(f"must be a JSON object, not {type(row).__name__}")
    try:
        text = json.dumps(row, ensure_ascii=False, default=str)
        return BadRow(TOO_LONG) if len(text.encode("utf-8")) > MAX_ROW else json.loads(text)
    except UnicodeEncodeError:
        return BadRow("holds text that is not valid Unicode")
    except (ValueError, RecursionError) as err:
        return BadRow(f"holds a value that JSON cannot ({one_line(err, 100)})")


def distinct(columns: list[str]) -> None:
    double = [name for name, count in Counter(columns).items() if count > 1]
    if double:
        raise Damaged(f"has the column {double[0]!r} twice")


def limit_of(path: Path) -> int:
    return max(MAX_UNFOLDED, MAX_RATIO * path.stat().st_size)


def bound(unfolded: int, limit: int) -> None:
    if unfolded > limit:
        raise Damaged(f"unfolds to more than {limit >> 20} MiB, {MAX_RATIO} times its size: unpack it yourself")


def given(value: object) -> bool:
    """Tables have null, NaN or an empty text where a row has nothing."""
    return value not in (None, "", [], {}) and value == value and not (isinstance(value, str) and not value.strip())


def kind(value: object) -> str:
    return "missing or null" if value is None else f"{json.dumps(value)[:40]}"
