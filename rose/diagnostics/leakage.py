"""Leakage: test prompts in the pool or the target pairs, and target prompts in the pool."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy
from scipy.sparse import csr_array

from rose.data import files
from rose.data.chat import said
from rose.diagnostics.overlap import Index
from rose.methods.duplicates import SIMILAR, WORDS
from rose.methods.lexical import words
from rose.stages.disk import write_json, write_lines
from rose.stages.graph import stage

LONG, SHORT = 13, 8  # words of a run: GPT-3's 13 (arXiv 2005.14165), 8 where a prompt has few
COVERED = 0.5  # share of a prompt's runs that one row holds
CHUNK = 2048  # rows compared at once
KINDS = ("exact", "near", "ngram")


class Text(NamedTuple):
    id: str
    prompt: str
    whole: str  # with its answers


class Leak(TypedDict):
    kind: str
    share: float  # the Jaccard index, or the share of runs
    row: str  # its id


@stage("leakage", version=2)
def leakage(out: Path, pool: Path, preferences: Path) -> None:
    """Writes leakage.json: how many prompts were compared and leaked, in all and by kind.

    leaks.jsonl: {"between", "id", "kind", "share", "row"}: a prompt of the second side, by the id
    of its first pair, and the row of the first side that holds it. between: pool/test, pool/target,
    target/test. kind, the first that holds: exact (the row's prompt has the same words), near
    (Jaccard index of the prompts' five-word shingles ≥ 0.8, not estimated as one side is small),
    ngram (one row, answers included, holds at least half of the prompt's runs of 13 words, or of 8
    if the prompt has fewer than 26). Prompts of fewer than 8 words can only be exact.
    """
    target, test = (first_pairs(preferences / f"{name}.jsonl") for name in ("target", "test"))
    in_pool = leaks(target + test, pool_rows(pool))  # one pass over the pool for both
    sides = {
        "pool/test": (test, in_pool[len(target) :]),
        "pool/target": (target, in_pool[: len(target)]),
        "target/test": (test, leaks(test, pair_rows(preferences / "target.jsonl"))),
    }
    lines, counts = [], {}
    for between, (prompts, leaked) in sides.items():
        both = [(prompt, leak) for prompt, leak in zip(prompts, leaked, strict=True) if leak is not None]
        lines += [{"between": between, "id": prompt.id, **leak} for prompt, leak in both]
        kinds = {kind: sum(leak["kind"] == kind for _, leak in both) for kind in KINDS}
        counts[between] = {"prompts": len(prompts), "leaked": len(both), **kinds}
    write_lines(out / "leaks.jsonl", lines)
    write_json(out / "leakage.json", counts)


def leaks(prompts: list[Text], rows: Iterable[Text]) -> list[Leak | None]:
    """Of each prompt, None where no row holds it."""
    split = [words(text.prompt) for text in prompts]
    same: dict[str, list[int]] = defaultdict(list)
    for number, prompt in enumerate(split):
        if prompt:
            same[" ".join(prompt)].append(number)
    long = [prompt if len(prompt) >= 2 * LONG else [] for prompt in split]
    short = [prompt if len(prompt) < 2 * LONG else [] for prompt in split]
    runs = Index(long, LONG), Index(short, SHORT)
    prompt_index = Index(split, WORDS)
    leaked: dict[int, Leak] = {}
    rows = iter(rows)
    while chunk := list(islice(rows, CHUNK)):
        asked, whole = [words(row.prompt) for row in chunk], [words(row.whole) for row in chunk]
        exact = [(number, place, 1.0) for place, row in enumerate(asked) for number in same.get(" ".join(row), ())]
        hits = [("exact", exact), ("near", best(prompt_index.jaccard(asked), SIMILAR))]
        hits += [("ngram", best(index.covered(whole), COVERED)) for index in runs]
        for kind, places in hits:
            for number, place, share in places:
                leak: Leak = {"kind": kind, "share": share, "row": chunk[place].id}
                leaked[number] = min(leaked.get(number, leak), leak, key=_order)
    return [leaked.get(number) for number in range(len(prompts))]


def best(shares: csr_array, least: float) -> Iterator[tuple[int, int, float]]:
    """(column, row, value) of each column's greatest value from `least` on; ties: the first row."""
    if not shares.nnz:
        return
    columns = shares.tocsc()
    greatest, place = columns.max(axis=0).toarray().ravel(), numpy.asarray(columns.argmax(axis=0)).ravel()
    for number in numpy.flatnonzero(greatest >= least):
        yield int(number), int(place[number]), float(greatest[number])


def _order(leak: Leak) -> tuple[int, float]:
    """The first kind that holds comes first, and of this kind the greatest share."""
    return KINDS.index(leak["kind"]), -leak["share"]


def pool_rows(pool: Path) -> Iterator[Text]:
    """A row's prompt is what is said before its last answer."""
    for row in files.load(pool / "pool.jsonl"):
        messages = row["messages"]
        last = max(place for place, message in enumerate(messages) if message["role"] == "assistant")
        yield Text(row["id"], said(messages[:last]), said(messages))


def pair_rows(file: Path) -> Iterator[Text]:
    for pair in files.load(file):
        yield Text(pair["id"], said(pair["prompt"]), said(pair["prompt"] + pair["chosen"] + pair["rejected"]))


def first_pairs(file: Path) -> list[Text]:
    """The first pair of each prompt."""
    first: dict[str, Text] = {}
    for text in pair_rows(file):
        first.setdefault(text.prompt, text)
    return list(first.values())
