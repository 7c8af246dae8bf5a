"""From conf/ to dataclasses: the one file that knows Hydra's inside."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.core_plugins import basic_sweeper  # the module: Hydra loads it twice, and has two classes
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from rose.config import CONF
from rose.config.checks import check
from rose.config.hints import nearest
from rose.config.schema import Config
from rose.config.secrets import refuse_secrets
from rose.errors import RoseError

ConfigStore.instance().store(name="schema", node=Config)  # what conf/config.yaml begins with


def typed(config: DictConfig) -> Config:
    """The resolved config as dataclasses. RoseError: an unknown key, a wrong value, a secret."""
    settings = copy.copy(config)  # shallow: what follows takes a key away and reads the others
    with read_write(settings), open_dict(settings):
        settings.pop("hydra", None)
    _refuse_unknown(settings, "")
    result = OmegaConf.to_object(settings)
    assert isinstance(result, Config)
    refuse_secrets(result.judge.key_variable, result, {"hydra": config.get("hydra")})
    if OmegaConf.select(config, "hydra.job.chdir"):
        raise RoseError("hydra.job.chdir=true: must be false; relative paths, outputs= too, start from this folder")
    check(result)
    return result


def _refuse_unknown(config: DictConfig, prefix: str) -> None:
    """`+key=value` adds keys past the schema; nothing would read them."""
    schema = OmegaConf.get_type(config)
    if not dataclasses.is_dataclass(schema):
        return
    names = {field.name for field in dataclasses.fields(schema)}
    for key in config:
        if key not in names:
            raise RoseError(f"{prefix}{key}: no such key{nearest(f'{prefix}{key}')}")
        node = config._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_interpolation():
            _refuse_unknown(node, f"{prefix}{key}.")


def given(config: DictConfig) -> list[str]:
    """The command line's overrides; `${…}` as it stands there, as each job has its own value."""
    overrides: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    return overrides


def one_job(overrides: Sequence[str]) -> DictConfig:
    """The config of a job outside of any sweep, without Hydra's own part."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


def sweep(overrides: Sequence[str]) -> DictConfig:
    """The config that a sweep's jobs are configs from; inside of Hydra's context."""
    arguments = [*overrides, "hydra.mode=MULTIRUN"]  # as Hydra itself says to the jobs of a sweep
    return _hydra().compose_config("config", arguments, run_mode=RunMode.MULTIRUN, with_log_configuration=False)


def expand(config: DictConfig) -> list[list[str]]:
    """The overrides of every job of a multirun; of a search, of a job that it could begin with."""
    params = config.hydra.sweeper.get("params") or {}
    texts = [f"{key}={value}" for key, value in params.items()] + given(config)
    overrides = OverridesParser.create(config_loader=_loader()).parse_overrides(texts)
    if searches(config):
        return [list({each.get_key_element(): _first(each) for each in overrides}.values())]
    for each in overrides:
        if each.is_sweep_override() and not each.is_discrete_sweep():
            raise RoseError(f"{each.input_line}: needs a sweeper that searches, such as hydra/sweeper=optuna")
    return [job for batch in basic_sweeper.BasicSweeper.split_arguments(overrides, None) for job in batch]


def searches(config: DictConfig) -> bool:
    """Whether the sweeper makes its jobs up as it goes, by what earlier ones returned, as Optuna's does."""
    return config.hydra.runtime.choices["hydra/sweeper"] not in ("rose", "basic")


def _first(override: Override) -> str:
    """The first value of what is swept: where an interval begins."""
    if not override.is_sweep_override():
        return f"{override.get_key_element()}={override.get_value_element_as_str()}"
    value = override.value()
    if isinstance(value, IntervalSweep):
        return f"{override.get_key_element()}={value.start}"
    return f"{override.get_key_element()}={next(override.sweep_string_iterator())}"


def compose_all(config: DictConfig, jobs: list[list[str]]) -> list[DictConfig]:
    """Every job's config, as Hydra would compose it; the same choice of files is read once."""
    parser = OverridesParser.create(config_loader=_loader())
    bases: dict[tuple[str, ...], DictConfig] = {}
    configs = []
    style = config.hydra.job.config.override_dirname
    for number, job in enumerate(jobs):
        overrides = parser.parse_overrides(job)
        choice = tuple(text for text, override in zip(job, overrides, strict=True) if _chooses_file(override))
        if choice not in bases:
            bases[choice] = _loader().load_sweep_config(config, list(choice))
        result = copy.deepcopy(bases[choice])
        ConfigLoaderImpl._apply_overrides_to_config([each for each in overrides if not _chooses_file(each)], result)
        with open_dict(result):
            result.hydra.overrides.task = job
            result.hydra.job.id = result.hydra.job.num = number  # a name of one's own for folders may hold these
            result.hydra.job.override_dirname = get_overrides_dirname(
                overrides, kv_sep=style.kv_sep, item_sep=style.item_sep, exclude_keys=style.exclude_keys
            )
        configs.append(result)
    return configs


def launcher_of(config: DictConfig, task: TaskFunction) -> Launcher:
    """The launcher that a sweep's config names, set up for its jobs."""
    context = HydraContext(_loader(), Callbacks(config))
    return Plugins.instance().instantiate_launcher(context, task, config)


def _chooses_file(override: Override) -> bool:
    return _loader().repository.group_exists(override.key_or_group) and not isinstance(override.value(), dict)


def _loader() -> Any:
    return _hydra().config_loader


def _hydra() -> Any:
    """Hydra as it runs; what its types say of its inside is less than what is there."""
    return GlobalHydra.instance().hydra
