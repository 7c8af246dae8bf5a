"""The notebook runs from its first cell to its last, on the embedded world, and shows what it says."""

import re
from pathlib import Path
from typing import Any

import pytest

from rose.__main__ import ROOT

NOTEBOOK = ROOT / "examples" / "first_selection.ipynb"
nbformat: Any = pytest.importorskip("nbformat", reason="no nbformat here: make install brings it with nbclient")


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> tuple[Any, Path]:
    """The notebook after its last cell, and the folder that it was executed in."""
    nbclient = pytest.importorskip("nbclient", reason="no nbclient here: make install brings it")
    pytest.importorskip("ipykernel", reason="no ipykernel here: make install brings it")
    folder = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "jupyter"))
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        resources = {"metadata": {"path": str(folder)}}
        settings = {"timeout": None, "startup_timeout": 3600, "kernel_name": "python3"}
        nbclient.NotebookClient(notebook, **settings, resources=resources).execute()
    return notebook, folder


def test_it_is_committed_small_and_without_outputs():
    assert NOTEBOOK.stat().st_size < 100_000
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert 5 < len(code) < 12 and not any(cell.outputs or cell.execution_count for cell in code)


def test_every_cell_runs_and_the_selection_beats_chance(executed):
    notebook, folder = executed
    texts = [
        "".join(str(each.get("text") or each["data"]) for each in cell.get("outputs", ())) for cell in notebook.cells
    ]
    shown = "\n".join(texts)
    assert (
        "Report: outputs/sweeps/first/report.html" in shown and (folder / "outputs/sweeps/first/report.html").exists()
    )
    for name in ("selected.jsonl", "scores.parquet", "dataset_info.json", "preference_accuracy"):
        assert name in shown
    (row,) = re.findall(r"^precision +([\d.]+) +([\d.]+)", "\n".join(_plain(notebook)), re.M)
    random, rose = map(float, row)  # in the order of the folders
    assert rose > 2 * random


def _plain(notebook: Any) -> list[str]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return [output["data"]["text/plain"] for output in outputs if "data" in output]
