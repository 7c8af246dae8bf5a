"""What tests share: Hydra composition in-process, and quiet, hermetic surroundings."""

import os
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

ROOT = Path(__file__).resolve().parents[1]
os.environ["ROSE_ROOT"] = str(ROOT)
os.environ["WANDB_MODE"] = "offline"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("ROSE_DATA", None)

import rose.__main__  # noqa: E402, F401  (registers the schema and the resolvers)


@pytest.fixture
def composed():
    """composed(*overrides) -> the config of one job."""

    def make(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return compose("config", list(overrides), return_hydra_config=True)

    return make
