"""Quality against price: what is on the Pareto front, when it is drawn, and which names stand there."""

import json

import pytest
from report_jobs import write_job

from rose.report.comparison import compare
from rose.report.frontier import Priced, chart, frontier, pareto
from rose.report.results import read_jobs
from rose.report.statistics import Estimate


def test_what_nothing_beats_in_cost_and_quality_is_the_pareto_front():
    costs, qualities = [1, 2, 2, 3, 4], [0.1, 0.5, 0.4, 0.5, 0.9]
    assert pareto(costs, qualities) == [0, 1, 4]
    assert pareto([1, 1], [0.5, 0.5]) == [0, 1]


def test_of_two_names_on_one_spot_of_the_front_one_is_shown():
    def priced(name: str, cost: float, quality: float) -> Priced:
        one, other = (Estimate(1, 0, value, value, value) for value in (cost, quality))
        return Priced(name, name, one, other)

    near, far = [priced("a", 1e9, 0.5), priced("b", 1.001e9, 0.501)], priced("c", 1e11, 0.9)
    axes = chart([*near, far], "reward", "FLOPs").axes[0]
    assert [text.get_text() for text in axes.texts if text.get_visible()] == ["a", "c"]


@pytest.mark.parametrize(("dear", "drawn"), [(1e9, False), (4e9, True)])
def test_quality_is_drawn_against_flops_where_methods_differ_in_their_price(tmp_path, dear, drawn):
    for method, flops, reward in (("random", 1e9, 0.2), ("rose", dear, 0.6), ("less", dear, 0.5)):
        for seed in (0, 1):
            stages = {"features": {"dir": f"stages/{method}{seed}", "state": "computed", "flops": flops}}
            directory = tmp_path / f"{method}{seed}"
            write_job(directory, {"reward": reward + 0.01 * seed}, method=method, seed=seed)
            known = json.loads((directory / "stages.json").read_text())
            (directory / "stages.json").write_text(json.dumps(known | stages))
    found = frontier(compare(read_jobs(tmp_path)), "reward")
    assert (found is not None) == drawn
    if found is not None:
        assert found.caption.endswith("which nothing beats in both: random, rose.")
        assert "less 4e+09 FLOPs, 0.505" in found.alt
