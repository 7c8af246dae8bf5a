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

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rose import ranks
from rose.config.schema import Config
from rose.errors import one_line

Value = TypeVar("Value")

KINDS = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}
# lines of Hydra's messages that tell of its inside
NOISE = ("object_type", "reference_type", "To append to your", "Config search path", "provider=", "Set the env")


def explain(error: BaseException) -> str:
    """Any error in one line; of Hydra's, which have several, those that help."""
    if isinstance(error, AssertionError) and (beyond := _beyond_null(error)):
        return beyond
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return one_line(error)
    if isinstance(error, OverrideParseException) and "=" in error.override:
        key, _, value = error.override.partition("=")
        remedy = "a value with one of = ( ) [ ] { } : , or a space in it needs quotes inside of the shell's"
        return f"{error.override}: {remedy}, such as '{key}=\"{value}\"' ({one_line(error).partition(' See ')[0]})"
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    lines = [line.strip() for line in f"{error}\n{cause}".splitlines() if line.strip()]
    return _in_our_words(" ".join(dict.fromkeys(line for line in lines if not line.startswith(NOISE))))


def or_exit(do: Callable[[], Value]) -> Value:
    """Any error ends the program in one line; Hydra only warns of what a callback raises."""
    try:
        return do()
    except Exception as error:
        if os.environ.get("ROSE_DEBUG"):
            traceback.print_exc()
        sys.exit(f"rose: {explain(error)}" if ranks.speaks() else 1)


def _in_our_words(text: str) -> str:
    """The commonest of Hydra's errors as Rose says its own: key, value, what is allowed, what is nearest to it."""
    if found := re.search(r"Could not find '([\w/]+)/([\w.-]+)'(?: Available options in '[\w/]+': (.+))?", text):
        group, option, options = found[1], found[2], (found[3] or "").split()
        if (Path("conf") / group / f"{option}.yaml").is_file():
            near = "; conf/ in this folder has it, which --config-dir conf reads"
        else:
            near = _near(option, options)
        return f"{group}={option}: no such option{near}" + (f" (there are {', '.join(options)})" if options else "")
    if found := re.search(r"Could not override '([\w.]+)'|Key '\w+' (?:is )?not in .*full_key: ([\w.]+)", text):
        key = found[1] or found[2]
        return f"{key}: no such key{nearest(key)}"
    if found := re.search(
        r"override (\S+?)=(.*?) (?:Invalid value .* expected one of \[(.+)\]|Value .* (?:to|valid) (\w+))", text
    ):
        key, value, choices, kind = found.groups()
        allowed = f"one of {choices}{_near(value, choices.split(', '))}" if choices else KINDS.get(kind, kind)
        return f"{key}={value}: must be {allowed}"
    if found := re.search(r"Ambiguous value for argument '(.+?)' 1\.", text):
        return f"{found[1]}: several values make a sweep, rose -m {found[1]} …; a list is KEY=[A,B]"
    if found := re.search(r"Error parsing override '([^'=]+)' missing EQUAL", text):
        return f"{found[1]}: must be KEY=VALUE"
    return text


def _near(typed: str, names: list[str]) -> str:
    near = difflib.get_close_matches(typed, names, n=1, cutoff=0.65)
    return f"; did you mean '{near[0]}'?" if near else ""


def nearest(typed: str) -> str:
    """`; did you mean '…'?` with the key that is most like the one typed, or nothing."""
    names = defaultdict(list)
    for path in (keys(Config) | {"experiments"}) - {typed}:
        names[path.rpartition(".")[2]].append(path)
    if typed in names:  # without the group, of which there may be several
        return f"; did you mean {' or '.join(map(repr, sorted(names[typed])))}?"
    alike = difflib.get_close_matches(typed.rpartition(".")[2], names, cutoff=0.7)
    best = difflib.get_close_matches(typed, sorted(path for name in alike for path in names[name]), n=1, cutoff=0)
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


def _beyond_null(error: AssertionError) -> str:
    """Of the key that is set inside of what is null, which OmegaConf only asserts not to be; "" of other assertions."""
    for seen in (frame.f_locals for frame, _ in traceback.walk_tb(error.__traceback__)):
        override, config = seen.get("override"), seen.get("cfg")
        if not (isinstance(override, Override) and isinstance(config, DictConfig)):
            continue
        names = override.key_or_group.split(".")
        paths = [".".join(names[:count]) for count in range(1, len(names))]
        for path in (path for path in paths if OmegaConf.select(config, path) is None):
            group = {"student": "model@student"}.get(path, names[0])
            return f"{override.input_line}: {path} is null here; say {group}=NAME for one that has it, or leave it out"
    return ""
