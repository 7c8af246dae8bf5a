"""`rose --help` and docs/CONFIG.md: every key and every option is there, and says in words what it is."""

import subprocess
import sys

import pytest

from rose.__main__ import ROOT
from rose.config import reference
from rose.config.hints import keys
from rose.config.schema import Config

PAGE = ROOT / "docs" / "CONFIG.md"


def test_the_page_is_what_conf_and_schema_say():
    assert PAGE.read_text() == reference.page(), "make tables writes it again"


def test_every_key_has_a_default_what_it_may_be_and_a_meaning():
    every = {key.path: key for key in reference.defaults()}
    groups = {path for path in keys(Config) if any(other.startswith(f"{path}.") for other in keys(Config))}
    assert set(every) == keys(Config) - groups
    assert not [path for path, key in every.items() if not key.meaning]
    assert every["features.adam"].values == "exact | published | no_momentum | none"
    assert every["selection.count"][1:3] == ("null", "whole number | null")
    assert every["warmup.learning_rate"].default == "${model.learning_rate}"
    assert every["model.lora.targets"].default == "[q_proj, k_proj, v_proj, o_proj]"


@pytest.mark.parametrize("group", reference.groups())
def test_every_option_says_what_it_is(group: str):
    assert all(reference.options(group).values()), reference.options(group)


def test_help_names_groups_options_and_keys_and_no_hidden_folder():
    command = [sys.executable, "-m", "rose", "method=less", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    lines = text.splitlines()
    assert "experiments=" in lines and "hydra/launcher=" in lines and "_base=" not in lines
    assert any(line.split()[:2] == ["less", "LESS"] for line in lines)
    assert any(line.split()[:2] == ["selection.ratio=0.05", "share"] for line in lines)
    assert max(map(len, lines)) <= 120


if __name__ == "__main__":
    PAGE.write_text(reference.page())
