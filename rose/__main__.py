"""python -m rose: Hydra composes one job or a sweep, and each job runs."""

import difflib
import os
import re
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors reach main(), which says them in one line
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads slow a busy machine by orders of magnitude
warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # renames inside the library

import hydra  # noqa: E402
from hydra.core.config_store import ConfigStore  # noqa: E402
from hydra.core.hydra_config import HydraConfig  # noqa: E402
from hydra.errors import HydraException  # noqa: E402
from omegaconf import DictConfig, OmegaConf  # noqa: E402
from omegaconf.errors import OmegaConfBaseException  # noqa: E402

from rose.config import Config  # noqa: E402
from rose.errors import RoseError  # noqa: E402
from rose.sweep import register_resolvers, typed  # noqa: E402

ConfigStore.instance().store(name="schema", node=Config)
register_resolvers()


@hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name="config")
def job(config: DictConfig) -> None:
    from rose import job  # late: a typo should not wait for torch

    hydra_config = HydraConfig.get()
    if config.dry_run:
        job.dry_run(typed(config))
    else:
        group = Path(hydra_config.sweep.dir).name if hydra_config.mode.name == "MULTIRUN" else "runs"
        job.run(typed(config), Path(hydra_config.runtime.output_dir), group)


def main() -> None:
    """Exit code 0: every job done; 1: a job failed or the input is wrong, said in one line."""
    try:
        job()
    except (HydraException, OmegaConfBaseException, RoseError) as error:
        if os.environ.get("ROSE_DEBUG"):
            raise
        sys.exit(f"rose: {explain(error)}")


def explain(error: Exception) -> str:
    """One line of what Hydra says in several, with the nearest key that exists."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    lines = [line.strip() for line in f"{error}\n{cause}".splitlines() if line.strip()]
    text = " ".join(dict.fromkeys(line for line in lines if not line.startswith(("object_type", "reference_type"))))
    return text + _near_miss(text)


def _near_miss(text: str) -> str:
    unknown = re.search(r"Key '(\w+)' (?:is not in struct|not in '\w+')", text)
    if unknown:
        near = difflib.get_close_matches(unknown[1], _keys(OmegaConf.structured(Config)), n=1)
        return f"; did you mean '{near[0]}'?" if near else ""
    choice = re.search(r"Could not find '(\w+)/(\w+)'", text)
    if choice:
        options = [path.stem for path in (ROOT / "conf" / choice[1]).glob("[!_]*.yaml")]
        near = difflib.get_close_matches(choice[2], options, n=1)
        return f"; did you mean '{near[0]}'?" if near else ""
    return ""


def _keys(schema: DictConfig) -> set[str]:
    """Every key of the schema, at any depth."""
    import dataclasses
    import typing

    found, todo = set(), [Config]
    while todo:
        for field in dataclasses.fields(todo.pop()):
            found.add(field.name)
            todo += [kind for kind in (field.type, *typing.get_args(field.type)) if dataclasses.is_dataclass(kind)]
    return found


if __name__ == "__main__":
    main()
