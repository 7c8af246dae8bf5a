"""What a chat template refuses, or nothing is left of, is dropped, counted and listed: here, for every stage."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rose.data.rows import DroppedRow
from rose.errors import RoseError
from rose.stages.disk import write_lines

log = logging.getLogger(__name__)
Row = TypeVar("Row", bound=Mapping[str, Any])
Encoded = TypeVar("Encoded")


def kept(
    rows: Iterable[Row],
    encode: Callable[[Row], Encoded | None],
    nothing: str,
    drop: Callable[[DroppedRow], object],
) -> Iterator[tuple[Row, Encoded]]:
    """Each row with what `encode` makes of it; those that it refuses go to `drop`, with the reason.

    It refuses with a RoseError, or by None: then the reason is `nothing`.
    """
    for row in rows:
        try:
            encoded, reason = encode(row), nothing
        except RoseError as error:
            encoded, reason = None, str(error)
        if encoded is None:
            drop({"id": row["id"], "reason": reason})
        else:
            yield row, encoded


def list_dropped(out: Path, dropped: Sequence[DroppedRow], total: int, what: str, part: bool = False) -> None:
    """Writes dropped.jsonl, and into the log how many of `total` are in it.

    To drop all is an error, unless they are but a `part` of what there is.
    """
    write_lines(out / "dropped.jsonl", dropped)
    if dropped:
        first = f"{dropped[0]['id']} ({dropped[0]['reason']})"
        if len(dropped) == total and not part:
            raise RoseError(f"none of {total} {what} is left, first {first}")
        log.warning("%d of %d %s are dropped, first %s; see dropped.jsonl", len(dropped), total, what, first)
