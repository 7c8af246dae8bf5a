"""Preference pairs: which guide the selection, which test it; preference_formats.py reads them."""

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from rose.config.choices import Fault, PairLayout
from rose.config.data import Pairs
from rose.data import files, world
from rose.data.bad_rows import BadRow
from rose.data.files import FileRow, Location
from rose.data.planting import pairs_of
from rose.data.preference_formats import ONE_A_ROW, gathered, layout_of, outvoted, parse, unread
from rose.data.rows import PreferencePair
from rose.data.sources import Split
from rose.errors import RoseError
from rose.seeds import numpy_generator
from rose.shares import part
from rose.stages.disk import write_lines
from rose.stages.graph import stage

log = logging.getLogger(__name__)


def fingerprint(pairs: Pairs) -> str:
    """Tells contents apart: `source` of `read_preferences`."""
    if pairs.world is not None:
        return "world"
    if pairs.planted:
        return "planted"
    return "+".join(map(files.fingerprint, _sources(pairs)))


def try_layout(pairs: Pairs) -> None:
    """Raises RoseError where the first rows of a local file could not be read; of one answer each, their columns."""

    def read(row: FileRow) -> object:
        one_answer = layout_of(row.values, pairs.layout)[0] in ONE_A_ROW
        return None if one_answer else _scored(row, pairs.min_score_ratio, pairs.layout)

    for source in _sources(pairs) if pairs.world is None and not pairs.planted else ():
        files.try_first(source, read, "preference.pairs.on_bad_row", pairs.on_bad_row)


@stage("preferences", version=3)
def read_preferences(
    out: Path, pairs: Pairs, source: str, faults: list[Fault] | None = None, aside: Path | None = None
) -> None:
    """Writes target.jsonl and test.jsonl, a PreferencePair a line.

    Without a test file, `test_share` of each subtask's prompts is held out, so that no prompt is on
    both sides. `shots` and `tests` then keep so many pairs of each subtask, one a prompt. `source`
    is `fingerprint(pairs)`; with `faults` the pairs are made from the rows that `aside`, a planted
    pool, went without. With on_bad_row=skip refused rows are listed in skipped.jsonl. Raises
    RoseError for a missing source, a bad row, or when either side is empty.
    """
    target, test = _both_sides(out, pairs, faults, aside)
    common = {_prompt(row) for row in target} & {_prompt(row) for row in test}
    if common:
        log.warning("preferences: %d prompts are among both the target and the test pairs", len(common))
    for name, rows, count in (("target", target, pairs.shots), ("test", test, pairs.tests)):
        rows = rows if count is None else draw(rows, count, pairs.seed, name)
        if not rows:
            raise RoseError(f"preference.path={pairs.path}: no {name} pairs are left of those read")
        _tell(name, Counter(row["subtask"] for row in rows), count)
        write_lines(out / f"{name}.jsonl", rows)


def hold_out(rows: list[PreferencePair], share: float, seed: int) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Splits by prompt: `share` of each subtask's (one at least, never all) are in the second."""
    prompts: dict[str, dict[str, None]] = defaultdict(dict)
    home: dict[str, str] = {}
    for row in rows:
        prompt = _prompt(row)
        prompts[home.setdefault(prompt, row["subtask"])][prompt] = None
    tests: set[str] = set()
    for subtask, distinct in prompts.items():
        order = numpy_generator(seed, f"hold out {subtask}").permutation(len(distinct))
        count = min(max(1, round(part(share, len(distinct)))), len(distinct) - 1)
        tests.update(list(distinct)[index] for index in order[:count])
    return [row for row in rows if _prompt(row) not in tests], [row for row in rows if _prompt(row) in tests]


def draw(rows: list[PreferencePair], count: int, seed: int, name: str) -> list[PreferencePair]:
    """`count` pairs of each subtask, one a prompt, fewer where prompts run out; in the rows' order.
    A smaller count keeps a subset of the same draw.
    """
    subtasks: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, row in enumerate(rows):
        subtasks[row["subtask"]][_prompt(row)].append(index)
    picks: list[int] = []
    for subtask, prompts in subtasks.items():
        rng = numpy_generator(seed, f"{name} pairs {subtask}")
        choices = list(prompts.values())
        for place in rng.permutation(len(choices))[:count]:
            picks.append(choices[place][rng.integers(len(choices[place]))])
    return [rows[index] for index in sorted(picks)]


def _tell(name: str, subtasks: Counter[str], count: int | None) -> None:
    """Logs how many pairs of each subtask there are, and which have fewer than were asked for."""
    counts = ", ".join(f"{subtask} {n}" for subtask, n in subtasks.items())
    log.info("preferences: %d %s pairs%s", subtasks.total(), name, f" ({counts})" if subtasks.keys() - {"all"} else "")
    short = ", ".join(f"{subtask} {n}" for subtask, n in subtasks.items() if n < (count or 0))
    if short:
        log.warning("preferences: fewer than %d %s pairs with a prompt of their own: %s", count, name, short)


def _both_sides(
    out: Path, pairs: Pairs, faults: list[Fault] | None, aside: Path | None
) -> tuple[list[PreferencePair], list[PreferencePair]]:
    if pairs.world is not None:
        named = zip(("world target", "world test"), world.pairs(pairs.world), strict=True)
        sides = [files.numbered(name, rows) for name, rows in named]
    elif faults and aside:
        rows = list(files.load(aside / "aside.jsonl"))
        made = pairs_of(rows, faults, pairs.seed)
        log.info("preferences: %d of %d rows that were set aside can have their fault", len(made), len(rows))
        if not made:
            fault = f"no answer of the {len(rows)} rows that were set aside can have such a fault"
            raise RoseError(f"preference.pairs.faults={list(map(str, faults))}: {fault}")
        sides = [files.numbered("planted", made)]
    else:
        sides = [files.read_rows(source) for source in _sources(pairs)]
    target, *test = (_read(out, pairs, side) for side in sides)
    if test:
        return target, test[0]
    log.info("preferences: %s of the prompts are held out for testing", f"{pairs.test_share:.0%}")
    return hold_out(target, pairs.test_share, pairs.seed)


def _read(out: Path, pairs: Pairs, source: Iterable[FileRow]) -> list[PreferencePair]:
    skipped = out / "skipped.jsonl"
    before = files.count(skipped)
    others: Counter[str] = Counter()

    def read(row: FileRow) -> list[PreferencePair]:
        found = _scored(row, pairs.min_score_ratio, pairs.layout)
        others.update(unread(row, pairs.layout))
        return found

    rows = list(
        files.sift(gathered(source, pairs.layout), read, "preference.pairs.on_bad_row", pairs.on_bad_row, skipped)
    )
    bad = files.count(skipped) - before
    if bad:
        log.warning("preferences: skipped %d bad rows; they are listed in %s", bad, skipped.name)
    if not rows:
        raise RoseError(f"preference.path={pairs.path}: there are no preference pairs ({bad} bad rows skipped)")
    if others:
        log.info("preferences: columns that are shown to no model: %s", files.counts(others))
    _doubt(rows)
    return rows if pairs.min_score_ratio is None else _clear(rows, pairs.min_score_ratio)


def _doubt(rows: list[PreferencePair]) -> None:
    """Says how many pairs are not what people expect of pairs, and what becomes of them."""
    answers = ("chosen", "rejected")
    doubts = {
        "have a lower score_chosen than score_rejected: they stay as they are labelled": outvoted,
        "have a prompt that ends in an assistant's turn: each answer is a turn of its own after it": (
            lambda row: row["prompt"][-1]["role"] == "assistant"
        ),
        "have an answer that ends in a turn which is not the assistant's: what follows its last one is not learned": (
            lambda row: any(row[name][-1]["role"] != "assistant" for name in answers)
        ),
    }
    for what, holds in doubts.items():
        if found := [row for row in rows if holds(row)]:
            log.warning("preferences: %d of %d pairs %s (%s)", len(found), len(rows), what, files.some_ids(found))


def _scored(row: FileRow, ratio: float | None, layout: PairLayout | None) -> list[PreferencePair]:
    """The row's pairs, each with a score ratio where there is a least `ratio`. Raises BadRow."""
    pairs = parse(row, scored=ratio is not None, layout=layout)
    for pair in pairs:
        if ratio is not None and "score_ratio" not in pair:
            raise BadRow(
                f"preference.pairs.min_score_ratio={ratio}: pair {pair['id']!r} has no score_chosen "
                "and score_rejected to compare; it must be null for such data"
            )
    return pairs


def _clear(rows: list[PreferencePair], ratio: float) -> list[PreferencePair]:
    """The pairs whose votes differ enough."""
    clear = [row for row in rows if row.get("score_ratio", 0) >= ratio]
    log.info("preferences: %d of %d pairs have a score ratio of at least %g", len(clear), len(rows), ratio)
    return clear


def _prompt(row: PreferencePair) -> str:
    return json.dumps(row["prompt"])


def _sources(pairs: Pairs) -> list[Location]:
    """Where the target pairs are, and the test pairs if they have a place of their own."""
    target = Location("preference.path", pairs.path, list(pairs.files), pairs.revision, Split.train)
    test = Location("preference.test_path", pairs.test_path, list(pairs.test_files), pairs.revision, Split.test)
    return [target] if pairs.test_path is None else [target, test]
