"""What tests share: Hydra composition in-process, and quiet, hermetic surroundings."""

import os

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

os.environ["WANDB_MODE"] = "offline"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("ROSE_DATA", None)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models gain nothing from threads, and tests run side by side

from small_sweep import ended, results, rose

from rose.__main__ import ROOT


@pytest.fixture
def composed():
    """composed(*overrides) -> the config of one job."""

    def make(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return compose("config", list(overrides), return_hydra_config=True)

    return make


@pytest.fixture(scope="session")
def basic(tmp_path_factory) -> dict[str, bytes]:
    """The results that Hydra's own launcher gives, all jobs in one process."""
    outputs = tmp_path_factory.mktemp("basic")
    code, errors = ended(rose(outputs, "hydra/launcher=basic", "runtime.workers=2"), outputs)
    assert code == 0, errors
    return results(outputs)
