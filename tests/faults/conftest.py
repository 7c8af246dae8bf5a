"""The run that all others are compared with."""

from pathlib import Path

import fault_runs
import pytest


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Path:
    outputs = tmp_path_factory.mktemp("undisturbed") / "outputs"
    code, said = fault_runs.run(outputs)
    assert code == 0, said
    return outputs
