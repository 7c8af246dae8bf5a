"""One function a system: takes the measured rows through it and returns its speed and how close it comes.

A system's exact answer is what it sets out to compute, without its projection: exact Adam updates (rose,
vmap, dattri_llm), the published ones (less), gradients over the root of Adam's second moment (bergson).
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from datasets import Dataset
from peft import PeftModel
from trak.projectors import BasicProjector, ProjectionType

from bench.setting import EPS, Setting, clock, cosines, load_exact, load_moments, loop, quality
from rose.config.choices import AdamMap, Balance, ProjectionKind, StoreDtype
from rose.config.schema import Projection
from rose.gradients.adam import apply_adam
from rose.gradients.feature_store import FeatureStore, Filling
from rose.gradients.features import Cosines
from rose.gradients.objectives import SFT, gradients
from rose.gradients.per_example import PerExample
from rose.gradients.projection import make_projector
from rose.gradients.quantize import width
from rose.gradients.spaces import description
from rose.gradients.updates import project_updates
from rose.methods.readout import Readout
from rose.models.batching import IGNORED, collate
from rose.models.log_probs import token_log_probs

DIM = 8192  # as LESS has it
ROSE_DIM, ROSE_DTYPE = 32_768, StoreDtype.int4  # the best of details.widths within LESS's 16 KiB a row
LESS_ROWS = 16  # gradients that LESS projects at once, and all that is timed of it
FEW_BATCHES = 8  # of all lengths, where nothing more is to be learnt from the others
SLOW_BATCHES = 3  # of systems too slow for the whole pool


def timed(batches: list[list[int]], step: Callable[[list[int]], object]) -> float:
    """Examples a second over `batches`, after one of them to warm up."""
    step(batches[len(batches) // 2])
    start = clock()
    for batch in batches:
        step(batch)
    return sum(map(len, batches)) / (clock() - start)


def backward(setting: Setting, folder: Path) -> dict:
    """The limit: a plain forward and backward pass of the same batches, logits at labelled tokens only."""
    model, rows = setting.model(), setting.pool()

    def step(batch: list[int]) -> None:
        log_probs, mask = token_log_probs(model, *collate([rows[i] for i in batch], setting.device))
        (-log_probs.sum(1) / mask.sum(1)).sum().backward()
        model.zero_grad()

    return {"examples_per_s": timed(setting.batches(rows), step)}


def rose(setting: Setting, folder: Path, adam: AdamMap = AdamMap.exact) -> dict:
    """This project, one checkpoint: per-example gradients, Adam's map, sketch, unit norm, store."""
    model, rows, aims = setting.model(), setting.pool(), setting.targets()
    moments = load_moments(folder, setting.device)
    with PerExample(model) as engine, tempfile.TemporaryDirectory(dir=folder) as place:
        projector = make_projector(Projection(ProjectionKind.sketch, ROSE_DIM, 0), engine.size, engine.device)
        store = FeatureStore.create(
            Path(place),
            [str(i) for i in range(len(rows))],
            ROSE_DTYPE,
            projector.describe(),
            {"checkpoint": 1.0},
        )

        def step(batch: list[int]) -> None:
            taken = gradients(engine, [rows[i] for i in batch], SFT)
            projected = project_updates(taken, moments, adam, projector)
            filling.write(batch, torch.nn.functional.normalize(projected))

        with Filling(store, 0) as filling:
            speed = timed(setting.batches(rows), step)
        taken = torch.cat([projector.project(gradients(engine, [row], SFT)) for row in aims])
        found = cosines(store.rows(0, 0, len(rows)), taken.cpu())
    return {
        "examples_per_s": speed,
        "bytes_per_example": width(ROSE_DTYPE, ROSE_DIM),
        **quality(found, _exact(folder, adam)),
    }


def stream(setting: Setting, folder: Path) -> dict:
    """features.keep=stream: the same gradients meet the targets' own as they come; nothing is projected."""
    model, rows, aims = setting.model(), setting.pool(), setting.targets()
    moments = load_moments(folder, setting.device)
    with PerExample(model) as engine, tempfile.TemporaryDirectory(dir=folder) as place:
        stores = []
        for name, its, dim in (("targets", aims, engine.size), ("cosines", rows, len(aims))):
            (Path(place) / name).mkdir()
            space = description(ProjectionKind.none, None, dim)
            ids = [str(i) for i in range(len(its))]
            stores.append(FeatureStore.create(Path(place) / name, ids, StoreDtype.float32, space, {"checkpoint": 1.0}))
        stores[0].write(0, range(len(aims)), torch.cat([gradients(engine, [row], SFT).clone() for row in aims]))
        projector = Cosines(stores[0], engine.device)

        def step(batch: list[int]) -> None:
            taken = gradients(engine, [rows[i] for i in batch], SFT)
            filling.write(batch, project_updates(taken, moments, AdamMap.exact, projector))

        with Filling(stores[1], 0) as filling:
            speed = timed(setting.batches(rows), step)
        found = stores[1].rows(0, 0, len(rows))
    return {
        "examples_per_s": speed,
        "bytes_per_example": 4 * len(aims),
        **quality(found, _exact(folder, AdamMap.exact)),
    }


def readout(setting: Setting, folder: Path) -> dict:
    """method=readout: the output layer's gradients of the base model, projected; another answer than the others'."""
    made, rows = Readout(setting.model().unload(), DIM, 0), setting.pool()

    def step(batch: list[int]) -> None:
        made.gradients([rows[i] for i in batch], mean=True, balance=Balance.none)

    return {"examples_per_s": timed(setting.batches(rows), step), "bytes_per_example": width(ROSE_DTYPE, DIM)}


def less(setting: Setting, folder: Path) -> dict:
    """Batch 1, the published Adam map, TRAK's projector on 16 gradients at a time."""
    model, rows, moments = setting.model(), setting.pool(), load_moments(folder, setting.device)
    project = _trak(setting)
    some = [i for batch in setting.batches(rows) for i in batch][:: len(rows) // LESS_ROWS][:LESS_ROWS]
    loop(model, rows[:1])
    start = clock()
    project(apply_adam(loop(model, [rows[i] for i in some]), moments, AdamMap.published))
    speed = len(some) / (clock() - start)
    pool, aims = load_exact(folder)
    updates = apply_adam(pool.clone(), load_moments(folder, "cpu"), AdamMap.published)
    features = project(torch.cat((updates, aims)))
    found = cosines(features[: len(rows)], features[len(rows) :])
    return {
        "examples_per_s": speed,
        "bytes_per_example": 2 * DIM,
        **quality(found, _exact(folder, AdamMap.published)),
    }


def _trak(setting: Setting) -> Callable[[torch.Tensor], torch.Tensor]:
    """[n, p] to [n, DIM] on the CPU: on a GPU what TRAK has for it, elsewhere its BasicProjector in LESS's blocks."""
    if setting.device == "cuda":
        projector = make_projector(Projection(ProjectionKind.trak, DIM, 0), setting.size, setting.device)
        return lambda gradients: torch.cat([projector.project(part).cpu() for part in gradients.split(LESS_ROWS)])
    rademacher, size = ProjectionType.rademacher, setting.size
    projector = BasicProjector(size, DIM, seed=0, proj_type=rademacher, device="cpu", block_size=128)
    return lambda gradients: projector.project(gradients, model_id=0)


def vmap(setting: Setting, folder: Path) -> dict:
    """torch.func: vmap of grad over the rows of a batch, exact Adam, no projection."""
    model, rows, moments = setting.model(), setting.pool(), load_moments(folder, setting.device)
    weights = {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}

    def loss(values: dict, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        kwargs = {"input_ids": inputs[None], "use_cache": False}
        logits = torch.func.functional_call(model, values, (), kwargs).logits[0]
        return torch.nn.functional.cross_entropy(logits, labels)

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
    features = torch.empty(len(rows), setting.size)
    measured = setting.batches(rows)
    measured = measured[:: max(1, len(measured) // FEW_BATCHES)]
    some = [i for batch in measured for i in batch]

    def step(batch: list[int]) -> None:
        taken = each(weights, *collate([rows[i] for i in batch], setting.device))
        flat = torch.cat([taken[name].flatten(1) for name in weights], dim=1)
        features[batch] = apply_adam(flat, moments, AdamMap.exact)

    speed = timed(measured, step)
    found = cosines(features[some], load_exact(folder)[1])
    return {
        "examples_per_s": speed,
        "bytes_per_example": 4 * features.shape[1],
        **quality(found, _exact(folder, AdamMap.exact)[some]),
    }


def bergson(setting: Setting, folder: Path) -> dict:
    """bergson's hooks with its Adam normalizer and its global projection, the one of full quality."""
    from bergson import GradientCollector, GradientProcessor, IndexConfig
    from bergson.gradients import AdamNormalizer

    model, rows, aims = setting.model(), setting.pool(), setting.targets()
    modules = [name.removesuffix(".weight") for name, weight in model.named_parameters() if weight.requires_grad]
    spread = load_moments(folder, setting.device).exp_avg_sq
    normalizers = {name: AdamNormalizer(v) for name, v in zip(modules, _as_weights(model, spread), strict=True)}

    def collect(of: list[dict], batches: list[list[int]], how: dict) -> tuple[float, torch.Tensor]:
        taken = torch.empty(len(of), DIM)
        with GradientCollector(
            model=model,
            processor=GradientProcessor(how, projection_dim=DIM, projection_target="global", projection_seed=0),
            target_modules=set(modules),
            data=Dataset.from_dict({"input_ids": [row["input_ids"] for row in of]}),
            cfg=IndexConfig(run_path=str(folder / f"bergson_{len(of)}")),
            skip_index=True,
        ) as collector:

            def step(batch: list[int]) -> None:
                _full_backward(model, [of[i] for i in batch])
                taken[batch] = collector.mod_grads.pop("gradients")

            return timed(batches, step), taken

    measured = setting.batches(rows)
    measured = measured[:: len(measured) // SLOW_BATCHES][:SLOW_BATCHES]
    some = [i for batch in measured for i in batch]
    speed, features = collect(rows, measured, normalizers)
    _, taken = collect(aims, setting.batches(aims), {})
    pool, exact = load_exact(folder)
    updates = pool[some] / (spread.sqrt() + EPS)
    found = cosines(features[some], taken)
    return {
        "examples_per_s": speed,
        "bytes_per_example": 4 * DIM,
        **quality(found, cosines(updates, exact)),
    }


def dattri_llm(setting: Setting, folder: Path) -> dict:
    """dattri-llm's hooks with exact Adam, then one dense projection a module: 64 × 128 = 8192 numbers."""
    from dattri_llm import HookManager, HookManagerConfig
    from dattri_llm.gradient.callbacks import CaptureCallback

    model, rows, aims = setting.model(), setting.pool(), setting.targets()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    state = load_moments(folder, setting.device)
    optimizer = torch.optim.AdamW(weights, lr=1.0, betas=(state.beta1, state.beta2), eps=state.eps, weight_decay=0.0)
    parts = zip(weights, _as_weights(model, state.exp_avg), _as_weights(model, state.exp_avg_sq), strict=True)
    for weight, first, second in parts:
        optimizer.state[weight] = {
            "step": torch.tensor(float(state.step)),
            "exp_avg": first,
            "exp_avg_sq": second,
        }

    def collect(of: list[dict], batches: list[list[int]], how: torch.optim.Optimizer | None) -> tuple:
        dense = {
            "style": "dense",
            "proj_dim": DIM // len(weights),
            "proj_max_batch_size": 8,
            "proj_type": "normal",
        }
        config = HookManagerConfig(linear_io=[r"lora_[AB]\."], projection_kwargs={"__default__": dense})
        captured = CaptureCallback()
        manager = HookManager(model, config=config, callbacks=[captured], optimizer=how)
        taken = torch.empty(len(of), DIM)

        def step(batch: list[int]) -> None:
            with manager.collect():
                _full_backward(model, [of[i] for i in batch])
            data = captured.record.gradient.data
            taken[batch] = torch.cat([data[name].flatten(1) for name in sorted(data)], dim=1)

        speed = timed(batches, step)
        manager.remove()
        return speed, taken

    speed, features = collect(rows, setting.batches(rows), optimizer)
    _, taken = collect(aims, setting.batches(aims), None)
    found = cosines(features, taken)
    return {
        "examples_per_s": speed,
        "bytes_per_example": 4 * DIM,
        **quality(found, _exact(folder, AdamMap.exact)),
    }


def _full_backward(model: PeftModel, rows: list[dict]) -> None:
    """Forward and backward as these libraries' users write it; their hooks take what they need on the way."""
    inputs, labels = collate(rows)
    logits = model(input_ids=inputs, use_cache=False).logits
    losses = torch.nn.functional.cross_entropy(logits.mT, labels, reduction="none").sum(1)
    (losses / (labels != IGNORED).sum(1)).sum().backward()
    model.zero_grad()


def _exact(folder: Path, how: AdamMap) -> torch.Tensor:
    pool, aims = load_exact(folder)
    return cosines(apply_adam(pool.clone(), load_moments(folder, "cpu"), how), aims)


def _as_weights(model: PeftModel, flat: torch.Tensor) -> list[torch.Tensor]:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    pieces = flat.split([weight.numel() for weight in weights])
    return [piece.view(weight.shape).clone() for piece, weight in zip(pieces, weights, strict=True)]
