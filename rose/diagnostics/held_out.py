"""The answers of held-out pairs as rows of the pool, for the stages that read the pool."""

import json
from itertools import islice
from pathlib import Path

import pandas

from rose.data import files
from rose.data.chat import save_rows
from rose.data.dropping import list_dropped
from rose.data.encoded_pairs import encodable
from rose.data.rows import PreferencePair
from rose.errors import RoseError
from rose.models import loading
from rose.seeds import numpy_generator
from rose.stages.disk import write_lines
from rose.stages.graph import stage

SIDES = ("chosen", "rejected")


@stage("held_out", version=2)
def answers_as_rows(out: Path, count: int | None, seed: int, max_length: int, base: Path, preferences: Path) -> None:
    """Writes what `tokenize` and `read_pool` write: a row an answer, `<pair>/chosen` first.

    pairs.jsonl holds {"id", "prompt", "subtask"} of the pairs, in the same order: `count` of the
    test pairs (None: all), spread over their prompts. An answer is cut as the target pairs are, not
    as the pool is, so that it survives a long prompt. dropped.jsonl lists pairs passed over:
    nothing is left of an answer, or both are the same as far as they are read.
    """
    tokenizer = loading.load_tokenizer(base)
    pairs, pool, rows, dropped = [], [], [], []
    every = spread(list(files.load(preferences / "test.jsonl")), seed)
    for pair, both in islice(encodable(tokenizer, every, max_length, dropped), count):
        pairs.append({"id": pair["id"], "prompt": json.dumps(pair["prompt"]), "subtask": pair["subtask"]})
        for side, encoded in zip(SIDES, both, strict=True):
            named = {"id": f"{pair['id']}/{side}", "dataset": pair["subtask"]}
            pool.append(named | {"messages": pair["prompt"] + pair[side]})
            rows.append(named | encoded)
    if not rows:
        raise RoseError(f"model.max_length={max_length}: no answer of the test pairs fits ({dropped[0]['reason']})")
    list_dropped(out, dropped, len(dropped) + len(pairs), "test pairs")
    for name, lines in (("pairs", pairs), ("pool", pool)):
        write_lines(out / f"{name}.jsonl", lines)
    save_rows(out, iter(rows))


def spread(pairs: list[PreferencePair], seed: int) -> list[PreferencePair]:
    """All pairs, in a random order in which each prompt has its n-th before any has its n+1-st."""
    order = numpy_generator(seed, "held-out pairs").permutation(len(pairs))
    prompts = pandas.Series([json.dumps(pairs[number]["prompt"]) for number in order], dtype="str")
    turns = prompts.groupby(prompts).cumcount().sort_values(kind="stable")
    return [pairs[order[place]] for place in turns.index]
