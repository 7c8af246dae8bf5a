"""The names of all stages, as they were: what is on people's disks is found again, whatever moves in the program.

A key that changes on purpose changes golden_names.json in the same commit, whose message says which and why;
`python tests/test_golden_names.py` writes it anew.
"""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from method_toys import METHODS, chosen

from rose import pipeline
from rose.__main__ import ROOT
from rose.config.compose import typed

GOLDEN = Path(__file__).with_name("golden_names.json")
LLM = ["judge=llm", "judge.model=some/judge", "judge.base_url=http://127.0.0.1:1"]
SETTINGS: dict[str, list[str]] = {f"method={name}": chosen(name) for name in METHODS} | {
    "features.keep=stream": ["features.keep=stream"],
    "features.adam=published": ["features.adam=published"],
    "model@student": ["model@student=tiny_deep"],
    "projection=none": ["projection=none"],
    "projection=sketch": ["projection=sketch", "projection.dim=512"],
    "projection=srht": ["projection=srht", "projection.dim=512"],
    "preference.loss=ipo": ["preference.loss=ipo", "preference.first_tokens=4"],
    "preference.normalize=none": ["preference.normalize=none"],
    "preference.format=published": ["preference.format=published"],
    "selection.count": ["selection.count=7", "selection.dedup=near"],
    "selection.slice": ["selection.slice=2", "method.checkpoints=1"],
    "candidates=bm25": ["candidates=bm25"],
    "candidates=probe": ["candidates=probe", "candidates.share=0.5", "method=rose_readout"],
    "seed=3": ["seed=3", "evaluation.temperature=0.7"],
    "judge=none": ["judge=none"],
    "judge=reward_model": ["judge=reward_model", "judge.model=some/judge"],
    "judge=llm": LLM,
    "judge.opponent=zero_shot": [*LLM, "judge.opponent=zero_shot"],
    "tasks=local": ["tasks=local", "tasks.path=some/questions"],
    "diagnostics": ["diagnostics.fidelity=true", "diagnostics.exact_rows=20", "method=rose_whitened"],
    "plant=swap": ["plant=swap", "preference=planted", "judge=none"],
    "world.manners=agreement": ["world.manners=agreement", "world.seed=2"],
    "a hub student": ["model@student=local", "student.base.path=some/student"],
    "a hub model and hub data": [
        *("model=local", "model.base.path=some/model", "projection=sketch"),
        *("dataset=local", "dataset.path=some/pool", "preference=local", "preference.path=some/pairs"),
    ],
}


def names(*overrides: str) -> dict[str, str]:
    """What a job's pipeline calls each stage → the stage's name."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = typed(compose("config", list(overrides), return_hydra_config=True))
    return {kind: node.name for kind, node in pipeline.stages(config).items()}


@pytest.fixture(autouse=True)
def no_models_here(monkeypatch):
    monkeypatch.chdir("/")  # the sentence encoder is named by its hub id where outputs/models has no copy


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_stage_has_the_name_it_had(setting):
    assert names(*SETTINGS[setting]) == json.loads(GOLDEN.read_text())[setting]


if __name__ == "__main__":
    import os

    os.chdir("/")
    GOLDEN.write_text(json.dumps({name: names(*given) for name, given in SETTINGS.items()}, indent=1) + "\n")
