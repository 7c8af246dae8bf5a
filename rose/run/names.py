"""What jobs and sweeps are called: the same command finds its own folders."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from rose.config.compose import given

# what cannot change a job's result, and so does not name its directory
PLACE = ("outputs", "until", "dry_run", "runtime", "tracking", "hydra", "objective", "name")


def register_resolvers() -> None:
    """What conf/ may call in `${…}`."""
    OmegaConf.register_new_resolver("rose.job", job_name, replace=True)
    OmegaConf.register_new_resolver("rose.local_or_hub", local_or_hub, replace=True)
    OmegaConf.register_new_resolver("rose.env", environment, replace=True)
    OmegaConf.register_new_resolver("rose.wandb_mode", wandb_mode, replace=True)


def job_name(*, _root_: DictConfig) -> str:
    """`<method>-<how much>-seed<n>-<hash of the resolved config>`: one folder, one job.

    A method that sees the candidates of another is `<method>_of_<other>`.
    """
    config = OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key != "hydra"])
    with read_write(config):
        config.outputs = "outputs"  # also where other settings are made from it
    values = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    assert isinstance(values, dict)
    settings = {key: value for key, value in values.items() if key not in PLACE}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    cheap, amount = values["candidates"]["method"], values["selection"]
    names = [str(method["name"]) for method in (values["method"], cheap) if method]
    method = re.sub(r"\W+", "_", "_of_".join(names))
    units = (f"{amount[unit]}{unit}" for unit in ("count", "tokens") if amount[unit] is not None)
    return f"{method}-{next(units, amount['ratio'])}-seed{values['seed']}-{digest}"


def sweep_name(experiment: str | None, overrides: list[str]) -> str:
    """The experiment's name, with a hash of the command line's other words."""
    rest = [text for text in overrides if text.lstrip("+").split("=")[0].split(".")[0] not in PLACE]
    rest = sorted(text for text in rest if text != f"experiments={experiment}")
    digest = hashlib.sha256("\n".join(rest).encode()).hexdigest()[:6]
    return "-".join(part for part in (experiment or "sweep", digest if rest else "") if part)


def local_or_hub(folder: str, hub_id: str) -> str:
    """The local copy of a model where there is one."""
    return folder if Path(folder).is_dir() else hub_id


def environment(name: str, default: Any) -> Any:
    """A variable of the environment; one that is empty is not set."""
    return os.environ.get(name) or default


def wandb_mode(mode: str, disabled: Any) -> str:
    """tracking.mode as W&B's variables WANDB_MODE and WANDB_DISABLED have it, older words included."""
    if str(disabled).lower() in ("true", "1", "yes", "on"):
        return "disabled"
    return {"dryrun": "offline", "run": "online"}.get(mode, mode)


def name_directory(config: DictConfig) -> None:
    """Sets hydra.sweep.dir, unless the command line does, here and in what its jobs compose; `name` names it."""
    if any(text.startswith("hydra.sweep.dir=") for text in config.hydra.overrides.hydra):
        return
    name = config.name or sweep_name(config.hydra.runtime.choices.get("experiments"), given(config))
    with read_write(config), open_dict(config):
        config.hydra.sweep.dir = "${outputs}/sweeps/" + name
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir='${{outputs}}/sweeps/{name}'")
