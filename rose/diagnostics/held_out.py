"""The answers of held-out pairs as rows of the pool, so that every stage that reads the pool can read them."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from rose.data import files
from rose.data.chat import encode_pair, save_rows
from rose.errors import RoseError
from rose.models import loading
from rose.seeds import numpy_generator
from rose.stages.graph import stage

SIDES = ("chosen", "rejected")


@stage("held_out", version=1)
def answers_as_rows(out: Path, count: int | None, seed: int, max_length: int, base: Path, preferences: Path) -> None:
    """Writes what `tokenize` and `read_pool` write, rows/ and pool.jsonl: a row an answer, `<pair>/chosen` first.

    pairs.jsonl holds {"id", "prompt", "subtask"} of the pairs, in the same order: `count` of the test pairs (None:
    all), spread over their prompts. An answer is cut as the target pairs are, not as the pool is, so that it survives
    a long prompt. dropped.jsonl lists pairs passed over, {"id", "reason"}: nothing is left of an answer, or both are
    the same as far as they are read.
    """
    dropped = out / "dropped.jsonl"
    dropped.touch()
    tokenizer = loading.load_tokenizer(base)
    rows = []
    with open(out / "pairs.jsonl", "w") as pairs, open(out / "pool.jsonl", "w") as pool:
        for pair in spread(list(files.load(preferences / "test.jsonl")), seed):
            if count is not None and len(rows) == 2 * count:
                break
            both = encode_pair(tokenizer, pair, max_length)
            if both is None:
                reason = f"nothing is left of an answer, or of their difference, at model.max_length={max_length}"
                files.append(dropped, {"id": pair["id"], "reason": reason})
                continue
            prompt = json.dumps(pair["prompt"])
            pairs.write(json.dumps({"id": pair["id"], "prompt": prompt, "subtask": pair["subtask"]}) + "\n")
            for side, encoded in zip(SIDES, both, strict=True):
                named = {"id": f"{pair['id']}/{side}", "dataset": pair["subtask"]}
                pool.write(json.dumps(named | {"messages": pair["prompt"] + pair[side]}) + "\n")
                rows.append(named | encoded)
    if not rows:
        raise RoseError(f"model.max_length={max_length}: no answer of the test pairs fits; allow more tokens")
    save_rows(out, iter(rows))


def spread(pairs: list[dict], seed: int) -> Iterator[dict]:
    """Every pair, in a random order in which each prompt has its n-th pair before any has its n+1-st."""
    generator = numpy_generator(seed, "held-out pairs")
    turn: dict[str, int] = defaultdict(int)
    turns: dict[int, list[dict]] = defaultdict(list)
    for number in generator.permutation(len(pairs)):
        prompt = json.dumps(pairs[number]["prompt"])
        turns[turn[prompt]].append(pairs[number])
        turn[prompt] += 1
    for _, chosen in sorted(turns.items()):
        yield from chosen
