"""Jobs and sweeps for tests: composed configs, a person's small files, jobs that are run, and a sweep's results."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from small_job import overrides, write_inputs
from small_sweep import ended, results, rose

from rose.__main__ import ROOT
from rose.config.compose import typed
from rose.run import job
from rose.stages import leases


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


@pytest.fixture(scope="session")
def inputs(tmp_path_factory) -> Path:
    """The folder that `small_job.overrides` reads a model, a pool and pairs from."""
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


@pytest.fixture
def short_lease(monkeypatch) -> None:
    """Another host's process is taken for dead as soon as that."""
    monkeypatch.setattr(leases, "LEASE", 0.6)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    """What the tests of one file compute, each stage once."""
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture
def run(composed, inputs, outputs):
    """run(*overrides) -> (job directory, its stages.json)"""

    def make(*extra: str) -> tuple[Path, dict]:
        config = typed(composed(*overrides(inputs, outputs), *extra))
        directory = outputs / "runs" / "-".join(["job", *(text.replace("/", "_") for text in extra)])
        job.run(config, directory, "test")
        assert json.loads((directory / "status.json").read_text()) == {"state": "done", "error": None}
        return directory, json.loads((directory / "stages.json").read_text())

    return make
