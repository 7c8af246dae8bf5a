"""Keys stay in the environment: what is configured is written to disk, to W&B and into reports."""

import dataclasses
import os
import re
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rose.errors import RoseError

NAMED = re.compile(r"(^|_)(KEY|TOKEN|SECRET|PASSWORD)$")
SHORTEST = 12  # characters that a secret has at least; shorter values are words


def refuse_secrets(key_variable: str, *saved: Any) -> None:
    """Raises RoseError where a text in `saved` holds a key of the environment, or would read it.

    Keys are the variables that are named like one, and the one that holds the judge's key.
    """
    secrets = {name: value for name, value in os.environ.items() if NAMED.search(name) or name == key_variable}
    secrets = {name: value for name, value in secrets.items() if len(value) >= SHORTEST}
    if not secrets:
        return  # most machines have none, and a sweep asks for each of its jobs
    reads = re.compile(rf"\$\{{\s*oc\.env:[\s'\"]*({'|'.join(map(re.escape, secrets))})\b")
    for key, text in (pair for part in saved for pair in _texts(part, "")):
        for name, value in secrets.items():
            if value in text:
                fault = f"holds the value of the environment variable {name}, which would be saved"
                raise RoseError(f"{key}: {fault}; keys are taken from the environment alone")
        if read := reads.search(text):
            fault = f"reads the environment variable {read[1]}, whose value could be saved"
            raise RoseError(f"{key}: {fault}; keys are taken from the environment by whoever needs them")


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, DictConfig):  # as it is written to disk
        value = OmegaConf.to_container(value, resolve=False)
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        for name, item in value.items():
            yield key, str(name)
            yield from _texts(item, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, key)
    else:
        yield key, str(value)
