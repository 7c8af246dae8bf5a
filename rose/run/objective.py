"""objective=METRIC: the number that a job returns, for sweepers that search (docs/SWEEPS.md)."""

import difflib
import json
import logging
import math
from itertools import chain
from pathlib import Path

from rose.config.choices import Fault, JudgeKind
from rose.config.schema import Config
from rose.errors import RoseError
from rose.report.metrics import MARGINS
from rose.run import record
from rose.run.job import goals
from rose.stages.graph import Node, plan

log = logging.getLogger(__name__)

AUC = ("auc", "auc_within", *(f"auc_{fault}" for fault in Fault))
METRICS = {  # of each stage, those that can be searched by
    "selection": ("selected_rows", "selected_tokens", "length_correlation", "precision", "intact", *AUC),
    "fidelity": ("fidelity", "fidelity_matched", "fidelity_longer", "fidelity_length"),
    "evaluation": ("chosen_loss", *(f"preference_accuracy{end}" for end in ("", "_per_token", "_vs_base")), *MARGINS),
    "verdicts": ("reward", "win_rate", "win_rate_length_controlled", "answer_length"),
    "tasks": (),
}


def require(config: Config, nodes: dict[str, Node]) -> None:
    """Raises RoseError for an objective that no stage of the job measures."""
    if config.objective is None:
        return
    wanted = chain(*goals(config.until, nodes, Path(config.outputs)))
    reached = {node.name for goal in wanted for node, _ in plan(nodes[goal], Path(config.outputs))}
    there = {kind for kind, node in nodes.items() if node.name in reached}
    absent = _without_truth(config)
    if config.judge.kind is JudgeKind.llm:
        absent.add("reward")
    if "finetune" not in nodes:
        absent |= {*MARGINS, "preference_accuracy_vs_base"}
    names = [name for kind, metrics in METRICS.items() if kind in there for name in metrics if name not in absent]
    names += [f"accuracy_{config.tasks.name}"] * ("tasks" in there)
    if config.objective not in names:
        raise RoseError(f"objective={config.objective}: is not measured by this job{_nearest(config.objective, names)}")


def _without_truth(config: Config) -> set[str]:
    """What cannot be measured where nothing says which rows are useful, or have that fault."""
    absent = set() if config.dataset.world else {"precision"}
    if not config.plant.faults:
        return absent | {"intact", *AUC}
    return absent | {f"auc_{fault}" for fault in Fault if fault not in config.plant.faults}


def value(objective: str | None, directory: Path) -> float | None:
    """The metric of a job that is done; None where it has failed or the metric is no number."""
    if objective is None or record.state(directory) != "done":
        return None
    metrics = json.loads((directory / "metrics.json").read_text())
    if objective not in metrics:
        message = "objective=%s: is not in %s%s"
        log.error(message, objective, directory / "metrics.json", _nearest(objective, list(metrics)))
        return None
    return float(metrics[objective]) if math.isfinite(metrics[objective]) else None


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; it has {', '.join(names)}" if names else "; it measures nothing"
