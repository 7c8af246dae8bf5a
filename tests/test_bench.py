"""The bench's own arithmetic, on models and stores of no size: what runs here on a CPU is what runs on a GPU."""

import json
import subprocess
import sys
from functools import partial

import pytest
import torch

from bench import gpu, memory, rows, scoring, systems
from bench.setting import SETTINGS, Setting, load_exact, loop, save
from rose.__main__ import ROOT
from rose.config.choices import AdamMap
from rose.gradients.feature_store import FeatureStore

TOY = Setting(layers=1, width=128, inner=64, heads=4, key_value_heads=2, vocabulary=97, rank=64, rows=24)
NO_ADAM = partial(systems.rose, adam=AdamMap.none)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    save(TOY, folder)
    return folder


def test_the_adapter_is_as_wide_as_said(measured):
    model = TOY.model()
    assert TOY.size == sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert SETTINGS["cpu"].size == 262_144
    assert len(load_exact(measured)[0]) == TOY.rows


@pytest.mark.parametrize(
    "system", [systems.backward, systems.rose, NO_ADAM, systems.stream, systems.readout, systems.less, systems.vmap]
)
def test_every_system_runs_on_any_setting(measured, monkeypatch, system):
    monkeypatch.setattr(systems, "DIM", 512)
    found = system(TOY, measured)
    assert found["examples_per_s"] > 0
    if system in (systems.vmap, systems.stream):
        assert found["rmse_cos"] < 1e-5  # they compute the exact answer, so the exact answer is right
    elif system not in (systems.backward, systems.readout):
        assert found["rmse_cos"] < 0.1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_systems_run_on_a_gpu(tmp_path):
    toy = Setting(1, 128, 64, 4, 2, 97, rank=64, rows=24, dtype=torch.bfloat16, device="cuda")
    save(toy, tmp_path)
    for system in (systems.backward, systems.rose, systems.less):
        assert system(toy, tmp_path)["examples_per_s"] > 0


def test_a_low_precision_model_keeps_its_adapter_in_float32():
    half = Setting(1, 128, 64, 4, 2, 97, rank=4, rows=4, dtype=torch.bfloat16)
    assert {weight.dtype for weight in half.model().parameters() if weight.requires_grad} == {torch.float32}
    assert loop(half.model(), half.pool()).isfinite().all()


PARTS = {
    *("ceilings", "attention kernels", "engine beside float64", "beside the CPU", "7B, rank 128", "SmolLM2-135M"),
    *("features stage", "7B, rank 8", "profile"),
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device: the table would be measured")
def test_the_gpu_table_runs_through_without_one_and_says_so(tmp_path, capsys):
    rows = gpu.main(tmp_path / "gpu")
    printed = capsys.readouterr().out
    assert "not measured: there is no GPU" in printed
    assert {row["part"] for row in rows} == PARTS
    assert not [row for row in rows if row["what"].startswith(("fails", "not measured"))]
    found = {row["what"]: row["value"] for row in rows if "error" in row["what"] or "share" in row["what"]}
    for what, value in found.items():  # the same device twice; half-precision bases are rounded
        assert value < (0.1 if what.startswith(("bfloat16", "float16")) else 1e-5), what
    report = json.loads((tmp_path / "gpu" / "gpu.json").read_text())
    assert report["rows"] == rows
    assert not report["gpu"]
    assert {path.name for path in tmp_path.rglob("*")} == {"gpu", "gpu.json", "profile.txt"}


def test_parts_of_the_gpu_table_that_come_too_late_or_fail_are_named(tmp_path, monkeypatch):
    late = gpu.main(tmp_path, seconds=-1)
    assert {row["part"] for row in late} == PARTS
    assert {row["what"] for row in late} == {"not measured: out of time"}
    monkeypatch.setattr(gpu, "ceilings", lambda: 1 / 0)
    assert gpu.measured("ceilings", gpu.ceilings)[0]["what"] == "fails: ZeroDivisionError division by zero"


def test_the_store_that_scoring_is_timed_on_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "ROWS", 60)
    scoring.make(TOY, tmp_path, share=2)
    store = FeatureStore.open(tmp_path / "features")
    assert store.valid.all()
    assert store.rows(3, 0, 30).norm(dim=1).mean().item() == pytest.approx(1, rel=0.02)
    found = scoring.scoring(TOY, tmp_path)
    assert found["rows"] == 30
    assert found["seconds_of_all"] == pytest.approx(2 * found["seconds"])
    assert found["store_bytes"] == 30 * 4 * 4096


def test_the_pools_that_memory_is_measured_on_are_featurised(tmp_path):
    memory.make(SETTINGS["tiny"], tmp_path, sizes=(40,))
    memory.featurise(SETTINGS["tiny"], tmp_path, rows=40)
    assert FeatureStore.open(tmp_path / "features_40").valid.all()
    assert json.loads((tmp_path / "warmup" / "manifest.json").read_text())["checkpoints"]


@pytest.mark.parametrize("command", [["bench", "--junk"], ["bench", "junk", "cpu", "out"], ["bench.scale", "junk"]])
def test_an_unknown_argument_starts_nothing(command):
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")


def test_the_rows_that_memory_is_measured_on_are_scored_and_selected(tmp_path):
    rows.make(tmp_path, 300)
    for stage, left in (("scores", "scores.parquet"), ("selection", "selected.jsonl")):
        found = rows.run(stage, tmp_path)
        assert found["before"] <= found["peak"]
        assert (tmp_path / stage / left).exists()
    assert len((tmp_path / "selection" / "selected.jsonl").read_text().splitlines()) == 15  # 5 %
