"""What fault tests share: a fork server, and the run that all others are compared with."""

from pathlib import Path

import fault_runs
import pytest


@pytest.fixture(scope="session", autouse=True)
def fork_server() -> None:
    fault_runs.serve()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Path:
    outputs = tmp_path_factory.mktemp("undisturbed") / "outputs"
    code, said = fault_runs.run(outputs)
    assert code == 0, said
    return outputs
