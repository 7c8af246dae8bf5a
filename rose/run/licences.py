"""Under which licence a selection's rows are, as far as the rows or their dataset's card say it."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import DatasetCard, hf_hub_download
from huggingface_hub.constants import REPOCARD_NAME

from rose.data import files
from rose.errors import RoseError
from rose.report.results import JobRecord
from rose.report.text import counted

COLUMNS = ("license", "licence")
SAYS_NONE = ("", "unknown", "none", "n/a")


class Licensed(NamedTuple):
    """Rows of one source under the same licences."""

    source: str
    licences: tuple[str, ...]  # as they were given
    rows: int
    said_by: str  # rows, dataset card, or who shares them


def licences(job: JobRecord, selected: Path, told: Sequence[str]) -> list[Licensed]:
    """What each row says, else its dataset's card, else `told`: NAME, or SOURCE=NAME.

    Raises RoseError for rows of which nobody says any, for what is told of a source that says its own,
    and for an empty NAME.
    """
    if empty := [text for text in told if not text.rpartition("=")[2].strip()]:
        raise RoseError(f"--license {empty[0]!r}: must be NAME or SOURCE=NAME")
    rows = Counter((str(row.get("dataset")), _own(row)) for row in files.load(selected))
    silent = {source: count for (source, own), count in rows.items() if not own}
    of_all = _texts(_card(job)) if silent else ()
    gaps = {} if of_all else silent
    named = {source: name for source, _, name in (text.rpartition("=") for text in told)}
    if missing := [source for source in gaps if not {source, ""} & set(named)]:
        counts = ", ".join(f"{source} ({counted(gaps[source], 'row')})" for source in missing)
        remedy = "ask their publisher, then say --license NAME, or --license SOURCE=NAME"
        raise RoseError(f"{job.dir}: no licence is said for the rows of {counts}; {remedy}")
    if idle := [source for source in named if (source not in gaps if source else not gaps)]:
        text = f"{idle[0]}=" * bool(idle[0]) + named[idle[0]]
        raise RoseError(f"--license {text}: {_already(of_all, gaps)}")
    found = []
    for (source, own), count in rows.items():
        if own:
            found.append(Licensed(source, own, count, "the rows"))
        elif of_all:
            found.append(Licensed(source, of_all, count, "the dataset's card"))
        else:
            found.append(Licensed(source, (named.get(source) or named[""],), count, "who shares them"))
    return sorted(found)


def _already(of_all: tuple[str, ...], gaps: dict[str, int]) -> str:
    if of_all:
        return f"the dataset's card says {', '.join(of_all)}"
    return f"the rows that say no licence are of {', '.join(gaps)}" if gaps else "every row says its own"


def _own(row: dict[str, Any]) -> tuple[str, ...]:
    return next((texts for name in COLUMNS if (texts := _texts(row.get(name)))), ())


def _texts(value: Any) -> tuple[str, ...]:
    """A licence or a list of them; () where that is none."""
    texts = [text.strip() for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]
    return tuple(text for text in texts if text.lower() not in SAYS_NONE)


def _card(job: JobRecord) -> Any:
    """What the header of the dataset's README.md says, in a local folder or on the hub."""
    path, revision = job.value("dataset.path"), job.value("dataset.revision")
    if not isinstance(path, str) or "${" in path or Path(path).is_file():
        return None
    try:
        local = Path(path).is_dir()
        where = {"repo_type": "dataset", "revision": revision}
        readme = Path(path) / REPOCARD_NAME if local else hf_hub_download(path, REPOCARD_NAME, **where)
        header: Any = DatasetCard.load(readme).data
        return header.license
    except Exception:  # no card, no hub, or a broken header: then nothing is said
        return None
