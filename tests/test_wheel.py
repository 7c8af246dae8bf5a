"""The package as others install it: the wheel has all of it, and its command works in a folder that has nothing."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from rose.__main__ import PROGRAMS, ROOT

SMALL = ["until=leakage", "tracking=none", "dataset.world.rows=10"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("clone")  # pip writes build/ into the folder that it makes a wheel of
    for name in ("rose", "conf", "experiments", "hydra_plugins"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy)
    _pip("wheel", "--no-build-isolation", "--wheel-dir", str(copy / "dist"), str(copy))
    (path,) = (copy / "dist").glob("rose_select-*.whl")
    return path


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`rose` in an environment of its own, which sees what this one's packages need, but not this checkout."""
    venv = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (packages,) = venv.glob("lib/python3*/site-packages")
    theirs = [path for path in sys.path if path.endswith("site-packages")]  # of test-oldest two environments
    (packages / "ours.pth").write_text("\n".join(theirs) + "\n")
    _pip("--python", str(venv / "bin" / "python"), "install", str(wheel))
    return venv / "bin" / "rose"


def _pip(*arguments: str) -> None:
    first = 2 if arguments[0] == "--python" else 0
    options = ["--quiet", "--no-deps", "--no-index"] + ["--ignore-installed"] * ("install" in arguments)
    words = [*arguments[: first + 1], *options, *arguments[first + 1 :]]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True)


def _run(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """In an environment that has next to nothing."""
    path = f"{Path(words[0]).parent}{os.pathsep}/usr/bin{os.pathsep}/bin"
    given = {"PATH": path, "HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, cwd=folder, env=given, capture_output=True, text=True)


def test_the_wheel_has_every_module_and_every_file_of_conf_and_experiments(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {path.relative_to(ROOT).as_posix() for path in (ROOT / "rose").rglob("*.py")}
    wanted |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "hydra_plugins").glob("*.py")}
    wanted |= {f"{path.relative_to(ROOT)}" for end in ("jinja", "css") for path in (ROOT / "rose").rglob(f"*.{end}")}
    wanted |= {f"rose/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")}
    wanted |= {f"rose/conf/experiments/{path.name}" for path in (ROOT / "experiments").glob("*.yaml")}
    assert wanted and not wanted - names
    assert {name for name in names if name.startswith("rose/conf/")} <= wanted  # no results, no figures


def test_a_sweep_of_ones_own_runs_in_a_folder_that_has_nothing_else(command, tmp_path):
    text = (ROOT / "docs" / "INSTALL.md").read_text()
    mine = tmp_path / "conf" / "experiments" / "mine.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text(re.search(r"```yaml\n(.*?)```", text, re.S)[1].replace("bm25,random", "bm25"))
    assert "rose --config-dir conf experiments=mine" in text
    done = _run(tmp_path, str(command), "--config-dir", "conf", "experiments=mine", *SMALL)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("outputs/sweeps/mine*/bm25-*/stages.json"))) == 2
    assert {path.name for path in tmp_path.iterdir()} - {"home"} == {"conf", "outputs"}
    done = _run(tmp_path, str(command), "experiments=mine", *SMALL)
    assert done.returncode == 1 and "--config-dir conf" in done.stderr


def test_a_model_of_ones_own_is_one_by_name(command, tmp_path):
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text("defaults: [local, _self_]\nbase: {path: some/folder}\n")
    done = _run(tmp_path, str(command), "--config-dir", "conf", "model=mine", "--cfg", "job", "--package", "model.base")
    assert done.returncode == 0 and "path: some/folder" in done.stdout, done.stderr


def test_bash_completes_groups_choices_and_keys(command, tmp_path):
    lines = ["rose method=ro", "rose experiments=dem", "rose selection.rat"]
    script = 'eval "$(rose -sc install=bash)"\ncomplete -p rose\n' + "".join(
        f'COMP_LINE="{line}" COMP_POINT={len(line)} COMP_CWORD=1 COMPREPLY=()\nhydra_bash_completion\n'
        'echo "${COMPREPLY[@]}"\n'
        for line in lines
    )
    done = _run(tmp_path, "/usr/bin/env", f"PATH={command.parent}:/usr/bin:/bin", "bash", "--norc", "-c", script)
    said = done.stdout.splitlines()
    assert said[0].endswith("-F hydra_bash_completion rose"), done.stderr
    assert said[1].split() == [f"method={path.stem}" for path in sorted((ROOT / "conf/method").glob("ro*.yaml"))]
    assert said[2:] == ["experiments=demo", "selection.ratio="]


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_a_program_says_what_it_takes_without_waiting_for_torch(name):
    heavy = (
        "import sys; sys.argv[1:] = [sys.argv[1], '--help']\n"
        "from rose.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, *{'torch', 'pandas', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", heavy, name], cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"usage: rose {name}" in done.stdout
    assert done.stdout.splitlines()[-1] == "0"


def test_the_program_run_by_its_path_takes_no_file_of_ours_for_a_module_of_pythons(tmp_path):
    there = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "rose" / "__main__.py"), "stages", "--help"],
        cwd=tmp_path,
        env=there,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stdout.startswith("usage: rose stages"), done.stderr
