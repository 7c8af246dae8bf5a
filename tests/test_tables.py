"""The READMEs' tables are what their results say, and a changed figure is found."""

import pandas
import pytest

from bench import tables


@pytest.mark.parametrize("readme", tables.READMES)
def test_every_table_is_as_its_results_say(readme):
    assert tables.renewed(tables.ROOT / readme, write=False) == []


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    (tmp_path / "experiments" / "results").mkdir(parents=True)
    jobs = [("a", 0, 0.2), ("a", 1, 0.4), ("b", 0, 0.9), ("c", 0, None)]
    frame = pandas.DataFrame(jobs, columns=["method", "seed", "auc"]).assign(state="done")
    frame.to_csv(tmp_path / "experiments" / "results" / "toy.csv", index=False)
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- table toy: auc -->\nold\n<!-- end -->\nafter\n")
    return readme


def test_a_table_is_made_from_its_results_best_first(results):
    assert tables.renewed(results, write=True)
    # t of one degree of freedom, 12.706, × .1414/√2 = 1.27 = h; the π with (.3 − π)² = h²π(1 − π)/.21 are .011 and .943
    rows = ["| b | 1 | 0.90 |", "| a | 2 | 0.30 (0.01–0.94) |", "| c | 1 | – |"]
    expected = ["| method | seeds | auc |", "|---|---:|---:|", *rows]
    written = ["before", "<!-- table toy: auc -->", *expected, "<!-- end -->", "after"]
    assert results.read_text().splitlines() == written
    assert tables.renewed(results, write=False) == []


def test_a_table_of_named_methods_has_a_row_a_metric(results):
    results.write_text("<!-- table toy b a: auc -->\n<!-- end -->\n")
    tables.renewed(results, write=True)
    assert results.read_text().splitlines()[1:4] == [
        "|  | b | a |",
        "|---|---:|---:|",
        "| auc | 0.90 | 0.30 (0.01–0.94) |",
    ]


def test_a_table_of_a_key_has_a_row_a_value(results):
    results.write_text("<!-- table toy@seed: auc -->\n<!-- end -->\n")
    tables.renewed(results, write=True)
    lines = results.read_text().splitlines()
    assert lines[1] == "| seed | seeds | auc |"
    assert lines[3].startswith("| 0 | 3 | 0.55") and lines[4] == "| 1 | 1 | 0.40 |"  # of .2, .9 and none: .55


def test_a_changed_figure_is_found_by_its_line(results):
    tables.renewed(results, write=True)
    results.write_text(results.read_text().replace("0.30", "0.31"))
    difference = tables.renewed(results, write=False)
    assert "-| a | 2 | 0.31 (0.01–0.94) |" in difference and "+| a | 2 | 0.30 (0.01–0.94) |" in difference


def test_a_sweep_s_results_are_kept_without_paths_and_what_stages_cost(results, tmp_path):
    sweep = tmp_path / "outputs" / "other"
    sweep.mkdir(parents=True)
    columns = {"method": "rose", "auc": 0.5, "cost/seconds": 1.0, "cost/warmup/seconds": 1.0}
    pandas.DataFrame([columns | {"result": "outputs/x", "job": "y"}]).to_csv(sweep / "results.csv", index=False)
    tables.keep(sweep)
    kept = (tmp_path / "experiments" / "results" / "other.csv").read_text()
    assert kept == "method,auc,cost/seconds\nrose,0.5,1.0\n"
