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


@pytest.fixture
def swept(results, tmp_path):
    jobs = [("rose", 0.1, 0.2), ("rose", 0.5, 0.4), ("less", 0.1, 0.3), ("less", 0.5, 0.6), ("zero_shot", None, 0.1)]
    frame = pandas.DataFrame(jobs, columns=["method", "ratio", "auc"]).assign(state="done")
    frame.to_csv(tmp_path / "experiments" / "results" / "swept.csv", index=False)
    return results


def test_a_key_goes_across_with_a_row_a_metric_and_method(swept):
    swept.write_text("<!-- table swept@method/ratio rose less: auc -->\n<!-- end -->\n")
    tables.renewed(swept, write=True)
    assert swept.read_text().splitlines()[1:5] == [
        "|  | method | 0.1 | 0.5 |",
        "|---|---:|---:|---:|",
        "| auc | rose | 0.20 | 0.40 |",
        "| auc | less | 0.30 | 0.60 |",
    ]


def test_jobs_in_which_a_key_is_not_set_have_a_row_of_their_own(swept, tmp_path):
    path = tmp_path / "experiments" / "results" / "swept.csv"
    jobs = pandas.read_csv(path)
    both = pandas.concat([jobs.assign(tokens=4), jobs.assign(auc=1 - jobs.auc)])  # the latter have no tokens
    both.to_csv(path, index=False)
    swept.write_text("<!-- table swept@tokens/ratio rose: auc -->\n<!-- end -->\n")
    tables.renewed(swept, write=True)
    assert swept.read_text().splitlines()[3:5] == ["| auc | 4 | 0.20 | 0.40 |", "| auc |  | 0.80 | 0.60 |"]
    swept.write_text("<!-- table swept@tokens rose: auc -->\n<!-- end -->\n")
    tables.renewed(swept, write=True)
    assert [line.split(" | ")[:2] for line in swept.read_text().splitlines()[3:5]] == [["| ", "2"], ["| 4", "2"]]


def test_a_figure_is_drawn_from_its_results_and_a_changed_one_is_found(swept, tmp_path):
    swept.write_text("<!-- figure swept@method/ratio rose less: auc -->\n![by ratio](ratio.svg)\n")
    assert tables.renewed(swept, write=True) == [f"{tmp_path / 'ratio.svg'} is not as its results draw it"]
    svg = (tmp_path / "ratio.svg").read_text()
    assert all(f">{label}<" in svg for label in ("rose", "less", "ratio", "auc"))
    assert tables.renewed(swept, write=False) == []
    (tmp_path / "ratio.svg").write_text(svg.replace(">rose<", ">more<"))
    assert len(tables.renewed(swept, write=False)) == 1


@pytest.fixture
def priced(results, tmp_path):
    """Two sweeps that have LESS in common, one of them with candidates."""
    kept = tmp_path / "experiments" / "results"
    jobs = [("less", 0, 0.4, 8.0), ("less", 1, 0.6, 8.0), ("bm25", 0, 0.2, 1.0), ("bm25", 1, 0.4, 2.0)]
    frame = pandas.DataFrame(jobs, columns=["method", "seed", "auc", "cost/flops"]).assign(state="done")
    frame.to_csv(kept / "one.csv", index=False)
    less = [("less", None, 0, 0.4, 8.0), ("less", None, 1, 0.6, 8.0), ("less", "bm25", 0, 0.5, 2.0)]
    columns = ["method", "candidates", "seed", "auc", "cost/flops"]
    pandas.DataFrame(less, columns=columns).assign(state="done").to_csv(kept / "two.csv", index=False)
    return results


def test_two_sweeps_are_one_table_and_a_cost_is_in_units_of_a_method_s(priced):
    priced.write_text("<!-- table one+two@method,candidates: auc cost/flops/less -->\n<!-- end -->\n")
    tables.renewed(priced, write=True)
    header, _, *rows = priced.read_text().splitlines()[1:-1]
    assert header == "| method | candidates | seeds | auc | cost/flops/less |"
    of = {tuple(row.split(" | ")[:2]): row.split(" | ")[2:] for row in rows}
    assert of["| less", "bm25"] == ["1", "0.50", "0.25 |"]
    assert of["| less", ""][0] == "2" and of["| less", ""][2] == "1.00 |"  # the other sweep's are the same jobs
    assert of["| bm25", ""][2].startswith("0.19 (")  # an eighth and a quarter


def test_a_metric_is_drawn_against_a_cost(priced, tmp_path):
    priced.write_text("<!-- figure one+two@method,candidates/cost/flops: auc -->\n![front](front.svg)\n")
    tables.renewed(priced, write=True)
    svg = (tmp_path / "front.svg").read_text()
    assert all(f">{label}<" in svg for label in ("less", "less bm25", "bm25", "cost/flops", "auc"))
    assert tables.renewed(priced, write=False) == []


def test_a_figure_in_the_prose_is_one_of_its_section_s_tables(swept):
    table = "<!-- table swept@method/ratio: auc -->\n<!-- end -->\n"
    swept.write_text(f"# One\n{table}Rose has .40 at `x=.77`, less 0.61.\n# Two\nNothing here has .99.\n")
    (line,) = tables.renewed(swept, write=True)[-1:]
    assert "'# One'" in line and line.endswith("no table has 0.61")


def test_differences_are_paired_by_prompt_over_the_seeds_both_have(results, tmp_path):
    values = [
        ("rose", "0", 0, 0, 3.0),
        ("rose", "0", 1, 1, 5.0),
        ("random", "0", 0, 0, 1.0),
        ("random", "0", 1, 1, 2.0),
    ]
    names = ["method", "seed", "prompt", "item"]
    items = pandas.DataFrame([*values, ("rose", "1", 0, 0, 9.0)], columns=[*names, "log_ratio_margin"])
    items.set_index(names).to_parquet(tmp_path / "experiments" / "results" / "toy.items.parquet")
    results.write_text("<!-- differences toy random: log_ratio_margin -->\n<!-- end -->\n")
    tables.renewed(results, write=True)
    row = results.read_text().splitlines()[3]
    # (3 − 1 + 5 − 2)/2, its standard error ½; two prompts resampled, ± ½·√2 so that they have it
    assert row == "| rose − random | +2.50 (+1.79 to +3.21), 1 × 2 |"
