"""A mistake in the configuration is named in one line, before the first stage begins."""

import dataclasses
import re
import subprocess
import sys
import typing

import pytest

from rose.__main__ import ROOT
from rose.config.compose import typed
from rose.config.hints import explain
from rose.config.ranges import RANGES
from rose.config.schema import Config
from rose.errors import RoseError


def refusal(*arguments: str) -> str:
    """What `python -m rose` prints for wrong arguments, which must be one line, with exit code 1."""
    done = subprocess.run([sys.executable, "-m", "rose", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    return done.stderr


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("modle=tiny", ["modle: no such key", "did you mean 'model'"]),
        ("until=selecton", ["until=selecton: must be one of leakage, base", "did you mean 'selection'"]),
        ("seed", ["seed: must be KEY=VALUE"]),
        ("dry_run=maybe", ["dry_run=maybe: must be true or false"]),
        ("method=rose,less", ["several values make a sweep", "rose -m method=rose,less"]),
        ("ratio=0.1", ["ratio: no such key; did you mean 'selection.ratio' or 'warmup.ratio'?"]),
        ("hydra/launcher=slrm", ["hydra/launcher=slrm: no such option", "did you mean 'slurm'", "slurm_gpu"]),
        ("selection.rato=0.1", ["selection", "rato", "did you mean 'selection.ratio'"]),
        ("method=rosee", ["method=rosee", "did you mean 'rose'"]),
        ("experiments=demmo", ["experiments=demmo", "did you mean 'demo'"]),
        ("features.adam=exactly", ["features.adam", "exactly", "exact, published, no_momentum, none"]),
        ("selection.ratio=lots", ["selection.ratio", "lots", "must be a number"]),
        ("seed=", ["seed"]),
        ("selection.ratio=0", ["selection.ratio=0.0", "(0, 1]"]),
        ("selection.ratio=1.01", ["selection.ratio=1.01", "(0, 1]"]),
        ("warmup.epochs=0", ["warmup.epochs=0", "1 or more"]),
        ("features.keep=stream method.whiten=true", ["features.keep=stream", "method.whiten=true", "keep=store"]),
        ("features.keep=stream method=gist", ["features.keep=stream", "method.estimator=gist", "keep=store"]),
        ("features.keep=stream method=greedy", ["features.keep=stream", "method.rule=greedy", "keep=store"]),
        ("projection=sketch", ["projection.dim=32768", "(p=8192)", "projection=none"]),
        ("method.checkpoints=9", ["method.checkpoints=9", "warmup.epochs=4"]),
        ("finetune.micro_batch_size=3", ["finetune.micro_batch_size=3", "finetune.batch_size=16"]),
        ("warmup.beta=3", ["warmup.beta", "did you mean 'preference.beta'"]),
        ("hydra.launcher.workers=2", ["hydra.launcher.workers", "did you mean 'runtime.workers'"]),
        ("hydra.job.chdir=true", ["hydra.job.chdir=true", "must be false"]),
        ("=3", ["rose: ", "Config group override"]),
        ("dataset.path=a=b(1)[2].jsonl", ["dataset.path=a=b(1)[2].jsonl", """'dataset.path="a=b(1)[2].jsonl"'"""]),
        ("+methd=rose", ["methd", "did you mean 'method'"]),
        ("+method.whitten=true", ["method.whitten", "did you mean 'method.whiten'"]),
        ("tracking.mode=junk", ["tracking.mode", "junk", "online, offline, disabled"]),
        ("model=local", ["model.base.path"]),
        ("method.rule=random", ["method.rule=random", "method.representation"]),
        ("world.manners=polite", ["world.manners", "polite", "phrases, agreement"]),
        ("dataset=local dataset.path=x", ["dataset=local", "model=tiny", "model=local model.base.path="]),
        ("preference=local preference.path=x", ["preference=local", "model=tiny", "model=local model.base.path="]),
        ("model.base.path=x", ["model.base.path=x", "model=tiny", "model=local"]),
        ("candidates.method.buckets=3", ["candidates.method.buckets=3: candidates.method is null", "candidates=NAME"]),
        ("-m student.max_length=5,6", ["student.max_length=5: student is null here", "model@student=NAME"]),
        ("dataset.path=x", ["dataset.path=x", "dataset=world", "dataset=local"]),
        ("preference.pairs.layout=kto", ["preference.pairs.layout=kto", "preference=world", "preference=local"]),
        ("preference.pairs.layout=orcas", ["preference.pairs.layout", "orcas", "pairs, hh, orca"]),
        ("preference.test_path=x", ["preference.test_path=x", "preference=world", "preference=local"]),
        ("tasks=local", ["tasks.path"]),
        ("dataset.world.manners=agreement", ["preference.pairs.world.manners=phrases", "world.manners sets them all"]),
    ],
)
def test_a_wrong_key_or_value_is_named_in_one_line(argument, expected, tmp_path):
    message = refusal(*argument.split(), f"outputs={tmp_path}")
    for part in expected:
        assert part in message
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "setting",
    [
        "world.distractor=nan",
        "dataset.world.useful=1.5",
        "dataset.world.rows=0",
        "dataset.world.distractor=-1.0",
        "dataset.per_source=0",
        "preference.pairs.world.overlap=-0.1",
        "preference.pairs.world.targets=0",
        "preference.pairs.world.tests=0",
        "preference.pairs.test_share=1.0",
        "preference.pairs.test_share=0.0",
        "preference.pairs.shots=0",
        "preference.pairs.tests=-1",
        "model.lora.targets=[]",
        "model.learning_rate=inf",
        "model.base.pretraining.layers=0",
        "model.base.pretraining.heads=3",
        "model.base.pretraining.training.epochs=0",
        "model.base.pretraining.training.micro_batch_size=7",
        "model.base.pretraining.training.micro_batch_size=null",
    ],
)
def test_a_value_that_no_stage_could_use_is_refused_before_the_first(composed, setting):
    with pytest.raises(RoseError, match=re.escape(setting)):
        typed(composed(setting))


def test_every_range_is_that_of_a_key():
    """A key spelled wrong in the table would never be checked."""
    for key in RANGES:
        kind = Config
        for name in key.split("."):
            (field,) = (field for field in dataclasses.fields(kind) if field.name == name)
            kind = next(filter(dataclasses.is_dataclass, (field.type, *typing.get_args(field.type))), None)


def test_a_folder_that_cannot_be_made_is_named_by_its_key(tmp_path):
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, "-m", "rose", f"outputs={tmp_path}/file/outputs"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"rose: outputs={tmp_path}/file/outputs: Not a directory"


def test_what_is_unset_is_called_null_as_in_yaml():
    assert explain(RoseError("judge.model=None: judge.kind=llm needs one")).startswith("judge.model=null: ")
