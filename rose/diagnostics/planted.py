"""What a score sees of planted faults: rows of one's own pool against copies of them with a faulty answer.

As control samples do in a laboratory, they tell whether a selector sees anything in this pool with
this model. The copies are scored as rows of the pool would be; none is ever in the pool.
"""

from pathlib import Path

import numpy
import pandas
from scipy.stats import binomtest, false_discovery_control

from rose.config.choices import Fault
from rose.data import files
from rose.data.planting import pairs_of
from rose.data.preferences import draw
from rose.diagnostics.fidelity import rate_of
from rose.diagnostics.finding import Finding, not_applicable, percent
from rose.errors import RoseError
from rose.evaluation.evaluate import wins
from rose.stages.disk import write_json, write_lines
from rose.stages.graph import stage

LEVEL = 0.05  # of the faults that are called seen, the expected share that chance made
SEES, PREFERS = "It sees", "It prefers the faulty answer of"
UNTOLD = "It cannot be told from chance on"


@stage("planted_pairs", version=1)
def planted_pairs(out: Path, faults: list[Fault], count: int, seed: int, pool: Path) -> None:
    """Writes test.jsonl: for each of `faults`, pairs of `count` rows and their faulty copies.

    The subtask is the fault. A row that has a planted fault already is passed over. Raises RoseError
    where no row can have a fault.
    """
    rows = [row for row in files.load(pool / "pool.jsonl") if "planted" not in row]
    pairs = pairs_of(rows, faults, seed)
    for pair in pairs:
        pair["subtask"] = pair.get("planted", "")
    if not pairs:
        raise RoseError(f"diagnostics.planted: none of the pool's {len(rows)} rows can have a fault; it must be false")
    write_lines(out / "test.jsonl", draw(pairs, count, seed, "planted"))


@stage("planted_seen", version=1)
def seen(out: Path, compared: Path) -> None:
    """Writes planted.json, the finding; `compared` is the selector fidelity of `planted_pairs`."""
    table = compared / "pairs.parquet"
    pairs = pandas.read_parquet(table) if table.exists() else pandas.DataFrame()
    none = not_applicable("planted", "No score outside the pool: planted faults cannot be looked for.")
    finding = none if pairs.empty else judged(pairs)
    write_json(out / "planted.json", finding.as_json())


def judged(pairs: pandas.DataFrame) -> Finding:
    """The share of rows that score above their faulty copy, and the faults for which that is no chance.

    A two-sided sign test for each fault, with Benjamini and Hochberg's correction over the faults.
    """
    table = pairs.assign(higher=wins(pairs.chosen_score - pairs.rejected_score))
    share, low, high = rate_of(table.higher.to_numpy(), table["prompt"].to_numpy())
    faults = by_fault(table)
    sentences = [
        f"Of {len(table)} rows, {percent(share)} score higher than a copy with a planted fault "
        f"(95 %: {percent(low)} to {percent(high)}; chance: 50 %)."
    ]
    for verdict in (SEES, PREFERS, UNTOLD):
        of = faults[faults.verdict == verdict]
        counts = [f"{fault} ({row.won} of {row.pairs})" for fault, row in of.iterrows()]
        sentences += [f"{verdict} {', '.join(counts)}."] if counts else []
    suspicious = low <= 0.5 or PREFERS in set(faults.verdict)
    return Finding("planted", share, suspicious, " ".join(sentences), faults.to_dict("index"))


def by_fault(table: pandas.DataFrame) -> pandas.DataFrame:
    """A row a fault: pairs, won and lost (a tie is neither), p, and the verdict: is p below LEVEL?"""
    groups = table.groupby("subtask").higher
    faults = pandas.DataFrame({"pairs": groups.size()})
    faults["won"] = groups.apply(lambda higher: int((higher == 1).sum()))
    faults["lost"] = groups.apply(lambda higher: int((higher == 0).sum()))
    counts = zip(faults.won, faults.lost, strict=True)
    faults["p"] = false_discovery_control([binomtest(won, max(1, won + lost)).pvalue for won, lost in counts])
    faults["verdict"] = numpy.where(faults.p >= LEVEL, UNTOLD, numpy.where(faults.won > faults.lost, SEES, PREFERS))
    return faults
