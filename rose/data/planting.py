"""Faults planted into a pool, so that it is known which rows a selector should not take."""

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy
import pandas

from rose.config.choices import Fault
from rose.config.data import Plant
from rose.data import files
from rose.data.faults import FAULTS
from rose.data.messages import is_answer, of_tools
from rose.data.preference_formats import RESERVED
from rose.data.rows import Message, PoolRow, PreferencePair
from rose.errors import RoseError
from rose.seeds import numpy_generator
from rose.shares import part
from rose.stages.disk import write_lines
from rose.stages.graph import stage

log = logging.getLogger(__name__)


class Trial(NamedTuple):
    """A row whose answer could have the fault."""

    number: int  # of the row
    fault: Fault
    answer: str  # the faulty one


@stage("aside", version=1)
def set_aside(out: Path, aside: int, seed: int, pool: Path) -> None:
    """Writes aside.jsonl, `aside` rows that pairs can be made of, no two of one prompt; pool.jsonl, the others.

    Rows with the prompt of one that is set aside are in neither. Raises RoseError where there are
    not as many.
    """
    rows = list(files.load(pool / "pool.jsonl"))
    first: dict[str, int] = {}
    for number, row in enumerate(rows):
        if _can_be_a_pair(row):
            first.setdefault(prompt_of(row), number)
    if aside >= len(first):
        fault = f"must be fewer than the {len(first)} rows of the pool with an answer to a prompt of their own"
        raise RoseError(f"plant.aside={aside}: {fault}")
    order = numpy_generator(seed, "set aside").permutation(list(first.values()))
    apart = [rows[number] for number in sorted(order[:aside])]
    prompts = {prompt_of(row) for row in apart}
    left = [row for row in rows if prompt_of(row) not in prompts]
    write_lines(out / "aside.jsonl", apart)
    write_lines(out / "pool.jsonl", left)
    log.info("plant: %d rows set aside, %d with their prompts left out", aside, len(rows) - len(left) - aside)


@stage("planted", version=1)
def plant(out: Path, plant: Plant, pool: Path) -> None:
    """Writes what `read_pool` writes, a share of the rows with a faulty last answer.

    In each source every row is given one of `plant.faults` by lot. Of the rows that can have theirs,
    `plant.share`, again by lot, get it and say so, `planted: <fault>`; the others, `control: <fault>`,
    are what they are compared with, so that the kinds of rows that a fault is possible in tell
    nothing. Raises RoseError where nothing can be planted.
    """
    rows = list(files.load(pool / "pool.jsonl"))
    planted = _planted(rows, plant)
    counts = Counter(row["planted"] for row in planted if "planted" in row)
    controls = sum("control" in row for row in planted)
    if plant.share and not counts:
        fault = f"of {controls} rows that can have their fault the share is none" if controls else "no row can have one"
        raise RoseError(f"plant.share={plant.share}, plant.faults={list(map(str, plant.faults))}: {fault}")
    write_lines(out / "pool.jsonl", planted)
    kinds, unfit = files.counts(counts), len(planted) - counts.total() - controls
    log.info(
        "plant: %d of %d rows have a fault (%s); %d cannot have theirs", counts.total(), len(planted), kinds, unfit
    )


def trials(rows: Sequence[PoolRow], faults: Sequence[Fault], seed: int) -> list[Trial]:
    """Each row's faulty answer, where it can have the fault that it is given by lot; by source, in random order."""
    result = []
    for source, numbers in _sources(rows).items():
        others = _neighbours([answer_of(rows[number]) for number in numbers])
        rng = numpy_generator(seed, f"plant {source}")
        order, start = rng.permutation(len(numbers)), int(rng.integers(len(faults)))
        for turn, place in enumerate(order, start):
            fault, number = faults[turn % len(faults)], numbers[place]
            answer = answer_of(rows[number])
            draw = numpy_generator(seed, f"plant {rows[number]['id']}")
            faulty = FAULTS[fault](answer, others[place], draw) if answer.strip() else None
            if faulty is not None:
                result.append(Trial(number, fault, faulty))
    return result


def answer_of(row: PoolRow) -> str:
    """The last message, if it is an answer that is learned; none where tools are called, which pairs cannot show."""
    last = row["messages"][-1]
    tools = "tools" in row or any(map(of_tools, row["messages"]))
    return last["content"] if is_answer(last) and not tools else ""


def answer_message(text: str) -> Message:
    return {"role": "assistant", "content": text}


def prompt_of(row: PoolRow) -> str:
    return json.dumps([(message["role"], message["content"]) for message in row["messages"][:-1]])


def pairs_of(rows: Sequence[PoolRow], faults: Sequence[Fault], seed: int) -> list[PreferencePair]:
    """A preference pair of each row that can have its fault: the row's own answer over the faulty one."""
    pairs = []
    for trial in sorted(trials(rows, faults, seed)):
        row = rows[trial.number]
        pair: PreferencePair = {
            "id": row["id"],
            "subtask": row["dataset"],
            "prompt": row["messages"][:-1],
            "chosen": row["messages"][-1:],
            "rejected": [answer_message(trial.answer)],
            "planted": str(trial.fault),
        }
        pairs.append(pair)
    return pairs


def truth(pool: Path) -> pandas.DataFrame:
    """id, dataset, fault (of those planted and their controls; else None) and intact of a planted pool's rows."""
    columns = [
        {
            "id": row["id"],
            "dataset": row["dataset"],
            "fault": row.get("planted", row.get("control")),
            "intact": "planted" not in row,
        }
        for row in files.load(pool / "pool.jsonl")
    ]
    return pandas.DataFrame(columns)


def faults_in(pool: Path, ids: Iterable[int]) -> numpy.ndarray:
    """The fault planted into each row of these ids, None in the others."""
    known = truth(pool).set_index("id")
    return known["fault"].where(~known["intact"]).reindex(list(ids)).to_numpy()


def _can_be_a_pair(row: PoolRow) -> bool:
    asked = any(message["content"].strip() for message in row["messages"][:-1])
    return asked and bool(answer_of(row).strip()) and row["dataset"] not in RESERVED


def _planted(rows: Sequence[PoolRow], plant: Plant) -> list[PoolRow]:
    result = [row.copy() for row in rows]
    groups: dict[tuple[str, Fault], list[Trial]] = defaultdict(list)
    for trial in trials(rows, plant.faults, plant.seed):
        groups[rows[trial.number]["dataset"], trial.fault].append(trial)
    due = Fraction(0)  # what rounding left over goes to the next group: there may be many small ones
    for group in groups.values():
        due += part(plant.share, len(group))
        count = min(len(group), int(due + Fraction(1, 2)))
        due -= count
        for trial in group[:count]:
            row = result[trial.number]
            row["messages"] = [*row["messages"][:-1], answer_message(trial.answer)]
            row["planted"] = str(trial.fault)
            if "useful" in row:
                row["useful"] = False
        for trial in group[count:]:
            result[trial.number]["control"] = str(trial.fault)
    return result


def _sources(rows: Iterable[PoolRow]) -> dict[str, list[int]]:
    sources: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        sources[row["dataset"]].append(number)
    return sources


def _neighbours(answers: Sequence[str]) -> list[str]:
    """For each answer the next longer one by words; for the longest, the one before it."""
    order = sorted(range(len(answers)), key=lambda place: len(answers[place].split()))
    following = dict(pairwise(order)) | ({order[-1]: order[-2]} if len(order) > 1 else {order[0]: order[0]})
    return [answers[following[place]] for place in range(len(answers))]
