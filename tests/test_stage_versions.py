"""A stage whose code changes has its version looked at: what other people's disks hold was made by the code before.

stage_versions.json pins each stage's version beside a hash of its source and of all that it uses from its own package,
docstrings and formatting aside. Where a change alters what the stage writes, raise its version; then, or where it
does not, `python tests/test_stage_versions.py` writes the file anew.
"""

import ast
import hashlib
import json
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PINNED = Path(__file__).with_name("stage_versions.json")
Definition = tuple[Path, str]  # a file, and a name at its top level


class Module(NamedTuple):
    names: dict[str, ast.stmt]  # what it defines at its top level
    imports: dict[str, str]  # its name for → what it imports, dotted


def read(path: Path) -> Module:
    names: dict[str, ast.stmt] = {}
    imports: dict[str, str] = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {name.id: node for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        elif isinstance(node, ast.ImportFrom):
            imports |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    return Module(names, imports)


def located(dotted: str) -> Definition | None:
    """The file and the name in it that a dotted path means; the name is empty where it is a module."""
    path = ROOT / dotted.replace(".", "/")
    if path.with_suffix(".py").exists():
        return path.with_suffix(".py"), ""
    return (path.parent.with_suffix(".py"), path.name) if path.parent.with_suffix(".py").exists() else None


def uses(definition: Definition, modules: dict[Path, Module]) -> set[Definition]:
    """What a definition names of its own package."""
    path, name = definition
    module, used = modules[path], set()
    for node in ast.walk(module.names[name]):
        if isinstance(node, ast.Name) and node.id in module.names:
            used.add((path, node.id))
        elif isinstance(node, ast.Name) and node.id in module.imports:
            used.add(located(module.imports[node.id]))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in module.imports:
            used.add(located(f"{module.imports[node.value.id]}.{node.attr}"))
    near = {each for each in used if each is not None and each[0].parent == path.parent and each[1]}
    return {each for each in near if each[1] in modules[each[0]].names}


def source(node: ast.stmt) -> str:
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(inner, clean=False) is not None:
            inner.body = inner.body[1:] or [ast.Pass()]
    if isinstance(node, ast.FunctionDef):
        node.decorator_list = []  # @stage itself: the version is beside the hash
    return ast.unparse(node)


def stages() -> dict[str, tuple[int, str, str]]:
    """Each stage's version, hash, and where it is."""
    modules = {path: read(path) for path in sorted((ROOT / "rose").rglob("*.py"))}
    found = {}
    for path, module in modules.items():
        for name, node in module.names.items():
            for call in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "stage":
                    version = next(each.value.value for each in call.keywords if each.arg == "version")
                    found[call.args[0].value] = (version, (path, name))
    return {
        stage: (version, digest(where, modules), f"{where[0].relative_to(ROOT)}:{where[1]}")
        for stage, (version, where) in sorted(found.items())
    }


def digest(stage: Definition, modules: dict[Path, Module]) -> str:
    reached, todo = {stage}, [stage]
    while todo:
        fresh = uses(todo.pop(), modules) - reached
        reached |= fresh
        todo += fresh
    texts = [source(modules[path].names[name]) for path, name in sorted(reached)]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the hashes are of source as Python 3.11 writes it")
def test_a_stage_that_changes_keeps_its_version_only_by_decision():
    pinned, wrong = json.loads(PINNED.read_text()), []
    for stage, (version, code, where) in stages().items():
        if pinned.get(stage) != [version, code]:
            old = pinned.get(stage, [None])[0]
            change = f"its code has changed under version {version}" if old == version else f"version {old} → {version}"
            wrong.append(f"stage {stage} ({where}): {change}")
    remedy = "raise `version` if it writes something else now, then: python tests/test_stage_versions.py"
    assert not wrong, "; ".join(wrong) + f". {remedy}"
    assert pinned.keys() == stages().keys()


def test_a_changed_helper_of_the_package_changes_the_hash(monkeypatch, tmp_path):
    package = tmp_path / "rose" / "data"
    package.mkdir(parents=True)
    helper, stage = package / "helper.py", package / "made.py"
    stage.write_text(
        'from rose.data.helper import twice\n\nSCALE = 1\n\n\n@stage("made", version=3)\n'
        'def make(out):\n    """Says."""\n    return twice(SCALE)\n'
    )
    helper.write_text("def twice(x):\n    return 2 * x\n\n\ndef unused(x):\n    return x\n")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    before = stages()["made"]
    assert before[0] == 3
    helper.write_text(
        "def twice(x):\n    # formatting and comments aside\n    return (2 * x)\n\n\ndef unused(x):\n    return 0\n"
    )
    assert stages()["made"] == before
    for path, old, new in ((helper, "2 * x", "3 * x"), (stage, "SCALE = 1", "SCALE = 5")):
        text = path.read_text()
        path.write_text(text.replace(old, new))
        assert stages()["made"][1] != before[1]
        path.write_text(text)


if __name__ == "__main__":
    rows = [f' "{name}": {json.dumps([version, code])}' for name, (version, code, _) in stages().items()]
    PINNED.write_text("{\n" + ",\n".join(rows) + "\n}\n")
