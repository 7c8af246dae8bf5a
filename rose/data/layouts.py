"""Layouts of rows: each is recognised by its columns, and where none fits the nearest are named."""

from collections.abc import Callable, Collection, Mapping
from difflib import SequenceMatcher
from typing import Any, NamedTuple

from rose.data.bad_rows import BadRow


class Layout(NamedTuple):
    columns: tuple[str, ...]  # what a row of it has; `a|b` is either, the first that is there
    read: Callable[..., Any]
    unless: tuple[str, ...] = ()  # columns beside which a row is of another layout


def fitting(values: Mapping[str, Any], layouts: Mapping[str, Layout]) -> list[str]:
    """The layouts that a row's columns fit, one that needs more of them in place of those that need fewer.

    Columns that are null count only where nothing fits without them; none may fit.
    """
    filled = [name for name, value in values.items() if value is not None]
    for names in (filled, list(values)):
        needs = {name: found(layout, names) for name, layout in layouts.items()}
        fits = {name: set(own) for name, own in needs.items() if own and not set(layouts[name].unless) & set(names)}
        if fits:
            return [name for name, own in fits.items() if not any(own < other for other in fits.values())]
    return []


def refused(
    values: Mapping[str, Any], layouts: Mapping[str, Layout], others: Mapping[str, Layout], such: str
) -> BadRow:
    """Why a row that fits none of the layouts is refused; `such`: what it is if it fits one of the others."""
    if fits := fitting(values, others):
        columns = ", ".join(found(others[fits[0]], list(values)))
        return BadRow(f"{such}, by its columns {columns} (layout {fits[0]})")
    nearest = sorted(layouts, key=lambda name: -_likeness(layouts[name], values))[:3]
    listed = ", ".join(f"{name} ({described(layouts[name])})" for name in nearest)
    return BadRow(f"fits no layout: found {', '.join(values) or 'no columns'}; the nearest are {listed}")


def found(layout: Layout, names: Collection[str]) -> list[str]:
    """The columns of a layout among `names`; none where one is missing."""
    own = [next((name for name in column.split("|") if name in names), None) for column in layout.columns]
    return [name for name in own if name is not None] if None not in own else []


def described(layout: Layout) -> str:
    return ", ".join(column.replace("|", "/") for column in layout.columns)


def _likeness(layout: Layout, names: Collection[str]) -> float:
    """How much of a layout's columns is there, names that are only like them counting in part."""
    own = [[_same(each, name) for each in column.split("|") for name in names] for column in layout.columns]
    return sum(max(column, default=0.0) for column in own) / len(own)


def _same(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other.lower()).ratio() ** 2
