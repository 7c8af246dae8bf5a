"""Rows of published preference data as our own: recognised by their columns, checked, and never guessed."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, cast

from rose.config.choices import PairLayout
from rose.data import pool_layouts
from rose.data.bad_rows import BadRow, given
from rose.data.files import FileRow
from rose.data.layouts import described, fitting, found, refused
from rose.data.messages import as_messages, is_answer, of_tools, texts
from rose.data.pair_layouts import BESIDE, GATHERED, LAYOUTS, number_of, score_of
from rose.data.rows import PreferencePair

RESERVED = ("id", "score", "length", "planted")
UNBOUNDED = 2.0**1000  # a ratio to nothing; JSON has no infinity
ONE_A_ROW = (PairLayout.kto, PairLayout.helpsteer)


def parse(row: FileRow, scored: bool = False, layout: PairLayout | None = None) -> list[PreferencePair]:
    """The pairs that `row` holds; "score_ratio" is there where votes are. Raises BadRow.

    `scored` says that the ratio is read: then votes that are no numbers are refused. `layout` says
    how to read what several layouts fit.
    """
    name, columns = layout_of(row.values, layout)
    pairs = [cast(PreferencePair, pair | _ratio(pair, scored)) for pair in LAYOUTS[name].read(row, columns)]
    for pair in pairs:
        _check(pair)
    return pairs


def layout_of(values: Mapping[str, Any], layout: PairLayout | None = None) -> tuple[PairLayout, list[str]]:
    """A row's layout, `layout` if it is given, and its columns. Raises BadRow where none fits, or several do."""
    fits = fitting(values, LAYOUTS) if layout is None else [layout]
    if not fits:
        raise refused(values, LAYOUTS, pool_layouts.LAYOUTS, "is of a pool, which dataset.path reads, and no pair")
    if len(fits) > 1:
        remedy = f"preference.pairs.layout={fits[0]} (or {', '.join(fits[1:])}) says which"
        raise BadRow(f"fits the layouts {' and '.join(fits)} alike (found {', '.join(values)}): {remedy}")
    (name,) = fits
    filled = [column for column, value in values.items() if value is not None]
    columns = found(LAYOUTS[name], filled) or found(LAYOUTS[name], list(values))
    if not columns:
        needs = f"needs {described(LAYOUTS[name])}; found {', '.join(values) or 'no columns'}"
        raise BadRow(f"preference.pairs.layout={name}: {needs}")
    return PairLayout(name), columns


def gathered(rows: Iterable[FileRow], layout: PairLayout | None) -> Iterator[FileRow]:
    """Rows as they come, but those of one answer each, with a label or a score, as one row a prompt at the end."""
    prompts: dict[str, list[FileRow]] = defaultdict(list)
    for row in rows:
        try:
            apart = row.error is None and _is_one_answer(row.values, layout)
        except BadRow as error:
            yield row._replace(error=error)
            continue
        if apart:
            before = ("prompt", "system", "system_prompt", "history", "subtask")
            prompts[json.dumps([row.values.get(name) for name in before])].append(row)
        else:
            yield row
    for first, *others in prompts.values():
        yield first._replace(values={**first.values, GATHERED: [row.values for row in (first, *others)]})


def unread(row: FileRow, layout: PairLayout | None) -> set[str]:
    """The columns of a row that say something and that no model is shown; of rows put together, of each."""
    own = {*layout_of(row.values, layout)[1], *BESIDE, *PreferencePair.__annotations__}
    rows = row.values.get(GATHERED, [row.values])
    return {name for values in rows for name, value in values.items() if name not in own and given(value)}


def outvoted(pair: Mapping[str, Any]) -> bool:
    """Whether the rejected answer has the better score; of scores that are no numbers nothing is said."""
    with suppress(BadRow):
        scores = [number_of(pair.get(name), name) for name in ("score_chosen", "score_rejected")]
        return scores[0] < scores[1]
    return False


def _is_one_answer(values: Mapping[str, Any], layout: PairLayout | None) -> bool:
    """Raises BadRow where it is one that says nothing, so that the row itself is named."""
    name, columns = layout_of(values, layout)
    if name not in ONE_A_ROW:
        return False
    _, answer, score = columns
    score_of(values, score)
    as_messages(values[answer], answer, "assistant")
    return True


def _check(pair: PreferencePair) -> None:
    if not isinstance(pair["subtask"], str):
        raise BadRow(f"subtask is {json.dumps(pair['subtask'])[:60]}: must be a text")
    if pair["subtask"] in RESERVED:
        raise BadRow(f"subtask is {pair['subtask']!r}: a column of scores.parquet has that name, choose another")
    if any(map(of_tools, pair["prompt"] + pair["chosen"] + pair["rejected"])):
        raise BadRow("calls tools, or has their results: pairs of texts alone are supported; leave such rows out")
    if not any(message["content"].strip() for message in pair["prompt"]):
        raise BadRow("prompt is empty")
    for name in ("chosen", "rejected"):
        answer = pair[name]
        if not answer or any(m["role"] == "assistant" and not m["content"].strip() for m in answer):
            raise BadRow(f"{name} has an empty answer")
        if not any(map(is_answer, answer)):
            raise BadRow(f"{name} has no answer to learn: each has weight 0 or train=false")
        if answer[0]["role"] != "assistant":
            raise BadRow(f"{name} begins with role={answer[0]['role']!r} after the prompt: must be assistant")
    if texts(pair["chosen"]) == texts(pair["rejected"]):
        raise BadRow("chosen and rejected are the same")


def _ratio(values: Mapping[str, Any], scored: bool) -> dict[str, float]:
    """The score_ratio of a pair's votes or scores, if it has any.

    It is chosen over rejected, so .9 against .1 is 9. Of the rejected there may be no votes or
    fewer: whole numbers up to 0 count as 1 vote, 6 against -2 is 6. A score above 0 against one
    that is not, such as .5 against 0, is UNBOUNDED. A chosen one that is not above 0 has a ratio
    that is not either, and is clear of nothing.
    """
    try:
        if {"score_chosen", "score_rejected"} <= values.keys():
            chosen, rejected = (number_of(values[name], name) for name in ("score_chosen", "score_rejected"))
            if rejected > 0:
                return {"score_ratio": min(chosen / rejected, UNBOUNDED)}
            votes = chosen <= 0 or (chosen.is_integer() and rejected.is_integer())
            return {"score_ratio": chosen if votes else UNBOUNDED}
        if values.get("score_ratio") is not None or (scored and "score_ratio" in values):
            return {"score_ratio": number_of(values["score_ratio"], "score_ratio")}
    except BadRow:
        if scored:
            raise
    return {}
