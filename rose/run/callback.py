"""What happens around the jobs: a look at all of them before the first, the table at the end."""

import json
import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from rose import ranks
from rose.config import CONF
from rose.config.choices import JudgeKind
from rose.config.compose import compose_all, expand, given, searches, typed
from rose.config.hints import or_exit
from rose.config.schema import Config, Tracking
from rose.config.secrets import refuse_secrets
from rose.errors import SHARING, RoseError
from rose.run import provenance, record
from rose.run.names import name_directory
from rose.stages.disk import write_json

log = logging.getLogger(__name__)


def choose_launcher(config: DictConfig) -> None:
    """A process a job where there are several workers, unless a launcher is named."""
    if config.runtime.workers > 1 and config.hydra.runtime.choices["hydra/launcher"] == "basic":
        with read_write(config), open_dict(config):
            config.hydra.launcher = OmegaConf.load(CONF / "hydra" / "launcher" / "processes.yaml")


def announce(config: DictConfig, jobs: list[DictConfig] | None) -> None:
    """Writes down what a sweep is made of and asks, for its report; jobs null: a search's, those in its folder."""
    sweep = Path(config.hydra.sweep.dir)
    sweep.mkdir(parents=True, exist_ok=True)
    names = jobs and [job.hydra.sweep.subdir for job in jobs]
    asked = {"question": provenance.question(config), "command": provenance.command()}
    write_json(sweep / "sweep.json", {"jobs": names} | asked)


def idle_keys(jobs: list[list[str]], results: list[str]) -> list[str]:
    """Swept keys that change nothing: jobs that differ in one alone have the same result."""
    settings = [dict(text.split("=", 1) for text in job) for job in jobs]
    idle = []
    for key in settings[0]:
        others = [tuple(value for name, value in setting.items() if name != key) for setting in settings]
        swept = len({setting[key] for setting in settings}) > 1
        if swept and len(set(zip(others, results, strict=True))) == len(set(others)):
            idle.append(key)
    return idle


class LookAhead(Callback):
    """Checks every job before the first one starts, reports the sweep, and sets the exit code."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        or_exit(lambda: self._look_at(typed(config)))

    def on_run_end(self, config: DictConfig, **_: Any) -> None:
        directory = Path(config.hydra.run.dir)
        if not ranks.is_first():
            return
        if record.state(directory) != "done":
            sys.exit(1)  # the job has said why
        or_exit(lambda: self._end(directory, given(config)))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        name_directory(config)
        choose_launcher(config)
        or_exit(lambda: self._look_ahead(config))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        or_exit(lambda: self._report(Path(config.hydra.sweep.dir), config.tracking))

    def _end(self, directory: Path, overrides: list[str]) -> None:
        from rose.run.ending import ending

        print(ending(directory, overrides))

    def _look_at(self, config: Config) -> None:
        if not config.dry_run:
            _refuse_unwritable(config.outputs)
        _require_objective(config, _stages(config))
        if config.name is not None:
            _warn(f"name={config.name}: names a sweep; a single job's folder is named by its settings")
        _warn(judge_warning(config))
        if config.dry_run:
            _dry_run([("", config)])
        _make_folder(config.outputs)
        _warn(_forewarn(config))

    def _look_ahead(self, config: DictConfig) -> None:
        if ranks.world_size() > 1:
            several = f"WORLD_SIZE={ranks.world_size()}: several processes share one job, not a sweep"
            raise RoseError(f"{several}; torchrun starts one job")
        refuse_secrets(config.judge.key_variable, config)  # multirun.yaml holds what no job may use
        overrides = expand(config)
        jobs = compose_all(config, overrides)
        configs = [typed(job) for job in jobs]
        for outputs in {each.outputs for each in configs if not each.dry_run}:
            _refuse_unwritable(outputs)
        # of a search nobody knows yet how many jobs run at a time
        here = config.hydra.launcher._target_.endswith(".Processes") and not searches(config)
        if here and not any(each.dry_run for each in configs):
            from rose.run.launchers.processes import warm

            warm(config.hydra.launcher.workers, jobs)  # while this process imports torch for itself
        stages = [_stages(each) for each in configs]
        if searches(config) and config.objective is None:
            sweeper = config.hydra.runtime.choices["hydra/sweeper"]
            raise RoseError(f"objective=null: hydra/sweeper={sweeper} needs a metric to search by")
        for each, nodes in zip(configs, stages, strict=True):
            _require_objective(each, nodes)
        for key in idle_keys(overrides, [_result(nodes) for nodes in stages]):
            _warn(f"sweeping {key} cannot change the outcome of these jobs: their results are shared")
        for line in sorted({judge_warning(each) for each in configs}):
            _warn(line)
        if any(each.dry_run for each in configs):
            _dry_run([(" ".join(job), each) for job, each in zip(overrides, configs, strict=True)])
        for outputs in {each.outputs for each in configs}:
            _make_folder(outputs)
        announce(config, None if searches(config) else jobs)
        launched = config.runtime.workers > 1 or config.hydra.runtime.choices["hydra/launcher"] != "basic"
        begin(Path(config.hydra.sweep.dir), configs, stages, launched)
        for line in _design(configs, stages):
            print(line)

    def _report(self, sweep: Path, tracking: DictConfig) -> None:
        from rose.report.report import write_report
        from rose.run.tracking import holds_run, log_summary, track

        report = write_report(sweep, redraw=False)
        print(report.text)
        print(f"Report: {report.path}")
        if report.changed or not holds_run(sweep):
            settings = OmegaConf.to_object(tracking)
            assert isinstance(settings, Tracking)
            with track(settings, sweep, {}, sweep.name, "summary") as run:
                log_summary(run, report.results, report.rows, report.figures)
        jobs = json.loads((sweep / "sweep.json").read_text())["jobs"]
        if jobs is None:
            jobs = [path.parent.name for path in sorted(sweep.glob("*/status.json"))]
        failed = [job for job in dict.fromkeys(jobs) if record.state(sweep / job) != "done"]
        if failed:
            sys.exit(f"rose: {len(failed)} of {len(jobs)} jobs failed; see {sweep / failed[0]}/rose.log")


def _dry_run(jobs: list[tuple[str, Config]]) -> None:
    """Ends the program here, before Hydra makes a folder or asks a launcher for anything."""
    from rose.run.job import dry_run

    for name, config in jobs if ranks.is_first() else ():
        if name:
            print(f"{name}:")
        dry_run(config)
    sys.exit(0)


def _refuse_unwritable(outputs: str) -> None:
    """Before torch is waited for, and before anything is made."""
    path = Path(outputs).absolute()
    folder = next(each for each in (path, *path.parents) if each.exists())
    if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            raise RoseError(f"outputs={outputs}: {folder} is on a read-only file system; give another folder")
        raise RoseError(f"outputs={outputs}: no permission to write in {folder}{SHARING}")


def _make_folder(outputs: str) -> None:
    """Hydra would make it, but where it cannot say no more than the path."""
    try:
        Path(outputs).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = SHARING if isinstance(error, PermissionError) else ""
        raise RoseError(f"outputs={outputs}: {error.strerror}{hint}") from error


def begin(sweep: Path, configs: list[Config], stages: list[Any], launched: bool) -> None:
    """What cannot go well ends the sweep here, once; `launched`: its jobs run elsewhere, with the models."""
    from rose.run import early
    from rose.run.job import goals

    early.forget(sweep)
    jobs = []  # goals are asked for anew in each: those before it have made some of them
    for config, nodes in zip(configs, stages, strict=True):
        outputs = Path(config.outputs)
        jobs.append((nodes, partial(goals, config.until, nodes, outputs), outputs))
    for names in (early.FILES,) if launched else (early.FILES, early.TRIALS):
        early.before_all(jobs, sweep, names)


def _stages(config: Config) -> Any:
    from rose import pipeline  # late: Hydra's own commands need not wait for torch

    return pipeline.stages(config)


def _require_objective(config: Config, nodes: Any) -> None:
    from rose.run import objective

    objective.require(config, nodes)


def _forewarn(config: Config) -> str:
    from rose.run.forewarning import forewarn

    try:
        return forewarn(config) if ranks.is_first() else ""
    except Exception as error:  # an estimate stops nothing; what is really wrong, the stage that meets it says
        log.debug("no estimate: %s", error)
        return ""


def _design(configs: list[Config], stages: list[Any]) -> list[str]:
    from rose.run.design import foretell

    return foretell(configs, stages)


def _result(nodes: Any) -> str:
    """The names of the last stages: equal names, equal results."""
    from rose import pipeline

    return pipeline.result(nodes)


def judge_warning(config: Config) -> str:
    """What must be known of a judge that is not independent of the selection; empty where it is."""
    from rose import pipeline
    from rose.evaluation.verdicts import shares_model

    if not shares_model(config.judge, config.model.base, pipeline.ranking(config)):
        return ""
    if config.judge.kind is JudgeKind.reward_world:
        return "judge=reward_world also ranked the preference pairs: its win rates favour methods that see the pairs"
    return f"judge.model={config.judge.model} is also the model that selects: it may favour its own taste"


def _warn(line: str) -> None:
    if line:
        print(f"rose: {line}", file=sys.stderr)
