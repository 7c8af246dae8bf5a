"""The layers of the program: whatever is imported lies below, wherever in a file the import stands.

Methods, training and evaluation stand side by side: none of them knows the others.
"""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from rose.__main__ import ROOT

PROGRAMS = {"__main__", "duel", "fetch", "plan", "share"}
FORMER = {"minilm", "smollm2", "store"}  # commands under their first names
COMMANDS = {"data/__main__": "__main__"}  # whose program is another file
LAYERS: list[set[str]] = [  # lowest first; what shares a layer does not import one another
    {"errors"},
    {"device"},
    {"ranks", "seeds", "shares"},
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
    FORMER,
]
PLACES = {name: place for place, layer in enumerate(LAYERS) for name in layer}
HYDRAS_INSIDE = "rose/config/compose.py"  # the one file that knows it
PARTS: dict[str, list[Path]] = defaultdict(list)  # the files of rose/ by the names that LAYERS has for them
for _path in sorted((ROOT / "rose").rglob("*.py")):
    _name = _path.relative_to(ROOT / "rose").with_suffix("")
    PARTS[COMMANDS.get(_name.as_posix(), _name.parts[0])].append(_path)
FILES = [path for folder in ("rose", "hydra_plugins") for path in sorted((ROOT / folder).rglob("*.py"))]


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, also inside of functions and for a type checker alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: a relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def test_every_part_of_the_program_has_a_layer():
    assert set(PARTS) - {"__init__"} <= set(PLACES)


@pytest.mark.parametrize("name", sorted(set(PARTS) & set(PLACES)))
def test_nothing_is_imported_from_above(name):
    used = [(path, module) for path in PARTS[name] for module in imports(path) if module.startswith("rose.")]
    others = [(path, module, PLACES[module.split(".")[1]]) for path, module in used if module.split(".")[1] != name]
    assert not [f"{path} imports {module}" for path, module, place in others if place >= PLACES[name]]


def test_one_file_alone_knows_hydras_inside():
    knowing = {path for path in FILES for module in imports(path) if module.startswith("hydra._internal")}
    assert {str(path.relative_to(ROOT)) for path in knowing} == {HYDRAS_INSIDE}


def test_an_error_is_raised_without_waiting_for_torch_or_hydra():
    heavy = "import sys, rose.errors; print(*{'hydra', 'omegaconf', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", heavy], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_no_test_imports_another():
    files = sorted((ROOT / "tests").rglob("*.py"))
    assert not [path.name for path in files for module in imports(path) if module.startswith("test_")]
