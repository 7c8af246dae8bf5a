"""Formulas that no package has

Adam's map as LESS and ROSE publish it, number by number; the exact map beside a step of torch's own
AdamW (the change of a weight, over the learning rate); KNN-Shapley beside the mean gain over all
720 orders in which six rows can arrive; mean→max as LESS's matching script has it.
"""

import itertools
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy
import torch

from bench.peers.row import Row, largest, relative, version
from bench.peers.stores import store
from rose.config.choices import AdamMap
from rose.gradients.adam import Moments, apply_adam
from rose.methods.estimators import View, shapley
from rose.methods.influence import Influence
from rose.methods.subtasks import mean_max

BETA1, BETA2, EPS, STEPS = 0.9, 0.999, 1e-8, 7


def rows() -> Iterator[Row]:
    weight, optimizer = trained()
    state = optimizer.state[weight]
    moments = Moments(state["exp_avg"], state["exp_avg_sq"], STEPS, BETA1, BETA2, EPS)
    gradients = 1e-3 * torch.randn(5, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours = apply_adam(gradients.clone(), moments, AdamMap.published)
    first, second = moments.exp_avg.tolist(), moments.exp_avg_sq.tolist()
    theirs = [
        [
            (BETA1 * m + (1 - BETA1) * g) / math.sqrt(BETA2 * v + (1 - BETA2) * g * g + EPS)
            for g, m, v in zip(row, first, second, strict=True)
        ]
        for row in gradients.tolist()
    ]
    yield Row("features.adam=published", "LESS's arithmetic", relative(ours, theirs), 1e-12)

    ours = apply_adam(gradients.clone(), moments, AdamMap.exact)
    theirs = []
    for gradient in gradients:
        weight, optimizer = trained()
        before = weight.detach().clone()
        weight.grad = gradient.clone()
        optimizer.step()
        theirs.append((before - weight.detach()).tolist())
    yield Row("features.adam=exact", version("torch"), relative(ours, theirs), 1e-9)

    yield Row("KNN-Shapley, soft labels", "all orders of arrival", max(shapley_gap(k) for k in (1, 2, 3)), 1e-6)

    influence = numpy.random.default_rng(0).normal(size=(9, 6))
    _, ours = mean_max(None, None, Influence(influence, ["a"] * 3 + ["b"] * 3))
    theirs = influence.reshape(9, 2, 3).mean(-1).max(-1)  # subtasks of one size, as LESS's script has them
    yield Row("mean→max", "LESS's arithmetic", largest(ours, theirs), 1e-12)


def trained() -> tuple[torch.nn.Parameter, torch.optim.AdamW]:
    """A weight and its optimizer after some steps, always the same."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(40, dtype=torch.float64))
    optimizer = torch.optim.AdamW([weight], lr=1.0, betas=(BETA1, BETA2), eps=EPS, weight_decay=0.0)
    for _ in range(STEPS):
        weight.grad = 1e-3 * torch.randn(40, dtype=torch.float64, generator=generator)
        optimizer.step()
    return weight, optimizer


def shapley_gap(neighbours: int) -> float:
    """Beside what each of six rows adds on average to the nearest ones' mean soft label."""
    rng = numpy.random.default_rng(neighbours)
    rows, target = (each / numpy.linalg.norm(each, axis=1, keepdims=True) for each in rng.normal(size=(2, 6, 4)))
    cosines = rows @ target[0]
    gains = numpy.zeros(6)
    for order in itertools.permutations(range(6)):
        worth = [
            sum(sorted(((1 + cosines[i]) / 2 for i in order[:count]), reverse=True)[:neighbours]) / neighbours
            for count in range(7)
        ]
        gains[list(order)] += numpy.diff(worth)
    with tempfile.TemporaryDirectory() as folder:
        view = View(store(Path(folder), [rows]), 0)
        ours = shapley(SimpleNamespace(neighbours=neighbours), view, torch.tensor(target[:1]).float(), ["a"])
    return largest(ours[:, 0], gains / math.factorial(6))
