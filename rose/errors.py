"""Errors that are the user's to mend, and one line for those of Hydra and OmegaConf."""

import dataclasses
import difflib
import re
import typing
from collections import defaultdict
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from rose.config.schema import Config

SHARING = (
    " (users who share outputs= need a group and a umask such as 002 in common when they write; "
    "else give a folder of your own)"
)
CONF = Path(__file__).resolve().parents[1] / "conf"


class RoseError(ValueError):
    """One line that names the key, the value and what is allowed; printed without a traceback, exit code 1."""


def explain(error: BaseException) -> str:
    """One line of what may be several, with the nearest key or option that exists."""
    if isinstance(error, RoseError):
        return re.sub(r"=None(?=[:;,]| )", "=null", " ".join(str(error).split()))  # YAML's word
    if isinstance(error, OSError) and not isinstance(error, HydraException):  # a missing option is both
        hint = SHARING if isinstance(error, PermissionError) else ""
        return f"{error.filename or 'input or output'}: {error.strerror or error}{hint}"
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    lines = [line.strip() for line in f"{error}\n{cause}".splitlines() if line.strip()]
    noise = ("object_type", "reference_type", "To append to your", "Config search path", "provider=", "Set the env")
    text = " ".join(dict.fromkeys(line for line in lines if not line.startswith(noise)))
    text = re.sub(r"\b_base\b,? ?", "", text)  # what options are made from is not an option
    return text + _near_miss(text)


def _near_miss(text: str) -> str:
    unknown = re.search(r"Could not override '([\w.]+)'|Key '\w+' (?:is )?not in .*full_key: ([\w.]+)", text)
    choice = re.search(r"Could not find '(\w+)/(\w+)'", text)
    if choice:
        options = [path.stem for path in (CONF / choice[1]).glob("[!_]*.yaml")]
        near = difflib.get_close_matches(choice[2], options, n=1)
        return f"; did you mean '{near[0]}'?" if near else ""
    return nearest(unknown[1] or unknown[2]) if unknown else ""


def nearest(typed: str) -> str:
    """`; did you mean '…'?` with the key whose last name is most like that of what was typed; empty without any."""
    names = defaultdict(list)
    for path in keys(Config) - {typed}:
        names[path.rpartition(".")[2]].append(path)
    near = difflib.get_close_matches(typed.rpartition(".")[2], names, n=1, cutoff=0.7)
    best = difflib.get_close_matches(typed, names[near[0]], n=1, cutoff=0) if near else []
    return f"; did you mean '{best[0]}'?" if best else ""


def keys(schema: type, prefix: str = "") -> set[str]:
    """Every key of a dataclass schema, at any depth, by its path."""
    found = set()
    for field in dataclasses.fields(schema):
        found.add(f"{prefix}{field.name}")
        for kind in (field.type, *typing.get_args(field.type)):
            if dataclasses.is_dataclass(kind):
                found |= keys(kind, f"{prefix}{field.name}.")
    return found
