"""The layers of the program: whatever is imported lies below, wherever in a file the import stands.

Methods, training and evaluation stand side by side: none of them knows the others.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rose.__main__ import ROOT

PROGRAMS = {"__main__", "duel", "fetch", "minilm", "plan", "smollm2", "store"}
LAYERS: list[set[str]] = [  # lowest first; what shares a layer does not import one another
    {"errors"},
    {"ranks", "seeds"},
    {"progress"},
    {"config"},
    {"stages"},
    {"models"},
    {"data"},
    {"gradients"},
    {"training", "methods", "evaluation"},
    {"keys"},
    {"diagnostics"},
    {"pipeline"},
    {"report"},
    {"run"},
    PROGRAMS,
]
PLACES = {name: place for place, layer in enumerate(LAYERS) for name in layer}
HYDRAS_INSIDE = "rose/config/compose.py"  # the one file that knows it
FILES = [path for folder in ("rose", "hydra_plugins") for path in sorted((ROOT / folder).rglob("*.py"))]


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, also inside of functions and for a type checker alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: a relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def part(path: Path) -> str:
    """The name by which LAYERS knows a file of rose/."""
    return path.relative_to(ROOT / "rose").with_suffix("").parts[0]


def test_every_part_of_the_program_has_a_layer():
    parts = {path.stem for path in (ROOT / "rose").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts - {"__init__"} <= set(PLACES)


@pytest.mark.parametrize("name", sorted({part(path) for path in FILES if path.is_relative_to(ROOT / "rose")}))
def test_nothing_is_imported_from_above(name):
    upwards = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in FILES
        if path.is_relative_to(ROOT / "rose") and part(path) == name != "__init__"
        for module in imports(path)
        if module.startswith("rose.") and (other := module.split(".")[1]) != name and PLACES[other] >= PLACES[name]
    ]
    assert not upwards


def test_one_file_alone_knows_hydras_inside():
    knowing = {path for path in FILES for module in imports(path) if module.startswith("hydra._internal")}
    assert {str(path.relative_to(ROOT)) for path in knowing} == {HYDRAS_INSIDE}


def test_an_error_is_raised_without_waiting_for_torch_or_hydra():
    heavy = "import sys, rose.errors; print(*{'hydra', 'omegaconf', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", heavy], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
