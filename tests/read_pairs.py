"""Preference pairs of a file, as the stage reads them."""

from rose.config.choices import OnBadRow
from rose.config.data import Pairs
from rose.data import files
from rose.data.preferences import read_preferences


def pairs(path, **changes):
    values = dict(path=str(path), revision=None, files=[], test_path=None, test_files=[], test_share=0.2)
    values |= dict(min_score_ratio=None, shots=None, tests=None, on_bad_row=OnBadRow.stop, seed=0, world=None)
    values |= dict(planted=False, faults=[])
    return Pairs(**{**values, **changes})


def read(tmp_path, config):
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    read_preferences(out, config, "")
    return list(files.load(out / "target.jsonl")), list(files.load(out / "test.jsonl"))
