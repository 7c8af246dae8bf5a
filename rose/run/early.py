"""What comes before anything is trained or measured: every file is read, every model tried.

A sweep's files are read where it is started, those of all jobs before the first: reading takes the
memory of a row, and each was read for its fingerprint there already. The models of all jobs are tried
there too if the jobs run in that process. Else a model is tried by the first job that needs it, as
there may be neither a GPU nor the memory for one where a sweep is started; what its configuration
alone tells (`rose.training.bare`) is told there. What fails one job fails all that rest on it: they
say so at once and do not try it again.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path

from rose import device
from rose.errors import RoseError, one_line
from rose.ranks import Lost
from rose.stages import leases
from rose.stages.build import build
from rose.stages.graph import Node, plan

FILES = ("pool", "preferences", "questions")
TRIALS = ("trial", "student_trial")
# with all that a trial rests on: `rose.run.survey` lets whatever is not here wait for the trials
ORDER = ("whole_pool", "aside", *FILES, "base", "tokens", "student_base", "student_tokens", *TRIALS)

PASSING = (Lost, OSError)  # what another job, or another machine, need not meet: a full disk, a hub that is away

Nodes = dict[str, Node]


class SaidAlready(RoseError):
    """Another job of the sweep has failed by this, and said it."""


def early(nodes: Nodes, goals: Sequence[Sequence[str]], outputs: Path) -> list[str]:
    """Those of ORDER that the missing stages among what `goals` rest on need, or that speak for them."""
    steps = [step for name in chain(*goals) for step in plan(nodes[name], outputs)]
    missing = {node.name: node for node, state in steps if state == "missing"}
    models = {node.inputs["base"].name for node in missing.values() if "numerics" in node.inputs}
    asks = any("tasks" in node.inputs for node in missing.values())

    def needed(name: str) -> bool:
        if name in TRIALS:
            return nodes[name].inputs["base"].name in models
        return asks if name == "questions" else nodes[name].name in missing

    return [name for name in ORDER if name in nodes and needed(name)]


def before_all(
    jobs: Iterable[tuple[Nodes, Callable[[], list[list[str]]], Path]], sweep: Path, names: Sequence[str]
) -> None:
    """Makes these of a sweep's jobs (nodes, goals, outputs). A world is no file: its job makes it."""
    handler = logging.FileHandler(sweep / "rose.log", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        for nodes, goals, outputs in jobs:
            here = [name for name in names if name in nodes and nodes[name].inputs.get("source") != "world"]
            absent = [name for name in here if not nodes[name].path(outputs).exists()]
            for name in goals()[0] if absent else ():
                if name in absent:
                    build(nodes[name], outputs)
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def begin(names: Sequence[str], nodes: Nodes, outputs: Path, job: Path, make: Callable[[Node], object]) -> None:
    """Makes what comes first. Where it has failed another job of the sweep it is not tried again."""
    in_sweep = (job.parent / "sweep.json").exists()
    for name in names:
        if not in_sweep or nodes[name].path(outputs).exists():
            make(nodes[name])
            continue
        said = job.parent / f".failed-{nodes[name].name.replace('/', '-')}"
        with leases.held(said.with_name(f"{said.name}.lease"), nodes[name].name):
            if said.exists():
                raise SaidAlready(said.read_text())
            try:
                make(nodes[name])
            except Exception as error:
                passing = isinstance(error, PASSING) or isinstance(error.__cause__, OSError)
                if not passing and not device.failed(error):  # a device that others fill
                    said.write_text(one_line(error))
                raise


def forget(sweep: Path) -> None:
    """What failed when the sweep ran before is tried again."""
    for said in sweep.glob(".failed-*"):
        if said.suffix != ".lease":
            said.unlink(missing_ok=True)
