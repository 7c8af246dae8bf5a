"""Preference pairs: which guide the selection, which test it. Their layouts are in preference_formats.py."""

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from rose.config.data import Pairs
from rose.data import files, world
from rose.data.files import FileRow, Location
from rose.data.preference_formats import parse
from rose.errors import RoseError
from rose.seeds import numpy_generator
from rose.shares import part
from rose.stages.graph import stage

log = logging.getLogger(__name__)


def fingerprint(pairs: Pairs) -> str:
    """Tells contents apart: `source` of `read_preferences`."""
    if pairs.world is not None:
        return "world"
    return "+".join(files.fingerprint(source) for source in (_target(pairs), _test(pairs)) if source is not None)


@stage("preferences", version=1)
def read_preferences(out: Path, pairs: Pairs, source: str) -> None:
    """Writes target.jsonl and test.jsonl: {"id", "subtask", "prompt", "chosen", "rejected", …other columns}.

    Without a test file, `test_share` of each subtask's prompts is held out, so that no prompt is on both
    sides. `shots` and `tests` then keep so many pairs of each subtask, one a prompt. `source` is
    `fingerprint(pairs)`. With on_bad_row=skip refused rows are listed in skipped.jsonl. Raises RoseError for
    a missing source, a bad row, an option out of range, or when either side is empty.
    """
    _check(pairs)
    target, test = _both_sides(out, pairs)
    common = {_prompt(row) for row in target} & {_prompt(row) for row in test}
    if common:
        log.warning("preferences: %d prompts are among both the target and the test pairs", len(common))
    for name, rows, count in (("target", target, pairs.shots), ("test", test, pairs.tests)):
        kept = rows if count is None else draw(rows, count, pairs.seed, name)
        if not kept:
            raise RoseError(f"preference.path={pairs.path}: no {name} pairs are left of those read")
        subtasks = Counter(row["subtask"] for row in kept)
        log.info(
            "preferences: %d %s pairs (%s)",
            len(kept),
            name,
            ", ".join(f"{k} {n}" for k, n in subtasks.items()),
        )
        short = [f"{name} {n}" for name, n in subtasks.items() if count is not None and n < count]
        if short:
            log.warning(
                "preferences: fewer than %d %s pairs with a prompt of their own: %s",
                count,
                name,
                ", ".join(short),
            )
        with open(out / f"{name}.jsonl", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in kept)


def hold_out(rows: list[dict], share: float, seed: int) -> tuple[list[dict], list[dict]]:
    """Splits by prompt: `share` of each subtask's prompts (at least one, never all) go to the second list."""
    prompts: dict[str, dict[str, None]] = defaultdict(dict)
    home: dict[str, str] = {}
    for row in rows:
        prompt = _prompt(row)
        prompts[home.setdefault(prompt, row["subtask"])][prompt] = None
    held: set[str] = set()
    for subtask, own in prompts.items():
        order = numpy_generator(seed, f"hold out {subtask}").permutation(len(own))
        count = min(max(1, round(part(share, len(own)))), len(own) - 1)
        held.update(list(own)[index] for index in order[:count])
    return [row for row in rows if _prompt(row) not in held], [row for row in rows if _prompt(row) in held]


def draw(rows: list[dict], count: int, seed: int, name: str) -> list[dict]:
    """`count` pairs of each subtask, one a prompt (fewer where prompts run out), in the order of `rows`.

    A smaller count keeps a subset of the same draw.
    """
    subtasks: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, row in enumerate(rows):
        subtasks[row["subtask"]][_prompt(row)].append(index)
    kept: list[int] = []
    for subtask, prompts in subtasks.items():
        rng = numpy_generator(seed, f"{name} pairs {subtask}")
        choices = list(prompts.values())
        for place in rng.permutation(len(choices))[:count]:
            kept.append(choices[place][rng.integers(len(choices[place]))])
    return [rows[index] for index in sorted(kept)]


def _both_sides(out: Path, pairs: Pairs) -> tuple[list[dict], list[dict]]:
    if pairs.world is not None:
        target, test = world.pairs(pairs.world)
        return _read(out, pairs, _numbered(target, "target")), _read(out, pairs, _numbered(test, "test"))
    target, source = _read(out, pairs, files.read_rows(_target(pairs))), _test(pairs)
    if source is not None:
        return target, _read(out, pairs, files.read_rows(source))
    return hold_out(target, pairs.test_share, pairs.seed)


def _read(out: Path, pairs: Pairs, rows: Iterable[FileRow]) -> list[dict]:
    skipped = out / "skipped.jsonl"
    before = sum(1 for _ in files.load(skipped)) if skipped.exists() else 0
    found = list(files.sift(rows, parse, "preference.pairs.on_bad_row", pairs.on_bad_row, skipped))
    bad = (sum(1 for _ in files.load(skipped)) if skipped.exists() else 0) - before
    if bad:
        log.warning("preferences: skipped %d bad rows; they are listed in %s", bad, skipped.name)
    if not found:
        raise RoseError(f"preference.path={pairs.path}: there are no preference pairs ({bad} bad rows skipped)")
    return found if pairs.min_score_ratio is None else _clear(found, pairs.min_score_ratio)


def _clear(rows: list[dict], ratio: float) -> list[dict]:
    """The pairs whose votes differ enough."""
    for row in rows:
        if "score_ratio" not in row:
            raise RoseError(
                f"preference.pairs.min_score_ratio={ratio}: pair {row['id']!r} has no score_chosen "
                "and score_rejected to compare; it must be null for such data"
            )
    kept = [row for row in rows if row["score_ratio"] >= ratio]
    log.info("preferences: %d of %d pairs have a score ratio of at least %g", len(kept), len(rows), ratio)
    return kept


def _check(pairs: Pairs) -> None:
    for name in ("shots", "tests"):
        value = getattr(pairs, name)
        if value is not None and value < 1:
            raise RoseError(f"preference.pairs.{name}={value}: must be at least 1, or null for all pairs")
    if not 0 < pairs.test_share < 1:
        raise RoseError(f"preference.pairs.test_share={pairs.test_share}: must lie between 0 and 1")


def _numbered(rows: list[dict], name: str) -> list[FileRow]:
    return [FileRow(f"world {name}", line, values) for line, values in enumerate(rows, 1)]


def _prompt(row: dict) -> str:
    return json.dumps(row["prompt"])


def _target(pairs: Pairs) -> Location:
    return Location("preference.path", pairs.path, list(pairs.files), pairs.revision)


def _test(pairs: Pairs) -> Location | None:
    if pairs.test_path is None:
        return None
    return Location("preference.test_path", pairs.test_path, list(pairs.test_files), pairs.revision)
