"""Which versions of the libraries made a stage: recorded beside its inputs, no part of its name."""

import json
import logging
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

log = logging.getLogger(__name__)

PACKAGES = ("rose", "torch", "transformers", "peft", "tokenizers")


@cache
def installed() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):  # rose itself, run from its source
            versions[name] = version(name)
    return versions


def compare(directories: Iterable[Path]) -> None:
    """Says which of the artifacts that are about to be read were made by other versions."""
    for directory in directories:
        made = json.loads((directory / "inputs.json").read_text()).get("versions", {})  # older artifacts do not say
        current = installed().items()
        changes = [f"{name} {made[name]} (now {now})" for name, now in current if made.get(name, now) != now]
        if changes:
            _say_once(directory.parent.name, ", ".join(changes))


@cache
def _say_once(stage: str, changes: str) -> None:
    log.warning("a stage reads %s, made with %s", stage, changes)
