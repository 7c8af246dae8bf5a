"""Influence

A random Llama's adapter at two checkpoints (one layer, width 64, float32), ten rows and three
targets of 24 tokens; the whole way from tokens to influence, by dattri's per-sample gradients and
by ours, both without projection. DataInf is one block in ours and one a layer in dattri, which is
the same for a model of one layer, here a linear one. dattri's KNN-Shapley knows hard labels: the
rows are as the target or its opposite.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy
import pandas
import torch
from dattri.algorithm.data_shapley import KNNShapleyAttributor
from dattri.algorithm.influence_function import IFAttributorDataInf
from dattri.algorithm.tracin import TracInAttributor
from dattri.task import AttributionTask
from torch.utils.data import DataLoader, TensorDataset

from bench.peers.row import Row, largest, version
from bench.peers.stores import store
from bench.setting import SETTINGS
from rose.config.choices import Estimator, Normalize
from rose.gradients.objectives import SFT, gradients
from rose.gradients.per_example import PerExample
from rose.methods.estimators import View, datainf, shapley
from rose.methods.gradient import influence

ROWS, TARGETS, TOKENS, PROMPT = 10, 3, 24, 8
RATES = [0.7, 0.3]


def rows() -> Iterator[Row]:
    torch.manual_seed(0)
    peer = version("dattri")
    yield Row("cosines over two checkpoints (LESS, CosIn)", peer, largest(*cosines()), 1e-5)
    ours, theirs = linear()
    share = largest(ours, theirs) / float(abs(theirs).max())
    yield Row("DataInf of one layer, in units of the largest", peer, share, 1e-4)
    yield Row("KNN-Shapley, hard labels", peer, max(largest(*neighbours(k)) for k in (1, 3, 7)), 1e-6)


def cosines() -> tuple[numpy.ndarray, numpy.ndarray]:
    model = SETTINGS["tiny"].model()
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    states = [{name: 0.1 * torch.randn_like(weight) for name, weight in weights.items()} for _ in RATES]
    pool, targets = (torch.randint(1, SETTINGS["tiny"].vocabulary, (count, TOKENS)) for count in (ROWS, TARGETS))

    def load(model: torch.nn.Module, state: dict) -> torch.nn.Module:
        model.load_state_dict(state, strict=False)
        return model

    def loss(parameters: dict, row: tuple[torch.Tensor]) -> torch.Tensor:
        (ids,) = row
        logits = torch.func.functional_call(model, parameters, (ids[None],)).logits[0, PROMPT - 1 : -1]
        return torch.nn.functional.cross_entropy(logits, ids[PROMPT:])

    def taken(ids: torch.Tensor) -> list[torch.Tensor]:
        encoded = [{"input_ids": row, "labels": [-100] * PROMPT + row[PROMPT:]} for row in ids.tolist()]
        with PerExample(model) as engine:
            return [gradients(engine, encoded, SFT).clone() for state in states if load(model, state)]

    with tempfile.TemporaryDirectory() as folder:
        features = [torch.nn.functional.normalize(each, dim=1) for each in taken(pool)]
        store(Path(folder) / "pool", features, RATES)
        store(Path(folder) / "targets", taken(targets), RATES, ["a"] * TARGETS)
        method = SimpleNamespace(estimator=Estimator.inner, whiten=False, checkpoints=None)
        table = pandas.DataFrame({"id": [f"r{row}" for row in range(ROWS)]})
        ours = influence(method, table, Normalize.per_pair, Path(folder) / "pool", Path(folder) / "targets").values
    task = AttributionTask(loss, model, states, checkpoints_load_func=load)
    attributor = TracInAttributor(task, weight_list=torch.tensor(RATES), normalized_grad=True)
    attributor.projector_kwargs = None  # its constructor knows no way to leave the projection out
    theirs = attributor.attribute(*(DataLoader(TensorDataset(ids), batch_size=4) for ids in (pool, targets)))
    return ours, theirs.numpy()


def linear() -> tuple[numpy.ndarray, numpy.ndarray]:
    """DataInf of y = wx under squared error, whose gradients are known by hand."""
    model = torch.nn.Linear(5, 1, bias=False)
    pool, targets = ((torch.randn(count, 5), torch.randn(count, 1)) for count in (ROWS, TARGETS))

    def loss(parameters: dict, row: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        x, y = row
        return (torch.func.functional_call(model, parameters, (x,)) - y).square().sum()

    features, directions = ((2 * (model(x) - y) * x).detach() for x, y in (pool, targets))
    with tempfile.TemporaryDirectory() as folder:
        ours = datainf(None, View(store(Path(folder), [features]), 0), directions, ["a"] * len(directions)).numpy()
    damping = features.square().mean().item() / 10  # the paper's, which dattri leaves to its caller
    task = AttributionTask(loss, model, dict(model.state_dict()))
    attributor = IFAttributorDataInf(task, regularization=damping)
    loaders = [DataLoader(TensorDataset(*data), batch_size=4) for data in (pool, targets)]
    attributor.cache(loaders[0])
    return ours, attributor.attribute(*loaders).detach().numpy()


def neighbours(count: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    side = torch.where(torch.rand(ROWS, 1) < 0.5, -1.0, 1.0)
    with tempfile.TemporaryDirectory() as folder:
        view = View(store(Path(folder), [side]), 0)
        ours = shapley(SimpleNamespace(neighbours=count), view, torch.ones(1, 1), ["a"]).numpy()
    data = [DataLoader(TensorDataset(each, each[:, 0]), batch_size=4) for each in (side, torch.ones(1, 1))]
    return ours[:, 0], KNNShapleyAttributor(count).attribute(*data)[0].numpy()
