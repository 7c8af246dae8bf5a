"""One line for an error of Hydra or OmegaConf, with the nearest key or option that exists."""

import dataclasses
import difflib
import os
import re
import sys
import traceback
import typing
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from rose import ranks
from rose.config import CONF
from rose.config.schema import Config
from rose.errors import one_line

Value = TypeVar("Value")

# lines of Hydra's messages that tell of its inside
NOISE = ("object_type", "reference_type", "To append to your", "Config search path", "provider=", "Set the env")


def explain(error: BaseException) -> str:
    """Any error in one line; of Hydra's, which have several, those that help."""
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return one_line(error)
    if isinstance(error, OverrideParseException) and "=" in error.override:
        key, _, value = error.override.partition("=")
        remedy = "a value with one of = ( ) [ ] { } : , or a space in it needs quotes inside of the shell's"
        return f"{error.override}: {remedy}, such as '{key}=\"{value}\"' ({one_line(error).partition(' See ')[0]})"
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    lines = [line.strip() for line in f"{error}\n{cause}".splitlines() if line.strip()]
    text = " ".join(dict.fromkeys(line for line in lines if not line.startswith(NOISE)))
    return text + _near_miss(text)


def or_exit(do: Callable[[], Value]) -> Value:
    """Any error ends the program in one line; Hydra only warns of what a callback raises."""
    try:
        return do()
    except Exception as error:
        if os.environ.get("ROSE_DEBUG"):
            traceback.print_exc()
        sys.exit(f"rose: {explain(error)}" if ranks.speaks() else 1)


def _near_miss(text: str) -> str:
    unknown = re.search(r"Could not override '([\w.]+)'|Key '\w+' (?:is )?not in .*full_key: ([\w.]+)", text)
    choice = re.search(r"Could not find '(\w+)/(\w+)'", text)
    if choice:
        options = [path.stem for path in (CONF / choice[1]).glob("*.yaml")]
        if (Path("conf") / choice[1] / f"{choice[2]}.yaml").is_file():
            return "; conf/ in this folder has it, which --config-dir conf reads"
        near = difflib.get_close_matches(choice[2], options, n=1)
        return f"; did you mean '{near[0]}'?" if near else ""
    return nearest(unknown[1] or unknown[2]) if unknown else ""


def nearest(typed: str) -> str:
    """`; did you mean '…'?` with the key whose last name is most like the one typed, or nothing."""
    names = defaultdict(list)
    for path in (keys(Config) | {"experiments"}) - {typed}:
        names[path.rpartition(".")[2]].append(path)
    near = difflib.get_close_matches(typed.rpartition(".")[2], names, n=1, cutoff=0.7)
    best = difflib.get_close_matches(typed, names[near[0]], n=1, cutoff=0) if near else []
    return f"; did you mean '{best[0]}'?" if best else ""


def keys(schema: type, prefix: str = "") -> set[str]:
    """Every key of a dataclass schema, at any depth, by its path."""
    paths = set()
    for field in dataclasses.fields(schema):
        paths.add(f"{prefix}{field.name}")
        for kind in (field.type, *typing.get_args(field.type)):
            if isinstance(kind, type) and dataclasses.is_dataclass(kind):
                paths |= keys(kind, f"{prefix}{field.name}.")
    return paths
