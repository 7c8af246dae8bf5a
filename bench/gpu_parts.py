"""What a batch takes, part by part, beside a plain pass over the same tokens; the features stage; a profile."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import torch
from peft import PeftModel
from torch.nn.functional import normalize
from torch.profiler import ProfilerActivity

from bench import memory
from bench.setting import BETA1, BETA2, EPS, STEPS, Setting, clock
from rose.config.choices import AdamMap, Dtype, ProjectionKind, StoreDtype
from rose.config.schema import Projection
from rose.gradients import updates
from rose.gradients.adam import Moments, apply_adam
from rose.gradients.feature_store import FeatureStore, Filling
from rose.gradients.objectives import SFT, gradients
from rose.gradients.per_example import PerExample
from rose.gradients.projection import make_projector
from rose.gradients.sketch import Sketch
from rose.gradients.updates import project_updates
from rose.models.batching import collate
from rose.models.log_probs import token_log_probs

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
DIM = 32_768
TINY = Setting(2, 64, 96, 4, 2, 97, rank=4, rows=4, dtype=torch.bfloat16)
LLAMA2 = Setting(32, 4096, 11_008, 32, 32, 32_000, rank=128, rows=8, dtype=torch.bfloat16, device="cuda")
SMOLLM2 = Setting(30, 576, 1536, 9, 3, 49_152, rank=8, rows=10, dtype=torch.bfloat16, device="cuda")
Row = tuple[str, Any, str]  # what, value, unit


def milliseconds(do: Callable[[], object], repeats: int = 5 if GPU else 1) -> float:
    """The median of some runs, after two to warm up."""
    taken = []
    for number in range(repeats + (2 if GPU else 0)):
        start = clock()
        do()
        taken.append(1e3 * (clock() - start))
        if number == 2 and taken[-1] > 2000:  # what is so slow is steady
            break
    return sorted(taken[-repeats:])[len(taken[-repeats:]) // 2]


@contextmanager
def precision(how: str) -> Iterator[None]:
    """Of products of float32: highest, or high (TF32)."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(how)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def random_rows(count: int, length: int, vocabulary: int, seed: int = 0) -> list[dict]:
    generator = torch.Generator().manual_seed(seed)
    made = torch.randint(0, vocabulary, (count, length), generator=generator).tolist()
    return [{"input_ids": ids, "labels": [-100] * (length // 3) + ids[length // 3 :]} for ids in made]


def moments(size: int) -> Moments:
    generator = torch.Generator(device=DEVICE).manual_seed(1)
    mean = torch.randn(size, generator=generator, device=DEVICE) * 1e-3
    square = torch.rand(size, generator=generator, device=DEVICE) * 1e-6 + 1e-9
    return Moments(mean, square, STEPS, BETA1, BETA2, EPS, max_grad_norm=1.0)


def llama2_rank_128(folder: Path) -> Iterator[Row]:
    """The published setting: all layers of Llama 2 7B's shape, bfloat16, rank 128 on q, k, v, o."""
    model = (LLAMA2 if GPU else TINY).model()
    for count, length in ((8, 512), (4, 512), (8, 128)):
        for how in ("highest", "high"):
            yield from of_batch(folder, model, count, length, "TF32" if how == "high" else "float32", how)


def llama2_rank_8(folder: Path) -> Iterator[Row]:
    model = replace(LLAMA2 if GPU else TINY, rank=8).model()
    for count, length in ((4, 512), (16, 512), (16, 128)):
        yield from of_batch(folder, model, count, length, "float32", "highest")


def smollm2(folder: Path) -> Iterator[Row]:
    """Does a batch of 2048 tokens, the default, fill the device? What does a float32 base cost?"""
    for dtype in (torch.bfloat16, torch.float32):
        model = replace(SMOLLM2 if GPU else TINY, dtype=dtype).model()
        for count in (10, 40, 160):
            yield from of_batch(folder, model, count, 200, f"{str(dtype)[6:]} base", "highest")


def of_batch(folder: Path, model: PeftModel, count: int, length: int, label: str, how: str) -> Iterator[Row]:
    """Milliseconds of a batch of `count` rows: the plain pass, each part of ours, all of it."""
    if not GPU:
        count, length = 2, 12
    some, name = random_rows(count, length, 97), f"{count} × {length}, {label}"
    with precision(how):
        plain = milliseconds(lambda: _plain(model, some))
        yield f"{name}: plain forward and backward", plain, "ms"
        if GPU:
            torch.cuda.reset_peak_memory_stats()
        with PerExample(model) as engine, tempfile.TemporaryDirectory(dir=folder) as place:
            state, sketch = moments(engine.size), _sketch(engine)
            header = ([str(i) for i in range(count)], StoreDtype.int4, sketch.describe(), {"checkpoint": 1.0})
            store = FeatureStore.create(Path(place), *header)
            taken = gradients(engine, some, SFT)
            with Filling(store, 0) as filling:

                def finish(projected: torch.Tensor) -> None:
                    filling.write(range(count), normalize(projected))

                def everything() -> None:
                    finish(project_updates(gradients(engine, some, SFT), state, AdamMap.exact, sketch))

                projected = sketch.project(taken)
                parts = {
                    "engine": lambda: gradients(engine, some, SFT),
                    "Adam's map": lambda: apply_adam(taken, state, AdamMap.exact),
                    "sketch": lambda: sketch.project(taken),
                    f"both, {_way(taken, sketch)}": lambda: project_updates(taken, state, AdamMap.exact, sketch),
                    "unit norm, codes, store": lambda: finish(projected),
                }
                for part, do in parts.items():
                    yield f"{name}: {part}", milliseconds(do), "ms"
                ours = milliseconds(everything)
    yield f"{name}: all of ours", ours, "ms"
    yield f"{name}: all of ours", 1e3 * count / ours, "rows/s"
    yield f"{name}: plain pass / ours", plain / ours, "×"
    if GPU:
        yield f"{name}: peak", torch.cuda.max_memory_allocated() / 2**30, "GiB"


def _plain(model: PeftModel, some: list[dict]) -> None:
    log_probs, mask = token_log_probs(model, *collate(some, DEVICE))
    (-log_probs.sum(1) / mask.sum(1)).sum().backward()
    model.zero_grad()


def _sketch(engine: PerExample) -> Sketch:
    found = make_projector(Projection(ProjectionKind.sketch, min(DIM, engine.size), 0), engine.size, engine.device)
    assert isinstance(found, Sketch)
    return found


def _way(taken: torch.Tensor, sketch: Sketch) -> str:
    return "one kernel" if updates.fits(taken, sketch) and updates.fused() else "in turn"


def stage(folder: Path) -> Iterator[Row]:
    """The features stage itself on a random pool: beside its parts it shows what the host costs."""
    setting = SMOLLM2 if GPU else TINY
    count = 2000 if GPU else 8
    lengths = numpy.random.default_rng(0).integers(100, 300, count) if GPU else numpy.full(count, 12)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        memory.make(setting, Path(place), sizes=())
        memory.tokens(Path(place) / f"tokens_{count}", lengths, setting.vocabulary)
        for batch_tokens in (2048, 16_384) if GPU else (64,):
            features = replace(memory.FEATURES, dtype=StoreDtype.int4, batch_tokens=batch_tokens)
            start = time.perf_counter()
            memory.featurise(setting, Path(place), count, features, min(DIM, setting.size), Dtype.bfloat16)
            yield f"batches of {batch_tokens} tokens", count / (time.perf_counter() - start), "rows/s"


def profile(folder: Path) -> Iterator[Row]:
    """Where a batch of 8 layers of 7B's shape goes: the dearest operations, more of them in profile.txt."""
    model = (replace(LLAMA2, layers=8) if GPU else TINY).model()
    some = random_rows(8, 512 if GPU else 12, 97)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if GPU else [])
    with PerExample(model) as engine:
        state, sketch = moments(engine.size), _sketch(engine)

        def once() -> None:
            project_updates(gradients(engine, some, SFT), state, AdamMap.exact, sketch).sum().item()

        once()
        with torch.profiler.profile(activities=activities) as seen:
            once()
    events = seen.key_averages()
    kind = "self_device_time_total" if GPU else "self_cpu_time_total"
    (folder / "profile.txt").write_text(events.table(sort_by=kind, row_limit=40, max_name_column_width=70))
    yield "launches", sum(event.count for event in events if "LaunchKernel" in event.key), ""
    for event in sorted(events, key=lambda event: -getattr(event, kind))[:8]:
        yield event.key[:60], getattr(event, kind) / 1e3, "ms"
