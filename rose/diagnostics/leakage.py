"""Leakage: test prompts that the pool or the target pairs hold already, and target prompts that the pool holds."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy

from rose.data import files
from rose.data.chat import said
from rose.diagnostics.overlap import WORDS, Index, words
from rose.stages.disk import write_json
from rose.stages.graph import stage

LONG, SHORT = 13, 8  # words of a run: GPT-3's 13 (arXiv 2005.14165, appendix C), 8 where a prompt has few of these
COVERED = 0.5  # share of a prompt's runs that one row holds
SIMILAR = 0.8  # Jaccard index of two near-duplicates' shingles, as in Lee et al. (arXiv 2107.06499)
CHUNK = 2048  # rows compared at once
KINDS = ("exact", "near", "ngram")


class Text(NamedTuple):
    id: str
    prompt: str
    whole: str  # with its answers


@stage("leakage", version=1)
def leakage(out: Path, pool: Path, preferences: Path) -> None:
    """Writes leaks.jsonl and leakage.json: what was compared, and how many prompts leaked, in all and by kind.

    leaks.jsonl: {"between", "id", "kind", "share", "row"}: a prompt of the second side, by the id of its first pair,
    and the row of the first side that holds it. between: pool/test, pool/target, target/test. kind, the first that
    holds: exact (the row's prompt has the same words), near (Jaccard index of five-word shingles of the two prompts
    ≥ 0.8, computed exactly: one side is small, so it need not be estimated by MinHash), ngram (one row, answers
    included, holds at least half of the prompt's runs of 13 words, or of 8 if the prompt has fewer than 26). Prompts
    of fewer than 8 words can only be exact. share: the Jaccard index, or the share of runs.
    """
    target, test = (first_pairs(preferences / f"{name}.jsonl") for name in ("target", "test"))
    in_pool = leaks(target + test, pool_rows(pool))  # one pass over the pool for both
    held = {
        "pool/test": (test, in_pool[len(target) :]),
        "pool/target": (target, in_pool[: len(target)]),
        "target/test": (test, leaks(test, pair_rows(preferences / "target.jsonl"))),
    }
    found, counts = [], {}
    for between, (prompts, leaked) in held.items():
        found += [{"between": between, "id": own.id} | leak for own, leak in zip(prompts, leaked, strict=True) if leak]
        kinds = {kind: sum(leak is not None and leak["kind"] == kind for leak in leaked) for kind in KINDS}
        counts[between] = {"prompts": len(prompts), "leaked": sum(kinds.values())} | kinds
    (out / "leaks.jsonl").write_text("".join(json.dumps(leak) + "\n" for leak in found))
    write_json(out / "leakage.json", counts)


def leaks(prompts: list[Text], rows: Iterable[Text]) -> list[dict | None]:
    """{"kind", "share", "row"} for each prompt that a row holds, else None."""
    split = [words(text.prompt) for text in prompts]
    same: dict[str, list[int]] = defaultdict(list)
    for number, own in enumerate(split):
        same[" ".join(own)].append(number)
    runs = {size: Index([own if size == run_length(own) else [] for own in split], size) for size in (LONG, SHORT)}
    prompt_index = Index(split, WORDS)
    found: dict[int, dict] = {}
    for chunk in chunks(rows):
        asked = [words(row.prompt) for row in chunk]
        for place, own in enumerate(asked):
            for number in same.get(" ".join(own), ()) if own else ():
                _keep(found, number, {"kind": "exact", "share": 1.0, "row": chunk[place].id})
        for number, place, share in best(prompt_index.jaccard(asked), SIMILAR):
            _keep(found, number, {"kind": "near", "share": share, "row": chunk[place].id})
        said = [words(row.whole) for row in chunk]
        for index in runs.values():
            for number, place, share in best(index.covered(said), COVERED):
                _keep(found, number, {"kind": "ngram", "share": share, "row": chunk[place].id})
    return [found.get(number) for number in range(len(prompts))]


def run_length(own: list[str]) -> int:
    return LONG if len(own) >= 2 * LONG else SHORT


def best(shares, least: float) -> Iterator[tuple[int, int, float]]:
    """(column, row, value) of each column's greatest value, where it is at least `least`; ties: the first row."""
    if not shares.nnz:
        return
    columns = shares.tocsc()
    greatest, place = columns.max(axis=0).toarray().ravel(), numpy.asarray(columns.argmax(axis=0)).ravel()
    for number in numpy.flatnonzero(greatest >= least):
        yield int(number), int(place[number]), float(greatest[number])


def _keep(found: dict[int, dict], number: int, leak: dict) -> None:
    """The first kind that holds, and of this kind the greatest share."""
    old = found.get(number)
    if old is None or (-KINDS.index(leak["kind"]), leak["share"]) > (-KINDS.index(old["kind"]), old["share"]):
        found[number] = leak


def chunks(rows: Iterable[Text]) -> Iterator[list[Text]]:
    rows = iter(rows)
    while chunk := list(islice(rows, CHUNK)):
        yield chunk


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
