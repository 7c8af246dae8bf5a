"""Sweeps: names for jobs and sweeps, a look at every job before the first one starts, and the table at the end."""

import copy
import dataclasses
import hashlib
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from rose import ranks
from rose.config.checks import check
from rose.config.choices import JudgeKind
from rose.config.schema import Config
from rose.config.secrets import refuse_secrets
from rose.errors import CONF, SHARING, RoseError, explain, nearest
from rose.stages.disk import write_json

# what cannot change a job's result, and so does not name its directory
PLACE = ("outputs", "until", "dry_run", "runtime", "tracking", "hydra")


def typed(config: DictConfig) -> Config:
    """The resolved config as dataclasses. RoseError: an unknown key, a value out of range, a secret."""
    own = copy.copy(config)  # shallow: what follows takes a key away and reads the others
    with read_write(own), open_dict(own):
        own.pop("hydra", None)
    _refuse_unknown(own, "")
    result = OmegaConf.to_object(own)
    refuse_secrets(result.judge.key_variable, result, {"hydra": config.get("hydra")})
    if OmegaConf.select(config, "hydra.job.chdir"):
        raise RoseError("hydra.job.chdir=true: must be false; relative paths, outputs= too, start from this folder")
    check(result)
    return result


def _refuse_unknown(config: DictConfig, prefix: str) -> None:
    """`+key=value` adds keys past the schema; nothing would read them."""
    schema = OmegaConf.get_type(config)
    for key in config if dataclasses.is_dataclass(schema) else ():
        if key not in {field.name for field in dataclasses.fields(schema)}:
            raise RoseError(f"{prefix}{key}: no such key{nearest(f'{prefix}{key}')}")
        node = config._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_interpolation():
            _refuse_unknown(node, f"{prefix}{key}.")


def job_name(*, _root_: DictConfig) -> str:
    """`<method>-<how much>-seed<n>-<hash of the resolved config>`: jobs share a directory only if they are the same."""
    own = OmegaConf.masked_copy(_root_, [key for key in _root_ if key != "hydra"])
    with read_write(own):
        own.outputs = "outputs"  # also where other settings are made from it
    values = OmegaConf.to_container(own, resolve=True, enum_to_str=True)
    settings = {key: value for key, value in values.items() if key not in PLACE}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    method, amount = re.sub(r"\W+", "_", str(values["method"]["name"])), values["selection"]
    named = (f"{amount[unit]}{unit}" for unit in ("count", "tokens") if amount[unit] is not None)
    return f"{method}-{next(named, amount['ratio'])}-seed{values['seed']}-{digest}"


def sweep_name(experiment: str | None, overrides: list[str]) -> str:
    """The experiment's name, with a hash of what else the command line says; the same command, the same sweep."""
    rest = [text for text in overrides if text.lstrip("+").split("=")[0].split(".")[0] not in PLACE]
    rest = sorted(text for text in rest if text != f"experiments={experiment}")
    digest = hashlib.sha256("\n".join(rest).encode()).hexdigest()[:6]
    return "-".join(part for part in (experiment or "sweep", digest if rest else "") if part)


def local_or_hub(folder: str, hub_id: str) -> str:
    """The local copy of a model where there is one."""
    return folder if Path(folder).is_dir() else hub_id


def register_resolvers() -> None:
    OmegaConf.register_new_resolver("rose.job", job_name, replace=True)
    OmegaConf.register_new_resolver("rose.local_or_hub", local_or_hub, replace=True)


def name_directory(config: DictConfig) -> None:
    """Sets hydra.sweep.dir, unless the command line does, here and for the jobs, which compose their own config."""
    if any(text.startswith("hydra.sweep.dir=") for text in config.hydra.overrides.hydra):
        return
    name = sweep_name(config.hydra.runtime.choices.get("experiments"), given(config))
    with read_write(config), open_dict(config):
        config.hydra.sweep.dir = "${outputs}/sweeps/" + name
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir='${{outputs}}/sweeps/{name}'")


def choose_launcher(config: DictConfig) -> None:
    """More than one worker: a process a job, unless the command line or the experiment names a launcher."""
    if config.runtime.workers > 1 and config.hydra.runtime.choices["hydra/launcher"] == "basic":
        with read_write(config), open_dict(config):
            config.hydra.launcher = OmegaConf.load(CONF / "hydra" / "launcher" / "processes.yaml")


def given(config: DictConfig) -> list[str]:
    """The command line's own overrides, `${…}` as it stands there: each job has its own value for it."""
    return OmegaConf.to_container(config.hydra.overrides.task, resolve=False)


def expand(config: DictConfig) -> list[list[str]]:
    """The overrides of every job of a multirun."""
    params = config.hydra.sweeper.get("params") or {}
    texts = [f"{key}={value}" for key, value in params.items()] + given(config)
    overrides = OverridesParser.create(config_loader=_loader()).parse_overrides(texts)
    return [job for batch in BasicSweeper.split_arguments(overrides, None) for job in batch]


def compose(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """One job's config, as the launcher will compose it."""
    return _loader().load_sweep_config(config, list(overrides))


def compose_all(config: DictConfig, jobs: list[list[str]]) -> list[DictConfig]:
    """Every job's config, as `compose` would make it; files are read once for all jobs that choose the same ones."""
    parser, chosen, made = OverridesParser.create(config_loader=_loader()), {}, []
    for job in jobs:
        overrides = parser.parse_overrides(job)
        choice = tuple(override.input_line for override in overrides if _chooses_file(override))
        if choice not in chosen:
            chosen[choice] = compose(config, choice)
        own = copy.deepcopy(chosen[choice])
        ConfigLoaderImpl._apply_overrides_to_config([each for each in overrides if not _chooses_file(each)], own)
        own.hydra.overrides.task = job
        made.append(own)
    return made


def _chooses_file(override: Override) -> bool:
    return _loader().repository.group_exists(override.key_or_group) and not isinstance(override.value(), dict)


def _loader() -> Any:
    return GlobalHydra.instance().config_loader()


def announce(sweep: Path, jobs: list[DictConfig]) -> None:
    """Writes down which jobs a sweep is made of, for its report."""
    sweep.mkdir(parents=True, exist_ok=True)
    write_json(sweep / "sweep.json", {"jobs": [job.hydra.sweep.subdir for job in jobs]})


def idle_keys(jobs: list[list[str]], results: list[str]) -> list[str]:
    """Swept keys that change nothing: jobs that differ in such a key alone always have the same result."""
    settings = [dict(text.split("=", 1) for text in job) for job in jobs]
    swept = [key for key in settings[0] if len({setting[key] for setting in settings}) > 1]
    return [key for key in swept if not _matters(key, settings, results)]


def _matters(key: str, settings: list[dict[str, str]], results: list[str]) -> bool:
    """Whether two jobs that differ in `key` alone differ in their result."""
    seen: dict[tuple, str] = {}
    for setting, result in zip(settings, results, strict=True):
        others = tuple(value for name, value in setting.items() if name != key)
        if seen.setdefault(others, result) != result:
            return True
    return False


class Outcome(Callback):
    """Checks every job before the first one starts, reports a sweep when it ends, and sets the exit code."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        or_exit(lambda: self._look_at(typed(config)))

    def on_run_end(self, config: DictConfig, **_: Any) -> None:
        if ranks.main() and _state(Path(config.hydra.run.dir)) != "done":
            sys.exit(1)  # the job has said why

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        name_directory(config)
        choose_launcher(config)
        or_exit(lambda: self._look_ahead(config))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        or_exit(lambda: self._report(Path(config.hydra.sweep.dir), config.tracking))

    def _look_at(self, config: Config) -> None:
        _result(config)
        _warn(judge_warning(config))
        if config.dry_run:
            _dry_run([("", config)])
        _make_folder(config.outputs)

    def _look_ahead(self, config: DictConfig) -> None:
        if ranks.world() > 1:
            raise RoseError(
                f"WORLD_SIZE={ranks.world()}: several processes share one job, not a sweep; torchrun starts one job"
            )
        refuse_secrets(config.judge.key_variable, config)  # multirun.yaml holds what no job may use
        overrides = expand(config)
        jobs = compose_all(config, overrides)
        configs = [typed(job) for job in jobs]
        for key in idle_keys(overrides, [_result(own) for own in configs]):
            _warn(f"sweeping {key} cannot change the outcome of these jobs: their results are shared")
        for line in sorted({judge_warning(own) for own in configs}):
            _warn(line)
        if any(own.dry_run for own in configs):
            _dry_run([(" ".join(each), own) for each, own in zip(overrides, configs, strict=True)])
        for outputs in {own.outputs for own in configs}:
            _make_folder(outputs)
        announce(Path(config.hydra.sweep.dir), jobs)

    def _report(self, sweep: Path, tracking: DictConfig) -> None:
        from rose.report.report import write_report
        from rose.run.tracking import holds_run, log_summary, track

        report = write_report(sweep, redraw=False)
        print(report.text)
        print(f"Report: {report.path}")
        if report.changed or not holds_run(sweep):
            with track(OmegaConf.to_object(tracking), sweep, {}, sweep.name, "summary") as run:
                log_summary(run, report.results, report.rows, report.figures)
        jobs = json.loads((sweep / "sweep.json").read_text())["jobs"]
        failed = [job for job in dict.fromkeys(jobs) if _state(sweep / job) != "done"]
        if failed:
            sys.exit(f"rose: {len(failed)} of {len(jobs)} jobs failed; see {sweep / failed[0]}/rose.log")


def _dry_run(jobs: list[tuple[str, Config]]) -> None:
    """Ends the program here, where Hydra has made no folder yet and no launcher has been asked for anything."""
    from rose.run.job import dry_run

    for name, config in jobs if ranks.main() else ():
        if name:
            print(f"{name}:")
        dry_run(config)
    sys.exit(0)


def _make_folder(outputs: str) -> None:
    """Hydra would make it, but where it cannot say no more than the path."""
    try:
        Path(outputs).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = SHARING if isinstance(error, PermissionError) else ""
        raise RoseError(f"outputs={outputs}: {error.strerror}{hint}") from error


def _result(config: Config) -> str:
    """The names of the last stages: equal names, equal results."""
    from rose import pipeline  # late: Hydra's own commands need not wait for torch

    return pipeline.result(pipeline.stages(config))


def judge_warning(config: Config) -> str:
    """What must be known of a judge that is not independent of the selection; empty where it is."""
    from rose.evaluation.verdicts import shares_model

    if not shares_model(config.judge, config.model.base):
        return ""
    if config.judge.kind is JudgeKind.reward_world:
        return "judge=reward_world also ranked the preference pairs: its win rates favour methods that see the pairs"
    return f"judge.model={config.judge.model} is also the model that selects: it may favour its own taste"


def _warn(line: str) -> None:
    if line:
        print(f"rose: {line}", file=sys.stderr)


def _state(job: Path) -> str:
    status = job / "status.json"
    return json.loads(status.read_text())["state"] if status.exists() else "missing"


def or_exit(do: Callable[[], Any]) -> None:
    """Any error ends the program in one line; what a callback raises Hydra would turn into a warning, and go on."""
    try:
        do()
    except Exception as error:
        if os.environ.get("ROSE_DEBUG"):
            traceback.print_exc()
        known = isinstance(error, (RoseError, OSError, HydraException, OmegaConfBaseException))
        sys.exit(f"rose: {'' if known else type(error).__name__ + ': '}{explain(error)}" if ranks.speaks() else 1)
