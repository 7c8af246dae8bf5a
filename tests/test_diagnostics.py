"""The checks of a selection, each beside a hand-worked case or a library's figure, and the stage in a whole job."""

import json

import numpy
import pandas
import pytest
import scipy.stats
import torch
from method_toys import composed_method, rows_table, store
from safetensors.torch import load_file, save_file
from small_job import overrides

from rose.config.compose import typed
from rose.config.schema import Numerics, Warn
from rose.diagnostics.composition import copies, extremes, length_correlation, length_ratio, source_mix
from rose.diagnostics.diagnose import faithful, leaks
from rose.diagnostics.targets import momentum_share, stability, subtask_share
from rose.gradients.trajectory import Trajectory
from rose.methods.influence import Influence
from rose.models import loading
from rose.run import job

WARN = Warn(
    length_correlation=0.3,
    length_ratio=1.5,
    extremes=0.25,
    source_mix=0.5,
    near_duplicates=0.1,
    subtask_share=0.9,
    stability=0.5,
    momentum_share=0.5,
    projection=0.95,
    leaked=0.0,
)


def table(scores: list[float], lengths: list[int], selected: list[int]) -> pandas.DataFrame:
    rows = rows_table(len(scores), length=lengths)[["id", "length"]]
    return rows.assign(score=scores, selected=[number in selected for number in range(len(scores))])


def test_length_correlation_is_spearmans_over_scored_rows():
    generator = numpy.random.default_rng(0)
    scores, lengths = generator.normal(size=30), generator.integers(1, 9, 30)
    scores[4] = numpy.nan
    found = length_correlation(table(scores, lengths, [0]), WARN)
    kept = ~numpy.isnan(scores)
    assert found.value == pytest.approx(scipy.stats.spearmanr(scores[kept], lengths[kept])[0])
    assert length_correlation(table([3, 2, 1], [1, 2, 3], [0]), WARN).suspicious
    assert not length_correlation(table([1, 2, 3], [1, 1, 1], [0]), WARN).suspicious


def test_a_score_that_tells_no_row_from_another_is_a_warning():
    found = length_correlation(table([1, 1, 1], [1, 2, 3], [0]), WARN)
    assert (found.value, found.suspicious) == (None, True)


def test_a_selection_half_as_long_as_the_pool_is_as_suspicious_as_one_twice_as_long():
    lengths = [10, 10, 40, 40, 100]
    for chosen, ratio, suspicious in (([0, 1], 0.25, True), ([0, 1, 2, 4], 1.0, False), ([4], 2.5, True)):
        found = length_ratio(table([1.0] * 5, lengths, chosen), WARN)
        assert (found.value, found.suspicious) == (ratio, suspicious)


def test_overlap_with_the_longest_and_the_shortest_rows_is_counted_against_chance():
    longest, shortest = extremes(table([1.0] * 8, [1, 2, 3, 4, 5, 6, 7, 8], [7, 6, 5, 0]), WARN)
    assert (longest.value, longest.suspicious) == (0.75, True)  # three of 5, 6, 7, 8; chance is a half
    assert (shortest.value, shortest.suspicious) == (0.25, False)
    everything = extremes(table([1.0] * 3, [1, 2, 3], [0, 1, 2]), WARN)
    assert [(found.value, found.suspicious) for found in everything] == [(1.0, False), (1.0, False)]


def test_source_mix_is_the_total_variation_distance():
    sources = pandas.Series(["a", "a", "b", "b", "c"])
    found = source_mix(table([1.0] * 5, [1] * 5, [0, 1]), sources, WARN)
    assert found.value == pytest.approx(0.6)  # a: 1 − .4
    assert found.suspicious
    assert found.details["b"] == {"pool": 0.4, "selection": 0.0}
    assert source_mix(table([1.0] * 2, [1] * 2, [0]), pandas.Series(["a", "a"]), WARN).value is None


def test_a_selected_copy_of_a_better_row_is_named_with_it():
    texts = ["a b c d e f g h", "quite another text of seven words", "A, b, c, d, e, f, g, h!"]
    rows = [{"id": f"r{n}", "messages": [{"role": "user", "content": text}]} for n, text in enumerate(texts)]
    found = copies(rows, WARN)
    assert (found.value, found.suspicious) == (pytest.approx(1 / 3), True)
    assert found.details == [{"id": "r2", "of": "r0"}]


def test_subtask_share_counts_the_subtask_that_each_selected_row_owes_its_score_to():
    rose, scored = composed_method("rose"), table([3, 2, 1, 1], [1] * 4, [0, 1, 2])
    influence = Influence(numpy.array([[3, 0, 0], [2, 1, 0], [0, 1, 0], [1, 0, 0]]), ["x", "y", "z"])
    found = subtask_share(rose, scored, influence, WARN)
    assert found.value == pytest.approx(2 / 3)
    assert found.details == {"x": pytest.approx(2 / 3), "y": pytest.approx(1 / 3), "z": 0.0}
    assert "one of 3 subtasks" in found.sentence


def test_two_subtasks_are_two_whatever_they_are_called_and_whether_or_not_the_rule_has_columns_for_them():
    rose, scored = composed_method("rose"), table([3, 2, 1, 1], [1] * 4, [0, 1, 2])
    influence = Influence(numpy.array([[3, 3, 0], [2, 2, 1], [0, 0, 1], [1, 1, 0]]), ["selected", "selected", "x"])
    found = subtask_share(rose, scored, influence, WARN)
    assert found.value == pytest.approx(2 / 3)
    assert found.details == {"selected": pytest.approx(2 / 3), "x": pytest.approx(1 / 3)}
    assert "one of 2 subtasks" in found.sentence
    one = subtask_share(rose, scored, Influence(influence.values, ["a", "a", "a"]), WARN)
    none = subtask_share(rose, scored, Influence(numpy.zeros((4, 0)), []), WARN)
    assert [one.sentence, none.sentence] == ["The targets have one subtask.", "The score is not made of targets."]


def test_a_selection_that_one_pair_decides_is_unstable():
    """Two pairs: the first likes r0 by 2, the second r1 by 1.5; r1 wins when the second is drawn twice: ¼."""
    influence = Influence(numpy.array([[2, 0], [0, 1.5]]), ["a", "a"])
    found = stability(composed_method("rose"), table([1.0, 0.75], [1, 1], [0]), influence, 800, 0, WARN)
    assert found.value == pytest.approx(0.75, abs=0.05)
    agreed = Influence(numpy.array([[2.0, 3], [0, 1]]), ["a", "b"])
    found = stability(composed_method("rose"), table([3, 1], [1, 1], [0]), agreed, 20, 0, WARN)
    assert (found.value, found.suspicious) == (1.0, False)


def test_resampling_keeps_every_subtasks_number_of_pairs():
    """Subtask b's only pair is always drawn, so its favourite r1 is always selected, and r0 never by b."""
    influence = Influence(numpy.array([[1.0, 1, 0], [0, 0, 5], [0.5, 0.5, 0]]), ["a", "a", "b"])
    found = stability(composed_method("rose"), table([1.0, 5, 0.5], [1] * 3, [1]), influence, 20, 0, WARN)
    assert found.value == 1.0


@pytest.mark.parametrize(("method", "columns"), [("random", 0), ("longest", 1), ("greedy", 2)])
def test_stability_says_where_it_does_not_apply(method, columns):
    influence = Influence(numpy.ones((2, columns)), ["a"] * columns)
    found = stability(composed_method(method), table([1, 2], [1, 2], [0]), influence, 5, 0, WARN)
    assert found.value is None
    assert not found.suspicious


def test_momentum_share_is_the_squared_correlation_with_the_cosines(tmp_path):
    generator = numpy.random.default_rng(3)
    features = generator.normal(size=(50, 6)).astype(numpy.float32)
    common = generator.normal(size=(1, 6)).astype(numpy.float32)
    unit = torch.tensor(common / numpy.linalg.norm(common))
    save_file({"checkpoint-1": unit[0]}, tmp_path / "momentum.safetensors")
    cosines = features @ common[0]
    score = 2 * cosines + generator.normal(size=50)
    features_path = store(tmp_path / "features", [features.tolist()], [1.0])
    found = momentum_share(table(score, [1] * 50, [0]), (features_path, tmp_path), WARN)
    assert found.value == pytest.approx(scipy.stats.pearsonr(score, cosines)[0] ** 2, rel=1e-4)
    assert found.details == {"checkpoint-1": pytest.approx(cosines.mean() / numpy.linalg.norm(common), abs=1e-5)}


def test_fidelity_warns_when_its_interval_reaches_chance():
    own = {"fidelity": 0.6, "fidelity_low": 0.52, "fidelity_high": 0.68, "fidelity_pairs": 200}
    matched = {"fidelity_matched": 0.6, "fidelity_matched_low": 0.5, "fidelity_matched_high": 0.7}
    both = faithful(composed_method("rose"), own | matched | {"fidelity_matched_pairs": 90})
    assert [found.suspicious for found in both] == [False, True]
    assert "60 % of 200 held-out pairs (95 %: 52 % to 68 %" in both[0].sentence
    alone = faithful(composed_method("rose"), own | {"fidelity_matched_pairs": 0})
    assert alone[1].value is None
    assert [found.value for found in faithful(composed_method("random"), {})] == [None]


def test_leaks_are_listed_with_their_rows(tmp_path):
    leak = {"between": "pool/test", "id": "t3", "kind": "exact", "share": 1.0, "row": "r7"}
    (tmp_path / "leaks.jsonl").write_text(json.dumps(leak) + "\n")
    none = {"prompts": 4, "leaked": 0, "exact": 0, "near": 0, "ngram": 0}
    counts = {"pool/test": none | {"leaked": 1, "exact": 1}, "pool/target": none, "target/test": none}
    (tmp_path / "leakage.json").write_text(json.dumps(counts))
    first, *others = leaks(tmp_path, WARN)
    assert (first.value, first.suspicious, first.details) == (0.25, True, [leak])
    assert first.sentence.startswith("1 of 4 test prompts are in the pool")
    assert not any(found.suspicious for found in others)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    return tmp_path_factory.mktemp("diagnostics")


@pytest.fixture
def run(composed, inputs, outputs):
    """run(*overrides) -> (job directory, its diagnostics by name, its stages)"""

    def make(*extra: str):
        directory = outputs / "runs" / "-".join(extra)
        job.run(typed(composed(*overrides(inputs, outputs), *extra)), directory, "test")
        assert json.loads((directory / "status.json").read_text())["error"] is None
        file = directory / "diagnostics.json"
        found = {one["name"]: one for one in json.loads(file.read_text())} if file.exists() else None
        return directory, found, json.loads((directory / "stages.json").read_text())

    return make


def test_a_job_leaves_its_diagnostics_where_people_look(run):
    _, found, _ = run("until=diagnostics")
    assert {"length_correlation", "stability", "momentum_share", "leakage_pool_test"} < set(found)
    for one in found.values():
        assert one["state"] in ("pass", "warn")
        assert one["value"] is None or isinstance(one["value"], int | float)
        assert one["sentence"].endswith(".")
    assert found["length_correlation"]["value"] is None  # all rows of this pool are of one length
    assert found["leakage_target_test"]["value"] == 1.0  # this test's file of test pairs is that of the targets


@pytest.mark.parametrize("method", ["random", "full", "longest", "bm25", "rose_whitened"])
def test_every_kind_of_method_has_diagnostics(run, method):
    _, found, _ = run(f"method={method}", "until=diagnostics")
    assert (found["momentum_share"]["value"] is not None) == (method == "rose_whitened")
    assert (found["stability"]["value"] is not None) == (method in ("bm25", "rose_whitened"))


def test_a_job_without_a_selection_has_none_and_is_done(run):
    _, found, _ = run("method=zero_shot")
    assert found is None


def test_a_threshold_changes_states_and_recomputes_nothing_else(run):
    _, before, _ = run("until=diagnostics", "diagnostics.warn.momentum_share=1")
    _, after, stages = run("until=diagnostics", "diagnostics.warn.momentum_share=0.01")
    assert [name for name, stage in stages.items() if stage["state"] == "computed"] == ["diagnostics"]
    states = [findings["momentum_share"]["state"] for findings in (before, after)]
    assert states == ["pass", "warn"]
    assert before["momentum_share"]["value"] == after["momentum_share"]["value"]


def test_the_common_term_is_what_adam_would_do_without_a_gradient(run, outputs):
    _, _, stages = run("until=diagnostics", "projection=none", "features.adam=published")
    at = {name: outputs / stage["dir"] for name, stage in stages.items()}
    trajectory = Trajectory(loading.load_model(at["base"], Numerics("float32", "sdpa", False)), at["warmup"])
    names = [name for name, weight in trajectory.model.named_parameters() if weight.requires_grad]
    common = load_file(at["momentum"] / "momentum.safetensors")
    for entry in trajectory.entries:
        stored = load_file(at["warmup"] / entry["dir"] / "moments.safetensors")
        m, v = (torch.cat([stored[f"{name}.{part}"].flatten() for name in names]) for part in ("exp_avg", "exp_avg_sq"))
        update = 0.9 * m / (0.999 * v + 1e-8).sqrt()
        assert common[entry["dir"]].numpy() == pytest.approx((update / update.norm()).numpy(), abs=1e-6)


def test_without_a_projection_there_is_no_projection_error(run):
    _, found, _ = run("until=diagnostics", "projection=none", "diagnostics.exact_rows=8")
    details = found["projection"]["details"]
    assert details["rows"] == 8
    assert details["rms"] < 1e-3 * details["spread"] + 1e-4  # features of the pool are stored in float16
    assert found["projection"]["value"] > 0.99


def test_a_narrow_projection_shows_its_error(run):
    _, found, _ = run("until=diagnostics", "projection.dim=2", "diagnostics.exact_rows=23")
    assert found["projection"]["details"]["rms"] > 0.1 * found["projection"]["details"]["spread"]
