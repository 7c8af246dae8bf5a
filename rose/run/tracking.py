"""W&B runs, one a job and one a sweep. The record is on disk: where W&B fails, it warns."""

import hashlib
import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rose.config.schema import Tracking
from rose.errors import one_line

if TYPE_CHECKING:
    import pandas
    import wandb

logger = logging.getLogger(__name__)

START_SECONDS = 15  # every online job waits so long on a machine without network; W&B's own limit is 90
FINISH_SECONDS = 60


@contextmanager
def track(tracking: Tracking, job: Path, config: dict[str, Any], group: str, name: str) -> Iterator["wandb.Run | None"]:
    """Opens a W&B run in the folder `job` and closes it, as failed if the body raises.

    `config` is the job's resolved configuration. The id follows from (`group`, `name`) alone, so a
    job that is run again replaces its run. Yields None when tracking is disabled or W&B does not
    start; an online run that cannot be opened is kept offline, for `wandb sync`.
    """
    if tracking.mode == "disabled":
        yield None
        return
    variables = {"WANDB_MODE": tracking.mode, "WANDB_DIR": str(job), "WANDB_DATA_DIR": str(job / "wandb")}
    with _environment(variables | {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}):
        named = {"project": tracking.project, "entity": tracking.entity, "group": group, "name": name}
        run = _start(tracking.mode, **named, id=run_id(group, name), dir=str(job), config=config)
        if run is None:
            yield None
            return
        if run.url:
            logger.info("W&B run: %s", run.url)
        exit_code = 1
        try:
            yield run
            exit_code = 0
        finally:
            with _warned("did not close this job's run"):
                run.finish(exit_code=exit_code)


def log(run: "wandb.Run | None", curves: Path, stages: dict[str, dict[str, Any]], metrics: dict[str, float]) -> None:
    """Sends a job's record: training curves, what each stage took, final metrics.

    `curves`: an object a line, {"stage", "step", name: value, …}; each stage gets its own step
    axis. `stages` and `metrics` are the contents of stages.json and metrics.json.
    """
    if run is None:
        return
    with _warned("did not take this job's record"):
        lines = [json.loads(line) for line in curves.read_text().splitlines()] if curves.exists() else []
        for stage in dict.fromkeys(line["stage"] for line in lines):
            run.define_metric(f"{stage}/step")
            run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        for number, line in enumerate(lines):  # W&B's own step must grow over the whole run, whatever the stage
            stage = line.pop("stage")
            run.log({f"{stage}/{key}": value for key, value in line.items()}, step=number)
        run.config.update({"stages": {name: stage["dir"] for name, stage in stages.items()}})
        for name, stage in stages.items():
            run.summary.update({f"{key}/{name}": value for key, value in stage.items() if key not in ("dir", "state")})
        run.summary.update(metrics)


def log_artifacts(run: "wandb.Run | None", job: Path) -> None:
    """Sends the job's selection and adapter, where it has them, as versions of its artifacts."""
    if run is None:
        return
    with _warned("did not take this job's artifacts"):
        for kind, path in (("selection", job / "selected.jsonl"), ("adapter", job / "adapter")):
            if path.exists():
                run.log_artifact(str(path), name=f"{kind}-{run.id}", type=kind)


def log_summary(
    run: "wandb.Run | None", results: "pandas.DataFrame", rows: "pandas.DataFrame", figures: Iterable[Path]
) -> None:
    """Sends a sweep's table, its selected rows, and its figures, under the figures' names."""
    if run is None:
        return
    with _warned("did not take the sweep's summary"):
        import wandb

        tables = {"results": _table(results), "rows": _table(rows)}
        run.log(tables | {f"figures/{path.stem}": wandb.Image(str(path)) for path in figures}, step=0)


def holds_run(job: Path) -> bool:
    """Whether the folder `job` holds a run: a job that computes nothing need not make another."""
    return any((job / "wandb").glob("*run-*/run-*.wandb"))


def asked_for() -> bool:
    """Whether an agent of a W&B sweep waits for this job's run, also of one that was finished before."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def close() -> None:
    """Ends W&B's service of this process, which W&B itself does only as Python ends: Ray takes it away before."""
    if "wandb" in sys.modules:
        with _warned("did not close its service"):
            sys.modules["wandb"].teardown()


def run_id(group: str, name: str) -> str:
    return hashlib.sha256(json.dumps([group, name]).encode()).hexdigest()[:16]


def _start(mode: str, **named: Any) -> "wandb.Run | None":
    try:
        return _init(mode, named)
    except Exception as error:
        if mode != "online":
            _warn(f"did not start with tracking.mode={mode} (online, offline or disabled)", error)
            return None
        _warn("did not start online; kept offline, as tracking.mode=offline does at once", error)
    try:
        import wandb

        wandb.teardown()  # the attempt's service holds on to the run's id
        return _init("offline", named)
    except Exception:
        logger.debug("W&B did not start offline either", exc_info=True)
        return None


def _init(mode: str, named: dict[str, Any]) -> "wandb.Run":
    import wandb  # here, because it takes half a second that a job without tracking need not spend
    from wandb.errors import UsageError

    if mode == "online" and not wandb.login(prompt=False, verify=False):  # a question would hold up the sweep
        raise UsageError("no API key: set WANDB_API_KEY or run `wandb login`")
    settings = wandb.Settings(
        init_timeout=START_SECONDS,
        finish_timeout=FINISH_SECONDS,
        x_transaction_log_flush_interval=1,  # what a killed job loses, in seconds
        console="off",
        symlink=False,
        # What probes the machine, git and the installed packages: most of the time an offline run costs.
        save_code=False,
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    mode = "online" if mode == "online" else "offline"
    return wandb.init(mode=mode, settings=settings, reinit="finish_previous", **named)


def _table(frame: "pandas.DataFrame") -> "wandb.Table":
    import wandb

    plain = frame.astype(object).where(frame.notna(), None)
    return wandb.Table(columns=list(frame.columns), data=plain.to_numpy().tolist(), allow_mixed_types=True)


@contextmanager
def _warned(what: str) -> Iterator[None]:
    """What fails in the body costs a warning."""
    try:
        yield
    except Exception as error:
        _warn(what, error)


def _warn(what: str, error: Exception) -> None:
    text = one_line(error, 200)
    if key := os.environ.get("WANDB_API_KEY"):
        text = text.replace(key, "***")
    logger.warning("W&B %s: %s", what, text)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Sets environment variables for the body alone: jobs of one sweep may share a process."""
    before = {name: os.environ[name] for name in variables if name in os.environ}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)
        os.environ.update(before)
