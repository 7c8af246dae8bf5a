"""The table of stage kinds and the stages that jobs have name each other, one for one."""

import json
from functools import reduce
from pathlib import Path

from rose.config.choices import Until
from rose.run.estimates import ROWS
from rose.stages.kinds import CANDIDATES, HELD_OUT, KINDS, MEASURES, PLANTED, ZERO_SHOT, kind_of, numbered, own_cost

GOLDEN = json.loads(Path(__file__).with_name("golden_names.json").read_text())


def test_every_stage_of_every_job_is_in_the_table_and_no_other():
    names = {name for stages in GOLDEN.values() for name in stages}
    before = (HELD_OUT, PLANTED, CANDIDATES)
    kinds = {reduce(str.removeprefix, before, kind_of(name)) for name in names}
    assert kinds == set(KINDS)


def test_what_a_job_can_stop_after_and_what_is_estimated_are_in_the_table():
    assert {until.value for until in Until} <= set(KINDS)
    assert set(ROWS) <= set(KINDS)


def test_the_base_model_is_measured_as_the_others_are():
    assert MEASURES == ("evaluation", "verdicts", "tasks")
    assert {ZERO_SHOT[name] for name in (*MEASURES, "answers")} <= set(KINDS)


def test_a_method_pays_for_its_own_stages_alone():
    own = {name for name in KINDS if own_cost(name)}
    assert {"warmup", "features", "targets", "scores", "selection", "finetune", "pairs_dpo", "one_pass"} <= own
    assert not own & {"base", "pool", "tokens", "evaluation", "zero_shot", "diagnostics", "fidelity", "sample_features"}
    assert own_cost(f"{CANDIDATES}hidden")
    assert not own_cost(f"{HELD_OUT}features")
    assert not own_cost(f"{PLANTED}features")


def test_a_stage_that_a_job_has_several_times_is_of_its_kind_by_any_number():
    assert [numbered("features", 3, 4), numbered("features", 1, 1)] == ["features 3 of 4", "features"]
    for kind in KINDS:
        assert kind_of(numbered(kind, 3, 4)) == kind_of(kind) == kind
        assert own_cost(numbered(kind, 3, 4)) == own_cost(kind)
