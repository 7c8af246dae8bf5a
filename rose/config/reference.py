"""What can be configured, read off conf/ and the schema's comments: `rose --help` and docs/CONFIG.md."""

import dataclasses
import inspect
import json
import re
import textwrap
import typing
from collections.abc import Iterator
from enum import EnumMeta
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from rose.config import CONF
from rose.config.compose import one_job
from rose.config.schema import Config

FIELD = re.compile(r" {4}(\w+): .*?(?:  # (.*))?")
NAMED = {bool: "true | false", int: "whole number", float: "number", str: "text", list[str]: "list"}
USAGE = """\
rose KEY=VALUE …              one job
rose -m KEY=VALUE,VALUE …     a sweep: every combination
rose experiments=NAME         a sweep by name, to which more keys may be added
rose … --cfg job              what a command line comes to
rose PROGRAM --help           plan, report, stages, data, duel, share

GROUP=OPTION takes a file of conf/GROUP, KEY=VALUE sets one key. ${KEY} follows another key."""
INTRODUCTION = """\
# Configuration

Written by `make tables` from `conf/` and the comments of `rose/config/schema.py` and `data.py`; `rose --help`
prints the same. `GROUP=OPTION` takes a file of `conf/GROUP`, `KEY=VALUE` sets one key, and `${KEY}` follows
another key. Defaults are those of the embedded world and its tiny model; another option of a group brings its own
(`rose … --cfg job` shows them). The model that is fine-tuned, where it is not the one that selects, has the
keys of `model` under `student` (`model@student=NAME`).
"""


class Key(NamedTuple):
    path: str
    default: str
    values: str
    meaning: str


def help_text(width: int) -> str:
    """Every group with its options and keys, lines broken at `width`."""
    sections, every = [USAGE], defaults()
    for group in [*groups(), ""]:
        lines = [f"{group}=" if group else "the job"]
        lines += [_item(name, about, 24, width) for name, about in options(group).items()]
        for key in _of(group, every):
            told = "; ".join(part for part in (key.meaning, key.values if "|" in key.values else "") if part)
            lines.append(_item(f"{key.path}={key.default}", told, 40, width))
        sections.append("\n".join(lines))
    return "\n\n".join(sections)


def page() -> str:
    """docs/CONFIG.md: a table of keys a group, below its options."""
    text, every = INTRODUCTION, defaults()
    for group in ["", *groups()]:
        text += f"\n## {group or 'The job'}\n"
        lines = [f"- `{group}={name}`: {about}\n" for name, about in options(group).items()]
        text += "\n" * bool(lines) + "".join(lines)
        rows = [(f"`{key.path}`", f"`{key.default}`", key.values, key.meaning) for key in _of(group, every)]
        if rows:
            text += "\n| key | default | may be | what it is |\n|---|---|---|---|\n"
            text += "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows)
    return text


def groups() -> list[str]:
    """The folders of conf/ of which an option is taken: experiments, then in the schema's order."""
    here = [field.name for field in dataclasses.fields(Config) if (CONF / field.name).is_dir()]
    return ["experiments", *here, "hydra/launcher"]


def options(group: str) -> dict[str, str]:
    """A group's files by name, each with the first line of its comment that is not Hydra's."""
    return {path.stem: first_comment(path) for path in sorted((CONF / group).glob("*.yaml")) if group}


def first_comment(path: Path) -> str:
    lines = (line[2:] for line in path.read_text().splitlines() if line.startswith("# "))
    return next((line for line in lines if not line.startswith("@package")), "")


def defaults() -> list[Key]:
    """Every single key, as it is where the command line says nothing."""
    return list(_keys(Config, "", OmegaConf.to_container(one_job([]), resolve=False)))


def _keys(schema: Any, prefix: str, config: Any) -> Iterator[Key]:
    types, said = typing.get_type_hints(schema), meanings(schema)
    for field in dataclasses.fields(schema):
        path, kind = f"{prefix}{field.name}", types[field.name]
        inner = [each for each in (kind, *typing.get_args(kind)) if dataclasses.is_dataclass(each)]
        if inner:
            yield from _keys(inner[0], f"{path}.", config)
        else:
            value = reduce(lambda at, name: (at or {}).get(name), path.split("."), config)
            yield Key(path, _shown(value), values(kind), said[field.name])


def meanings(schema: type) -> dict[str, str]:
    """What the comments above and behind each field of a dataclass say."""
    said: dict[str, str] = {}
    for kind in reversed(schema.__mro__[:-1]):
        above: list[str] = []
        for line in inspect.getsource(kind).splitlines():
            if line.startswith("    # "):
                above.append(line[6:])
            elif field := FIELD.fullmatch(line):
                said[field[1]] = " ".join([*above, field[2] or ""]).strip()
                above = []
    return said


def values(kind: Any) -> str:
    """What a field of this type may be, in words."""
    if isinstance(kind, EnumMeta):
        return " | ".join(str(each) for each in kind)
    if typing.get_origin(kind) is list and kind not in NAMED:
        return f"list of {values(typing.get_args(kind)[0])}"
    parts = [values(each) for each in typing.get_args(kind) if each is not type(None)]
    return NAMED.get(kind) or " | ".join([*parts, "null"] if type(None) in typing.get_args(kind) else [])


def _shown(value: Any) -> str:
    """A value as a command line takes it."""
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _of(group: str, every: list[Key]) -> list[Key]:
    """A group's keys; "": those of no group. The student's are the model's again."""
    first = {key: key.path.partition(".")[0] for key in every}
    return [key for key in every if (first[key] == group if group else first[key] not in [*groups(), "student"])]


def _item(name: str, text: str, column: int, width: int) -> str:
    head = f"  {name}  " if len(name) > column - 4 else f"  {name:<{column - 2}}"
    return textwrap.fill(text, width, initial_indent=head, subsequent_indent=" " * column) if text else f"  {name}"
