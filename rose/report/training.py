"""How training went: the loss of each step, as the jobs have it in metrics.jsonl."""

import json
from collections import defaultdict
from collections.abc import Iterator

import numpy

from rose.errors import one_line
from rose.report.arms import Arm
from rose.report.drawing import Plot, figure_with_legend, short, styles
from rose.report.results import JobRecord
from rose.report.text import number

STAGES = {"warmup": "Warm-up", "finetune": "Fine-tuning"}

Curve = list[tuple[float, float]]  # step, loss


def training(arms: list[Arm], jobs: list[JobRecord], problems: list[str]) -> Iterator[Plot]:
    """A figure a stage, a line for each artifact of it; those that the same methods rest on look alike."""
    owner = {member: arm for arm in arms if arm.method != "zero_shot" for member in arm.members}
    for stage, name in STAGES.items():
        curves: dict[str, Curve] = {}  # by the stage's directory
        users: dict[str, dict[str, None]] = defaultdict(dict)  # the methods
        for job in sorted(jobs, key=lambda job: job.place):
            folder = job.directory(stage)
            if folder and job.dir.name in owner:
                users[folder][owner[job.dir.name].method] = None
                if folder not in curves:
                    curves[folder] = _curve(job, stage, problems)
        groups: dict[tuple[str, ...], list[Curve]] = defaultdict(list)
        for folder, curve in curves.items():
            if len(curve) > 1:
                groups[tuple(users[folder])].append(curve)
        if groups:
            yield _draw(stage, name, dict(groups), arms)


def _curve(job: JobRecord, stage: str, problems: list[str]) -> Curve:
    path = job.dir / "metrics.jsonl"
    try:
        entries = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [(float(e["step"]), float(e["loss"])) for e in entries if e.get("stage") == stage and "loss" in e]
    except (ValueError, KeyError, OSError, TypeError, AttributeError) as error:
        problems.append(f"{job.dir.name}/metrics.jsonl cannot be read: {one_line(error)}")
        return []


def _draw(stage: str, name: str, groups: dict[tuple[str, ...], list[Curve]], arms: list[Arm]) -> Plot:
    """`groups`: curves by the methods that rest on them, of which the first gives the colour."""
    names = {methods: " and ".join(methods) for methods in groups}
    figure, axes, columns = figure_with_legend(2.6, [*names.values()])
    colors = {arm.method: styles(arms)[arm.label]["color"] for arm in arms}
    for methods, curves in groups.items():
        for place, curve in enumerate(curves):
            label = "_" if place else short(names[methods])
            axes.plot(*_smooth(curve), color=colors[methods[0]], linewidth=0.9, alpha=0.8, label=label)
    axes.set(xlabel="step", ylabel="loss (nats a token)")
    axes.grid(axis="y")
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.2), ncols=columns, fontsize=8)
    ends = ((methods, _smooth(curves[0])[1]) for methods, curves in groups.items())
    alt = "; ".join(f"{names[methods]} from {number(losses[0])} to {number(losses[-1])}" for methods, losses in ends)
    caption = f"{name}: the loss, a line a trained model, each a running mean over a tenth of its steps."
    return Plot(f"training_{stage}", caption, alt, figure, folded=True)


def _smooth(curve: Curve) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Steps and losses as running means."""
    window = max(1, len(curve) // 10)
    steps, losses = (numpy.convolve(values, numpy.ones(window) / window, "valid") for values in numpy.array(curve).T)
    return steps, losses
