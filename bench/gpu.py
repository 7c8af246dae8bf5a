"""`python -m bench.gpu [FOLDER]`: is it right on a GPU, and where does the time go? One table, in at most four minutes.

Needs no network and no git, and writes into FOLDER alone (default outputs/bench/gpu): gpu.json and
profile.txt. Where there is no GPU it runs through on tiny shapes, to show that it would.
"""

import argparse
import gc
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cosine_similarity, normalize, scaled_dot_product_attention

from bench import gpu_parts
from bench.gpu_parts import DEVICE, GPU, Row, milliseconds, moments, precision
from bench.printing import machine, table
from bench.setting import Setting, loop
from rose.config.choices import AdamMap, ProjectionKind, StoreDtype
from rose.config.schema import Projection
from rose.gradients import adam
from rose.gradients.adam import apply_adam
from rose.gradients.objectives import SFT, gradients
from rose.gradients.per_example import PerExample
from rose.gradients.projection import make_projector
from rose.gradients.quantize import encode
from rose.gradients.updates import project_updates

HERE = Path(__file__).parent
FOLDER = HERE.parent / "outputs" / "bench" / "gpu"
SECONDS = 220  # after which no part begins any more


def main(folder: Path = FOLDER, seconds: float = SECONDS) -> list[dict]:
    """Measures every part in turn; one that fails, or comes too late, is a row that says so."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TRITON_CACHE_DIR"] = str(folder / "triton")  # elsewhere it would be in the home folder
    start, rows = time.perf_counter(), []
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "ceilings": ceilings,
        "attention kernels": attention,
        "engine beside float64": engine,
        "beside the CPU": maps,
        "7B, rank 128": partial(gpu_parts.llama2_rank_128, folder),
        "SmolLM2-135M": partial(gpu_parts.smollm2, folder),
        "features stage": partial(gpu_parts.stage, folder),
        "7B, rank 8": partial(gpu_parts.llama2_rank_8, folder),
        "profile": partial(gpu_parts.profile, folder),
    }
    for name, measure in parts.items():
        late = time.perf_counter() - start > seconds
        rows += [_row(name, "not measured: out of time")] if late else measured(name, measure)
        gc.collect()
        torch.cuda.empty_cache()
        report = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "gpu": GPU, "rows": rows}
        (folder / "gpu.json").write_text(json.dumps(report, indent=1) + "\n")
    print(table(rows))
    print(f"{machine()}, {time.perf_counter() - start:.0f} s{'' if GPU else '; not measured: there is no GPU here'}")
    return rows


def measured(part: str, measure: Callable[[], Iterator[Row]]) -> list[dict]:
    """A part's rows and its seconds. One that fails is a row that says why: the others are worth having."""
    start, rows = time.perf_counter(), []
    try:
        for what, value, unit in measure():
            rows.append(_row(part, what, value, unit))
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        rows.append(_row(part, f"fails: {type(error).__name__} {first[:150]}"))
    return [*rows, _row(part, "the part took", time.perf_counter() - start, "s")]


def _row(part: str, what: str, value: Any = None, unit: str = "") -> dict:
    return {"part": part, "what": what, "value": value, "unit": unit}


def ceilings() -> Iterator[Row]:
    """What the device can do at all: copies, products, launches."""
    into, big = torch.ones(2, 1 << (30 if GPU else 16), device=DEVICE)
    yield "copy", 8 * big.numel() / milliseconds(partial(into.copy_, big)) / 1e9, "TB/s"
    side = 8192 if GPU else 128
    for name, dtype, how in (
        ("bfloat16", torch.bfloat16, "highest"),
        ("float32", torch.float32, "highest"),
        ("TF32", torch.float32, "high"),
    ):
        one, other = torch.randn(2, side, side, device=DEVICE, dtype=dtype)
        with precision(how):
            yield f"product, {name}", 2 * side**3 / milliseconds(partial(torch.matmul, one, other)) / 1e9, "TFLOP/s"
    small = torch.ones(1, device=DEVICE)
    start = time.perf_counter()
    for _ in range(2000):
        small.add_(1)
    yield "a launch", (time.perf_counter() - start) / 2000 * 1e6, "µs"


def attention() -> Iterator[Row]:
    """Which kernels a causal attention without a mask can have, grouped heads or not; they are tried in turn."""
    kernels = (
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.MATH,
    )
    for dtype in (torch.bfloat16, torch.float32):
        for heads in (9, 3):
            shapes = [(2, count, 256 if GPU else 16, 64) for count in (9, heads, heads)]
            states = [torch.randn(shape, device=DEVICE, dtype=dtype, requires_grad=True) for shape in shapes]
            run = [kernel.name.split("_")[0].lower() for kernel in kernels if _runs(kernel, states, heads != 9)]
            yield f"{str(dtype)[6:]}, {9 // heads} query heads a key", " ".join(run), ""


def _runs(kernel: SDPBackend, states: list[torch.Tensor], grouped: bool) -> bool:
    try:
        with sdpa_kernel(kernel):
            scaled_dot_product_attention(*states, is_causal=True, enable_gqa=grouped).sum().backward()
    except RuntimeError:
        return False
    return True


def engine() -> Iterator[Row]:
    """Gradients of each type of base beside a float64 loop over rows on the CPU; alone and again."""
    lengths = (5, 61, 33, 120, 90) if GPU else (5, 17)
    setting = Setting(3, 128, 256, 4, 2, 211, rank=8, rows=len(lengths), device=DEVICE)
    some = [gpu_parts.random_rows(1, length, 211, seed)[0] for seed, length in enumerate(lengths)]
    for name, dtype, how in (
        ("float32", torch.float32, "highest"),
        ("float32, TF32", torch.float32, "high"),
        ("bfloat16", torch.bfloat16, "highest"),
        ("bfloat16, TF32", torch.bfloat16, "high"),
        ("float16", torch.float16, "highest"),
    ):
        model = replace(setting, dtype=dtype).model()
        with precision(how), PerExample(model) as running:
            found, again = (gradients(running, some, SFT).clone() for _ in range(2))
            alone = torch.cat([gradients(running, [row], SFT).clone() for row in some])
        exact = loop(model.to("cpu", torch.float64), some)
        yield f"{name}: largest relative error of a row", _error(found, exact), ""
        yield f"{name}: least cosine", cosine_similarity(found.double().cpu(), exact).min().item(), ""
        yield f"{name}: rows alone beside the batch", _error(alone, found), ""
        yield f"{name}: again the same bytes", torch.equal(found, again), ""


def maps() -> Iterator[Row]:
    """Adam's maps, the sketches and the store's codes on the device beside the CPU's own, and the kernel of both."""
    size, dim = (3 * adam.COLUMNS + 5, 4096) if GPU else (5003, 64)
    generator = torch.Generator().manual_seed(2)
    raw = torch.randn(7, size, generator=generator) * torch.rand(7, 1, generator=generator) * 0.01
    there = moments(size)
    here = replace(there, exp_avg=there.exp_avg.cpu(), exp_avg_sq=there.exp_avg_sq.cpu())
    for how in (AdamMap.exact, AdamMap.published, AdamMap.no_momentum):
        own, other = apply_adam(raw.clone(), here, how), apply_adam(raw.to(DEVICE, copy=True), there, how)
        yield f"Adam's map, {how}: relative error", _error(other, own), ""
        for kind in (ProjectionKind.sketch, ProjectionKind.srht):
            one, two = (make_projector(Projection(kind, dim, 0), size, device) for device in ("cpu", DEVICE))
            both = project_updates(raw.to(DEVICE, copy=True), there, how, two)
            yield f"{kind}, {how}: relative error", _error(both, one.project(own)), ""
    unit = normalize(torch.randn(64, 32_768 if GPU else 512, generator=generator))
    for dtype in StoreDtype:
        codes, found = encode(unit, dtype)[0], encode(unit.to(DEVICE), dtype)[0]
        yield f"codes of {dtype}: share that differs", (codes != found.cpu()).float().mean().item(), ""


def _error(found: torch.Tensor, expected: torch.Tensor) -> float:
    found, expected = found.double().cpu(), expected.double().cpu()
    return ((found - expected).norm(dim=1) / expected.norm(dim=1)).max().item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="after which no part begins any more")
    main(**vars(parser.parse_args()))
