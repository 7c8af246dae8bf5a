"""What Hydra calls once a job."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from rose.config.compose import typed


def task(config: DictConfig) -> float | None:
    """Runs the job; returns its objective, which a sweeper may look at."""
    from rose.run import job, objective  # late: a typo should not wait for torch

    hydra_config = HydraConfig.get()
    group = Path(hydra_config.sweep.dir).name if hydra_config.mode is RunMode.MULTIRUN else "runs"
    directory, settings = Path(hydra_config.runtime.output_dir), typed(config)
    job.run(settings, directory, group)
    return objective.value(settings.objective, directory)
