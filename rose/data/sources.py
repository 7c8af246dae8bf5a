"""What the names of data files say: which are shards of one source, and which are kept for tests."""

import re
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any

from datasets.data_files import sanitize_patterns
from datasets.utils.metadata import MetadataConfigs
from fsspec.utils import glob_translate
from huggingface_hub import DatasetCard

from rose.data.bad_rows import Damaged
from rose.errors import one_line

# "-00000-of-00004" with or without the digest that older tools append, "part-0", "shard_1", "_000"
SHARD = re.compile(
    r"(?:^|[-_.])(?:\d+-of-\d+(?:-[0-9a-f]{8,})?|(?:part|shard|chunk)[-_.]?\d+(?:-of-\d+)?|0\d{2,})$", re.I
)
SAYS_NOTHING = ("data", "default", "train", "training", "")  # names that every source's files have


class Split(StrEnum):
    """Which of a folder's files are read where none are named; the words are those of `datasets`."""

    train = "train"
    test = "test"


def source_names(files: Iterable[str]) -> dict[str, str]:
    """Each file's source: the last of its folders and its own name that says something.

    All shards of a source have one. Where two sources would be called the same, the folders before
    are named too: cot/train.jsonl and dolly/train.jsonl are cot and dolly, a/x.jsonl and b/x.jsonl
    are a/x and b/x. Files' names come without their suffix.
    """
    paths = {file: _telling(file) for file in files}
    names = {}
    for file, path in paths.items():
        others = {other for other in paths.values() if other != path}
        depth = next((n for n in range(1, len(path)) if all(other[-n:] != path[-n:] for other in others)), len(path))
        names[file] = "/".join(path[-depth:])
    return names


def of_split(files: list[str], split: Split | None) -> list[str]:
    """The files for training, which are all that are not named as for validation or tests; or those for tests.

    All of them where names do not tell two kinds apart.
    """
    tests = [file for file in files if _has_word(file, "test|testing")]
    held_back = {*tests, *(file for file in files if _has_word(file, "validation|valid|val|dev|eval|evaluation"))}
    held_back = {file for file in held_back if not _has_word(file, "train|training")}
    wanted = files
    if split is Split.train:
        wanted = [file for file in files if file not in held_back]
    elif split is Split.test:
        wanted = [file for file in tests if file in held_back] or [file for file in files if file in held_back]
    return wanted or files


def declared(folder: Path, files: list[str], split: Split | None) -> list[str]:
    """The files of a split as the folder's README.md says it, by which the hub knows subsets and splits; else as named.

    Raises Damaged where there are several subsets and none is the default, or it cannot be read.
    """
    if not (folder / "README.md").is_file():
        return of_split(files, split)
    try:
        header: Any = DatasetCard.load(folder / "README.md").data
        subsets = MetadataConfigs.from_dataset_card_data(header)
        name = subsets.get_default_config_name()
        subset = subsets[name] if name else {}
        splits = sanitize_patterns(subset.get("data_files") or {})
        top = f"{subset['data_dir'].strip('/')}/" if subset.get("data_dir") else ""
    except Exception as error:  # whatever is wrong with other people's YAML
        raise Damaged(f"README.md cannot be read ({one_line(error, 100)})") from error
    if subsets and not name:
        raise Damaged(f"README.md has the subsets {', '.join(subsets)}, and none is the default")
    inside = [file for file in files if file.startswith(top)]
    patterns = [f"{top}{pattern}" for part in of_split(list(splits), split) for pattern in splits[part]]
    found = [file for file in inside if any(re.fullmatch(glob_translate(pattern), file) for pattern in patterns)]
    return found or of_split(inside or files, split)


def _has_word(file: str, words: str) -> bool:
    return re.search(rf"(?:^|[/_. -])(?:{words})(?:[/_. \d-]|$)", file, re.I) is not None


def _telling(file: str) -> tuple[str, ...]:
    *folders, name = file.split("/")
    parts = [*folders, SHARD.sub("", name)]
    telling = [part for part in parts if part.lower() not in SAYS_NOTHING]
    return tuple(telling or list(filter(None, parts))[-1:] or ["data"])
