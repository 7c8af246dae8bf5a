"""Whether memory grows with the pool: the features stage itself, on pools of two sizes; meant for a tiny model."""

import json
import shutil
from pathlib import Path

import datasets
import numpy
import pyarrow
import torch
from safetensors.torch import save_file

from bench.setting import BETA1, BETA2, EPS, Setting
from rose.config.choices import AdamMap, Attention, Dtype, Keep, ProjectionKind, StoreDtype
from rose.config.schema import Features, Numerics, Projection
from rose.gradients.features import pool_features

FEATURES = Features(AdamMap.exact, Keep.store, StoreDtype.float16, batch_tokens=2048, shards=1)


def make(setting: Setting, folder: Path, sizes: tuple[int, ...]) -> dict:
    """The artifacts that the stage wants: base, a warm-up of one checkpoint, and the tokens of a pool of each size."""
    model = setting.model()
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    moments = {f"{name}.exp_avg": torch.zeros_like(weight) for name, weight in trained.items()}
    moments |= {f"{name}.exp_avg_sq": torch.full_like(weight, 1e-6) for name, weight in trained.items()}
    model.save_pretrained(str(folder / "warmup" / "checkpoint-1"))
    save_file(moments, folder / "warmup" / "checkpoint-1" / "moments.safetensors")
    manifest = {
        "optimizer": {"beta1": BETA1, "beta2": BETA2, "eps": EPS, "max_grad_norm": 1.0},
        "checkpoints": [{"dir": "checkpoint-1", "step": 1, "learning_rate": 1.0}],
    }
    (folder / "warmup" / "manifest.json").write_text(json.dumps(manifest))
    model.unload().save_pretrained(str(folder / "base"))
    for rows in sizes:
        tokens(folder / f"tokens_{rows}", numpy.random.default_rng(0).integers(8, 64, rows), setting.vocabulary)
    return {}


def featurise(
    setting: Setting,
    folder: Path,
    rows: int,
    features: Features = FEATURES,
    dim: int | None = None,
    dtype: Dtype = Dtype.float32,
) -> dict:
    """The stage on one of the pools; what it takes is the process's peak."""
    out = folder / f"features_{rows}"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    projection = Projection(ProjectionKind.sketch, dim or setting.size, 0)
    numerics = Numerics(dtype, Attention.sdpa, sharded=False)
    frozen = (numerics, folder / "base", folder / "warmup", folder / f"tokens_{rows}")
    pool_features(out, 1, features, projection, *frozen)
    return {"rows": rows}


def tokens(path: Path, lengths: numpy.ndarray, vocabulary: int) -> None:
    """A tokens artifact of random rows, labelled from their first token on."""
    offsets = pyarrow.array(numpy.concatenate(([0], lengths.cumsum())), pyarrow.int32())
    ids = numpy.random.default_rng(0).integers(0, vocabulary, lengths.sum(), numpy.int32)
    values = pyarrow.ListArray.from_arrays(offsets, ids)
    names = [f"row-{number}" for number in range(len(lengths))]
    table = pyarrow.table({"id": names, "dataset": ["s"] * len(names), "input_ids": values, "labels": values})
    datasets.disable_progress_bars()
    datasets.Dataset(datasets.table.InMemoryTable(table), fingerprint="rows").save_to_disk(path / "rows")
