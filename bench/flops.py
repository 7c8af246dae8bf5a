"""What whole methods cost on LESS's own setting, by the arithmetic of `python -m rose.plan`: `python -m bench.flops`.

270,679 rows of 300 tokens on average, Llama 2 7B, rank 128 on q, k, v, o, four epochs of warm-up on 5 %, 90 target
pairs. `tests/test_flops.py` compares the arithmetic with what torch counts on small models.
"""

from dataclasses import replace

from hydra import compose, initialize_config_dir

from bench.printing import table
from rose.__main__ import ROOT
from rose.config.compose import typed
from rose.config.schema import Config
from rose.run.estimates import Size, _counted

LESS = Size(rows=270_679, length=300, pairs=90, tests=0, weights=6_738_415_616, trained=134_217_728)
# stages of a kind that a method computes by itself, up to its scores
METHODS = {
    "less, four checkpoints": {"warmup": 4, "features": 4, "targets": 4},
    "less, the last of four": {"warmup": 4, "features": 1, "targets": 1},
    "less, one epoch": {"warmup": 1, "features": 1, "targets": 1},
    "readout": {"readout": 1, "target_readout": 1},
    "hidden_contrast": {"one_pass": 1, "target_answer_states": 1},
}


def flops(config: Config, size: Size, stages: dict[str, int]) -> float:
    """Of `stages`, by kind; of a warm-up the number of its epochs."""
    warmup = replace(config.warmup, epochs=stages.get("warmup", 1), ratio=0.05)
    times = stages | {"warmup": 1} if "warmup" in stages else stages
    config = replace(config, warmup=warmup)
    return float(sum(number * _counted(kind, config, size).flops for kind, number in times.items()))


def composed() -> Config:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return typed(compose("config", ["method=less"], return_hydra_config=True))


def main() -> None:
    found = {name: flops(composed(), LESS, stages) for name, stages in METHODS.items()}
    whole = found["less, four checkpoints"]
    print(table([{"method": name, "FLOPs": each, "share of LESS": each / whole} for name, each in found.items()]))


if __name__ == "__main__":
    main()
