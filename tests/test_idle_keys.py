"""What a setting does not read changes no stage's name, and a sweep over it says so; what it reads changes one."""

import dataclasses
import json

import pytest
from method_toys import METHODS, chosen

from rose import keys, pipeline
from rose.__main__ import main
from rose.config.choices import Balance, Estimator, Pooling, Target
from rose.config.compose import typed
from rose.config.schema import Config

OTHERS = {  # a value that no method in conf/ has; what a method is made of (its name, lesson, …) is read by all
    "target": Target.chosen,
    "balance": Balance.tokens,
    "segments": 3,
    "checkpoints": 1,
    "estimator": Estimator.datainf,
    "components": 5,
    "neighbours": 4,
    "whiten": None,  # the opposite
    "ridge": 0.3,
    "pooling": Pooling.last,
    "layer": 0.4,
    "encoder": "some/encoder",
    "buckets": 77,
    "smoothing": 0.7,
    "per_ngram": None,
    "candidates": 11,
    "seed": 41,
    "reward_model": "another/reward",
    "column": "length",
}


def names(config: Config) -> dict[str, str]:
    return {kind: node.name for kind, node in pipeline.stages(config).items()}


@pytest.fixture(autouse=True)
def no_models_made(monkeypatch):
    monkeypatch.setattr("rose.training.bare.adapter_size", lambda base, lora: None)


@pytest.mark.parametrize("name", METHODS)
def test_a_key_that_a_method_does_not_read_changes_no_stage(composed, name):
    config = typed(composed(*chosen(name)))
    method, before, reads = config.method, names(config), keys.method_reads(config.method)
    made_of = {"name", "lesson", "representation", "rule", "share"}
    assert set(OTHERS) | made_of == {field.name for field in dataclasses.fields(method)}
    for key, value in OTHERS.items():
        other = not getattr(method, key) if value is None else value
        after = names(dataclasses.replace(config, method=dataclasses.replace(method, **{key: other})))
        if key not in reads:
            assert after == before, key
        elif getattr(method, key) != other:
            assert after != before, key


def test_what_reads_a_key_is_written_down_as_the_methods_are_published(composed):
    reads = {name: keys.method_reads(typed(composed(*chosen(name))).method) for name in METHODS}
    common = {"name", "lesson", "representation", "rule", "share"}
    gradients = {"target", "balance", "checkpoints", "estimator", "whiten"}
    assert reads["random"] == common | {"seed"}
    assert reads["rose"] == common | gradients
    assert reads["rose_whitened"] == common | gradients | {"ridge"}
    assert reads["gist"] == common | gradients | {"components"}
    assert reads["bm25"] == reads["longest"] == reads["perplexity"] == common
    assert reads["probe"] == reads["hidden_contrast"] == common | {"layer", "estimator"}
    assert reads["readout"] == reads["rose_readout"] == common | gradients
    assert reads["rds"] == common | {"pooling", "estimator", "whiten"}
    assert reads["zero_shot"] == {"name", "lesson"}


@pytest.mark.parametrize("method", ["rose", "readout", "hidden_contrast", "bm25", "perplexity"])
@pytest.mark.parametrize("keep", ["store", "stream"])
def test_only_what_takes_gradients_of_rows_reads_how_many_of_their_tokens_count(composed, method, keep):
    whole, cut = (
        names(typed(composed(f"method={method}", f"features.keep={keep}", *more)))
        for more in ([], ["features.tokens=3"])
    )
    assert (whole["scores"] != cut["scores"]) == (method in ("rose", "readout"))
    assert whole["features 1 of 4"] != cut["features 1 of 4"]
    for name in ("warmup", "targets 1 of 4", "tokens", "momentum"):
        assert whole[name] == cut[name]


def test_streamed_scores_read_no_type_of_store(composed):
    assert (
        names(typed(composed("features.keep=stream", "features.dtype=int8")))["features 1 of 4"]
        == (names(typed(composed("features.keep=stream")))["features 1 of 4"])
    )


@pytest.mark.parametrize(
    "idle",
    [
        "dataset.name=other",
        "dataset.seed=5",  # nothing is drawn
        "dataset.revision=abc",  # of a local file
        "preference.name=other",
        "preference.pairs.seed=5",
        "preference.pairs.test_share=0.5",  # beside a file of test pairs
        "preference.pairs.revision=abc",
        "tasks.seed=5",
        "tasks.revision=abc",
    ],
)
def test_what_a_file_is_not_read_with_changes_no_stage(composed, tmp_path, idle):
    for name in ("pool", "pairs", "test", "questions"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"file": name}) + "\n")
    local = [
        *("model=local", "model.base.path=some/model", "projection=sketch"),
        *("dataset=local", f"dataset.path={tmp_path}/pool.jsonl"),
        *("preference=local", f"preference.path={tmp_path}/pairs.jsonl"),
        f"preference.test_path={tmp_path}/test.jsonl",
        *("tasks=local", f"tasks.path={tmp_path}/questions.jsonl", "tasks.limit=null"),
    ]
    assert names(typed(composed(*local, idle))) == names(typed(composed(*local)))


@pytest.mark.parametrize(
    ("group", "read"),
    [
        ("pool", ["dataset.per_source=3", "dataset.seed=5"]),
        ("preferences", ["preference.pairs.shots=2", "preference.pairs.seed=5"]),
        ("preferences", ["preference.test_path=null", "preference.pairs.seed=5"]),
        ("preferences", ["preference.test_path=null", "preference.pairs.test_share=0.5"]),
        ("pool", ["dataset.path=some/pool", "dataset.revision=abc"]),
    ],
)
def test_what_a_file_is_read_with_changes_its_stage(composed, tmp_path, group, read):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    local = [
        *("model=local", "model.base.path=some/model", "projection=sketch"),
        *("dataset=local", f"dataset.path={tmp_path}/rows.jsonl"),
        *("preference=local", f"preference.path={tmp_path}/rows.jsonl"),
        f"preference.test_path={tmp_path}/rows.jsonl",
    ]
    assert names(typed(composed(*local, *read)))[group] != names(typed(composed(*local, read[0])))[group]


def test_a_sweep_over_an_idle_key_says_so_before_it_begins(monkeypatch, capsys, tmp_path):
    arguments = ["-m", "method=random", "method.whiten=false,true", "method.ridge=1,2", "seed=0,1", "dry_run=true"]
    monkeypatch.setattr("sys.argv", ["rose", *arguments, f"outputs={tmp_path}"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    warned = [line for line in capsys.readouterr().err.splitlines() if "cannot change the outcome" in line]
    assert [line.split()[2] for line in warned] == ["method.whiten", "method.ridge"]
