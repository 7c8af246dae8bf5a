"""Length-controlled win rates

Verdicts on 805 prompts drawn from a known effect of skill and length, a tenth of them ties. Theirs
is AlpacaEval's own function with its model "length_controlled_minimal", which has no terms for the
difficulty of a prompt; the table of difficulties that it fetches all the same is replaced by one of
zeros. In points of 100. Theirs chooses a penalty on slope and constant by cross-validation, ours
has a fixed weak one on the slope: where there is nothing to find theirs may say 50 exactly,
whatever the wins. Where nearly all answers are the longer ones both extrapolate far from what was
seen.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy
import pandas
from alpaca_eval.metrics import glm_winrate

from bench.peers.row import Row, version
from rose.evaluation.verdicts import length_controlled

PROMPTS = 805
WORLDS = {  # skill, effect of length, characters that answers are longer by on average
    "skill, no effect of length": (0.5, 0.0, 0),
    "skill, longer answers win": (0.5, 1.0, 30),
    "skill, longer answers win, ours are shorter": (1.0, 1.5, -60),
    "no skill, much longer answers": (0.0, 2.0, 80),
    "hardly any wins": (-3.0, 1.0, 50),
}
EDGES = {"no skill, no effect of length": (0.0, 0.0, 0), "nearly all answers are longer": (-1.0, 2.0, 250)}


def rows() -> Iterator[Row]:
    for name, world in WORLDS.items():
        verdicts = drawn(*world)
        yield Row(name, version("alpaca-eval"), abs(ours(*verdicts) - theirs(*verdicts)), 1.0)
    for name, world in EDGES.items():
        verdicts = drawn(*world)
        raw = 100 * verdicts[0].mean()
        found = f"raw {raw:.1f}, ours {ours(*verdicts):.1f}, theirs {theirs(*verdicts):.1f}"
        yield Row(name, version("alpaca-eval"), found)


def drawn(skill: float, bias: float, longer: float) -> tuple[numpy.ndarray, ...]:
    """Wins, and lengths of answers and opponents, in characters."""
    rng = numpy.random.default_rng(0)
    opponents = rng.integers(300, 500, PROMPTS)
    lengths = (opponents + rng.normal(longer, 100, PROMPTS).round()).clip(1).astype(int)
    difference = lengths - opponents
    chance = 1 / (1 + numpy.exp(-(skill + bias * numpy.tanh(difference / difference.std()))))
    wins = (rng.random(PROMPTS) < chance).astype(float)
    wins[rng.random(PROMPTS) < 0.1] = 0.5
    return wins, lengths, opponents


def ours(wins: numpy.ndarray, lengths: numpy.ndarray, opponents: numpy.ndarray) -> float:
    return 100 * length_controlled(wins, lengths, opponents, range(PROMPTS))


def theirs(wins: numpy.ndarray, lengths: numpy.ndarray, opponents: numpy.ndarray) -> float:
    columns = {
        "index": range(PROMPTS),
        "preference": 1 + wins,  # 2: output 2 is better, 1.5: a tie
        "output_1": ["x" * int(length) for length in opponents],
        "output_2": ["x" * int(length) for length in lengths],
        "generator_1": "base",
        "generator_2": "ours",
        "annotator": "toy",
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "df_gamed.csv"
        difficulties = {"index": range(PROMPTS), "instruction_difficulty": 0.0, "model": "none"}
        pandas.DataFrame(difficulties).to_csv(file, index=False)
        with mock.patch.object(glm_winrate, "hf_hub_download", lambda **_: str(file)):
            found = glm_winrate.get_length_controlled_winrate(
                pandas.DataFrame(columns),
                "length_controlled_minimal",
                save_weights_dir=None,
                is_warn_extreme_changes=False,
            )
    return found["length_controlled_winrate"]
