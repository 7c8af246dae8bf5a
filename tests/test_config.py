"""Every option composes and is typed; every job of every experiment composes; which settings change which stages."""

import dataclasses
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf

from rose import pipeline
from rose.__main__ import ROOT, main
from rose.config.compose import compose_all, expand, typed
from rose.config.schema import Config
from rose.run import callback
from rose.stages.kinds import all_of, kind_of

GROUPS = sorted(
    path.name
    for path in (ROOT / "conf").iterdir()
    if path.is_dir() and path.name not in ("hydra", "experiments", "_base")
)
OPTIONS = [f"{group}={path.stem}" for group in GROUPS for path in sorted((ROOT / "conf" / group).glob("*.yaml"))]
EXPERIMENTS = sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))
NEEDED = {
    "model=local": ["model.base.path=x"],
    "dataset=local": ["dataset.path=x"],
    "preference=local": ["preference.pairs.path=x"],
    "judge=reward_model": ["judge.model=x"],
    "judge=llm": ["judge.model=x", "judge.base_url=http://x"],
    "tasks=local": ["tasks.path=x"],
    "method=reward": ["method.reward_model=x"],
    "method=column": ["method.column=x"],
}
NEEDED |= {
    option: ["model=local", "model.base.path=x", *NEEDED.get(option, [])]  # the embedded models read the world alone
    for option in OPTIONS
    if option.startswith(("dataset=", "preference=")) and not option.endswith("=world")
}
NEEDED["preference=planted"] = ["plant=swap", "judge=none"]
NEEDED |= {option: ["model=local", "model.base.path=x"] for option in OPTIONS if option.startswith("plant=")}


def test_every_group_has_a_place_in_the_schema():
    assert set(GROUPS) <= {field.name for field in dataclasses.fields(Config)}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_to_typed_dataclasses(composed, option, monkeypatch):
    monkeypatch.setenv("ROSE_DATA", "/data")
    config = typed(composed(option, *NEEDED.get(option, [])))
    group, name = option.split("=")
    assert getattr(getattr(config, group), "name", name) == name


@pytest.mark.parametrize(
    "path", sorted((ROOT / "conf").rglob("*.yaml")) + sorted((ROOT / "experiments").glob("*.yaml"))
)
def test_every_file_begins_with_one_line_that_says_what_it_is(path):
    lines = [line for line in path.read_text().splitlines() if line != "# @package _global_"]
    assert lines[0].startswith("# ") and lines[0].endswith((".", "?"))
    assert not lines[1].startswith("#")


def covering(jobs: list[list[str]]) -> list[list[str]]:
    """Some of the jobs, every override among them at least once."""
    seen: set[str] = set()
    return [job for job in jobs if not seen.issuperset(job) and not seen.update(job)]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_value_that_an_experiment_sweeps_composes_and_plans(name, monkeypatch, tmp_path):
    monkeypatch.setenv("ROSE_DATA", str(tmp_path))
    for function in ("rose.data.pool.fingerprint", "rose.data.preferences.fingerprint"):
        monkeypatch.setattr(function, lambda config: "files are not here")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        master = compose("config", [f"experiments={name}"], return_hydra_config=True)
        jobs = covering(expand(master))
        names = [pipeline.stages(typed(job))["evaluation"].name for job in compose_all(master, jobs)]
    assert len(jobs) > 1
    assert len(set(names)) > 1


def test_idle_keys_are_those_that_no_pair_of_jobs_tells_apart():
    jobs = [[f"method={m}", f"preference.beta={b}"] for m in ("rose", "less") for b in ("0.1", "1")]
    assert callback.idle_keys(jobs, ["r", "r", "l", "l"]) == ["preference.beta"]
    assert callback.idle_keys(jobs, ["r", "r", "l", "m"]) == []


def test_jobs_composed_together_are_what_each_is_alone():
    swept = [
        "method=rose,less_whitened",
        "method.ridge=0.5,2",
        "model.lora.targets=[q_proj],[k_proj,v_proj]",
        "model@student=tiny_deep,tiny",
        "warmup.epochs=1",
        "world.distractor='${seed}'",
    ]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        master = compose("config", ["experiments=ratio_sweep"], return_hydra_config=True)
        parsed = OverridesParser.create().parse_overrides(swept)
        jobs = BasicSweeper.split_arguments(parsed, None)[0]
        assert len(jobs) == 16
        for alone, together in zip(
            [GlobalHydra.instance().config_loader().load_sweep_config(master, job) for job in jobs],
            compose_all(master, jobs),
            strict=True,
        ):
            assert typed(together) == typed(alone)
            assert together.hydra.sweep.subdir == alone.hydra.sweep.subdir
            assert together.hydra.overrides.task == alone.hydra.overrides.task


def test_what_the_command_line_refers_to_has_each_job_s_own_value():
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        given = ["seed=0,1", "dataset.world.seed='${seed}'"]
        hydra = GlobalHydra.instance().hydra
        master = hydra.compose_config("config", given, run_mode=RunMode.MULTIRUN, with_log_configuration=False)
        jobs = compose_all(master, expand(master))
        assert [job.dataset.world.seed for job in jobs] == [0, 1]


def test_a_sweep_is_composed_once_before_its_jobs_start(monkeypatch, tmp_path):
    """What comes before the jobs, which compose their own configs, reads the files once, however many they are."""
    read = []
    load = ConfigLoaderImpl.load_sweep_config
    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", lambda *args: read.append(args[2]) or load(*args))
    monkeypatch.setattr(sys, "argv", ["rose", "-m", "seed=0,1,2", f"outputs={tmp_path}", "dry_run=true"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert len(read) == 1


def test_beta_is_idle_for_per_pair_targets_and_not_for_unnormalised_ones(composed):
    def result(*overrides):
        return pipeline.stages(typed(composed(*overrides)))["evaluation"].name

    assert result("preference.beta=0.1") == result("preference.beta=1")
    none = "preference.normalize=none"
    assert result(none, "preference.beta=0.1") != result(none, "preference.beta=1")


def test_each_projection_has_a_type_of_store_that_another_may_replace(composed):
    def dtype(*overrides):
        return typed(composed(*overrides)).features.dtype

    kinds = {kind: dtype(f"projection={kind}") for kind in ("trak", "sketch", "srht", "none")}
    assert kinds == {"trak": "float16", "sketch": "int4", "srht": "int4", "none": "float32"}
    assert dtype("projection=sketch", "features.dtype=int8") == "int8"


def test_checkpoints_are_the_last_ones_and_change_scores_where_some_are_left_out(composed):
    def names(*overrides):
        nodes = pipeline.stages(typed(composed("warmup.epochs=3", *overrides)))
        return [node.name for node in all_of("features", nodes)], nodes["scores"].name

    features, scores = names()
    assert len(set(features)) == 3
    assert names("method.checkpoints=2")[0] == features[1:]
    assert names("method.checkpoints=2")[1] != scores
    assert names("method.checkpoints=3") == (features, scores)
    assert names("method=bm25")[1] == names("method=bm25", "method.checkpoints=2")[1]


def test_shards_are_stages_of_a_pools_features_alone_and_one_is_none(composed):
    def nodes(*overrides):
        return pipeline.stages(typed(composed("warmup.epochs=2", "diagnostics.fidelity=true", *overrides)))

    plain, sharded = nodes(), nodes("features.shards=3")
    assert {name: node.name for name, node in nodes("features.shards=1").items()} == {
        name: node.name for name, node in plain.items()
    }
    assert len({node.name for node in all_of("features", sharded)}) == 6
    assert [name for name in sharded if name.startswith("features 2")] == [
        f"features 2 of 2 shard {part} of 3" for part in (1, 2, 3)
    ]
    others = [name for name in plain if kind_of(name) != "features"]
    assert others == [name for name in sharded if kind_of(name) != "features"]
    rest_on = {"scores", "selection", "finetune", "diagnostics", "projection_error"}  # on features, by whatever name
    same = [name for name in others if kind_of(name) not in rest_on]
    changed = {name for name in same if plain[name].name != sharded[name].name}
    assert changed <= {"evaluation", "answers", "verdicts", "tasks", "fidelity"}
    assert not [name for name in changed if "features" in name]
    stream = nodes("features.shards=3", "features.keep=stream")
    assert len({node.name for node in all_of("features", stream)}) == 6


def test_the_worlds_manners_reach_pool_pairs_base_model_and_reward(composed):
    first, second = (
        pipeline.stages(typed(composed(f"world.manners={manners}"))) for manners in ("phrases", "agreement")
    )
    for name in ("base", "pool", "preferences"):
        assert first[name].name != second[name].name
    assert [nodes["verdicts"].inputs["judge"].manners for nodes in (first, second)] == ["phrases", "agreement"]


def test_without_a_projection_its_width_and_seed_are_idle(composed):
    def features(*overrides):
        return pipeline.stages(typed(composed("projection=none", *overrides)))["features 1 of 4"].name

    assert features() == features("projection.dim=512", "projection.seed=7")


def test_streamed_scores_need_no_projection_and_no_type_of_store(composed):
    def scores(*overrides):
        return pipeline.stages(typed(composed("features.keep=stream", *overrides)))["scores"].name

    assert scores() == scores("projection=sketch", "projection.seed=7", "features.dtype=int8")
    assert scores() != scores("features.adam=none")


def test_settings_that_cannot_change_numbers_reach_no_key(composed):
    def names(*overrides):
        return [node.name for node in pipeline.stages(typed(composed(*overrides))).values()]

    assert names() == names("runtime.threads=1", "tracking=none", "outputs=elsewhere", "until=scores")


def test_a_ratio_changes_only_what_comes_after_the_scores(composed):
    first = pipeline.stages(typed(composed("selection.ratio=0.05")))
    second = pipeline.stages(typed(composed("selection.ratio=0.1")))
    changed = {"selection", "finetune", "evaluation", "answers", "verdicts", "diagnostics"}
    assert {name for name in first if first[name].name != second[name].name} == changed


def test_pinned_seeds_share_the_features_and_free_ones_do_not(composed):
    def features(*overrides):
        return pipeline.stages(typed(composed(*overrides)))["features 1 of 4"].name

    assert features("seed=1") != features("seed=2")
    pinned = ("warmup.seed=0", "projection.seed=0")
    assert features("seed=1", *pinned) == features("seed=2", *pinned)


def test_values_in_conf_are_resolvable(composed):
    OmegaConf.to_container(
        OmegaConf.masked_copy(composed(), [f.name for f in dataclasses.fields(Config)]), resolve=True
    )


def test_a_student_is_what_is_fine_tuned_and_never_what_selects(composed):
    own = pipeline.stages(typed(composed()))
    other = pipeline.stages(typed(composed("model@student=tiny_deep")))
    assert other["selection"].name == own["selection"].name
    assert {other["student_base"].name, other["selection"].name} < {node.name for node in other["finetune"].upstream}
    assert other["base"].name not in {node.name for node in other["evaluation"].upstream}
    same = pipeline.stages(typed(composed("model@student=tiny")))
    assert {name: node.name for name, node in same.items()} == {name: node.name for name, node in own.items()}


@pytest.mark.parametrize(
    ("overrides", "amount"),
    [([], "0.05"), (["selection.count=7"], "7count"), (["selection.tokens=900"], "900tokens")],
)
def test_a_job_is_named_by_how_much_it_selects(composed, overrides, amount):
    assert f"rose-{amount}-seed0-" in composed(*overrides).hydra.run.dir


def test_a_job_has_the_same_name_wherever_its_outputs_go(composed):
    names = {composed(f"outputs={place}").hydra.run.dir.rpartition("/")[2] for place in ("outputs", "/elsewhere/x")}
    assert len(names) == 1


def test_a_method_brings_what_it_is_published_with_and_the_command_line_has_the_last_word(composed):
    gist, rose = typed(composed("method=gist")), typed(composed("method=rose"))
    brought = (gist.features.adam, gist.projection.kind, gist.preference.normalize, gist.method.checkpoints)
    assert brought == ("none", "none", "none", 1)
    assert (rose.features.adam, rose.projection.kind, rose.preference.normalize) == ("exact", "trak", "per_pair")
    wishes = ["features.adam=published", "projection=srht", "preference.normalize=per_pair", "method.checkpoints=2"]
    for order in ([*wishes, "method=gist"], ["method=gist", *wishes]):
        wished = typed(composed(*order))
        given = (wished.features.adam, wished.projection.kind, wished.preference.normalize, wished.method.checkpoints)
        assert given == ("published", "srht", "per_pair", 2)
    other = ["preference=local", "preference.path=x", "model=local", "model.base.path=x", "dataset=local"]
    assert typed(composed("method=gist", *other, "dataset.path=x")).preference.normalize == "none"


def test_a_sweep_s_jobs_know_their_number_and_overrides_as_hydra_s_own_do():
    """Folders that are named by them, as Hydra's customary `hydra.sweep.subdir` is, are then each job's own."""
    words = ["method=rose,bm25", "seed=0,1", "hydra.sweep.subdir=${hydra.job.override_dirname}-${hydra.job.num}"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = GlobalHydra.instance().hydra.compose_config(
            "config", words, run_mode=RunMode.MULTIRUN, with_log_configuration=False
        )
        names = [job.hydra.sweep.subdir for job in compose_all(config, expand(config))]
    places = enumerate(f"method={method},seed={seed}" for method in ("rose", "bm25") for seed in (0, 1))
    assert names == [f"{name}-{number}" for number, name in places]


def test_in_one_sweep_a_method_s_own_settings_are_its_own_and_what_can_be_is_shared(composed):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = GlobalHydra.instance().hydra.compose_config(
            "config", ["method=rose,gist,less"], run_mode=RunMode.MULTIRUN, with_log_configuration=False
        )
        jobs = compose_all(config, expand(config))
    swept = {job.method.name: stage_names(typed(job)) for job in jobs}
    for name in ("rose", "gist", "less"):
        assert swept[name] == stage_names(typed(composed(f"method={name}")))
    shared = {kind for kind in swept["rose"] if swept["rose"][kind] == swept["gist"].get(kind)}
    assert shared >= {"base", "pool", "preferences", "tokens", "warmup"}
    assert {kind_of(name) for name in shared}.isdisjoint({"features", "targets", "scores"})
    assert swept["less"]["features 4 of 4"] == swept["rose"]["features 4 of 4"]


def stage_names(config: Config) -> dict[str, str]:
    return {kind: node.name for kind, node in pipeline.stages(config).items()}
