"""The table of `make check-peers`; its comparisons with what this project depends on itself."""

import math
import re
import sys

import numpy
import pytest

from bench.peers import __main__ as peers
from bench.peers.row import Row, largest, relative, table
from rose.__main__ import ROOT

FOLDER = ROOT / "bench" / "peers"
HELPERS = {"__init__", "__main__", "row", "stores"}


@pytest.mark.parametrize(
    ("found", "tolerance", "met"),
    [
        (0.0, 0.0, True),
        (0.1, 0.1, True),
        (0.2, 0.1, False),
        (numpy.float32(0.05), 0.1, True),
        (numpy.float32(0.2), 0.1, False),
        (math.inf, 0.1, False),
        (math.nan, 0.1, False),
        (9.0, None, True),
        ("in words", None, True),
        ("in words", 0.1, False),
    ],
)
def test_a_tolerance_is_met_by_what_is_within_it_and_by_nothing_else(found, tolerance, met):
    assert Row("w", "p", found, tolerance).met is met


def test_differences_by_hand():
    assert largest([1, 2, 3], [1, 2.5, 2]) == 1.0
    assert largest([1, 2], [1, 2, 3]) == math.inf == relative([[1, 2]], [[1, 2], [1, 2]])
    assert math.isnan(largest([1, math.nan], [1, 2]))
    assert relative([[3, 4], [0, 1.5]], [[3, 4], [0, 1]]) == 0.5  # no row hides behind a longer one


def test_the_table_is_markdown_whatever_a_cell_holds():
    rows = [Row("a|b\nc", "p 1", 0.25, 0.1), Row("d", "q", "not here"), Row("e", "q", 1e-9, 1e-6)]
    head, rule, *lines = table(rows).splitlines()
    assert len({len(line) for line in (head, rule, *lines)}) == 1
    split = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert split == [
        ["a\\|b ⏎ c", "p 1", "0.25", "0.1", "NOT MET"],
        ["d", "q", "not here", "–", ""],
        ["e", "q", "1e-09", "1e-06", "met"],
    ]


@pytest.mark.parametrize("name", ["trak", "formulas", "statistics"])
def test_peers_that_are_installed_anyway_agree(name):
    rows = list(peers.check(name))
    assert len(rows) > 1
    assert [row for row in rows if row.tolerance is None or not row.met] == []


def test_bm25s_agrees_without_rank_bm25(monkeypatch):
    monkeypatch.setitem(sys.modules, "rank_bm25", None)
    first, last = peers.check("bm25")
    assert first.met and first.tolerance and first.peer.startswith("bm25s ")
    assert last.what == "not compared" and "rank_bm25" in last.found


@pytest.fixture
def alone(monkeypatch):
    """alone(name, missing): only that check is made, where the module `missing` cannot be imported."""

    def only(name: str, missing: str | None = None) -> None:
        monkeypatch.setattr(peers, "PEERS", (name,))
        for key, value in peers.QUIET.items():  # what main() sets goes with the test
            monkeypatch.setenv(key, value)
        if missing:
            monkeypatch.setitem(sys.modules, missing, None)
            monkeypatch.delitem(sys.modules, f"bench.peers.{name}", raising=False)

    return only


def test_a_peer_that_is_not_here_is_a_row_in_words_and_no_failure(alone, tmp_path):
    alone("dattri", missing="dattri")
    assert peers.main(tmp_path / "page.md") == 0
    page = (tmp_path / "page.md").read_text()
    assert "0 of 0 tolerances met, 1 of 1 checks not made" in page and "## Influence\n" in page
    assert re.search(r"\| not compared +\| dattri +\| .*dattri.* \| – ", page)


def test_a_fault_of_our_own_is_no_missing_peer(alone):
    alone("trak", missing="rose.seeds")
    with pytest.raises(ImportError):
        list(peers.check("trak"))


def test_the_command_fails_where_a_tolerance_is_not_met(alone, monkeypatch, tmp_path, capsys):
    from bench.peers import trak

    alone("trak")
    assert peers.main(tmp_path / "page.md") == 0
    monkeypatch.setattr(trak, "largest", lambda ours, theirs: 1e-30)
    assert peers.main(tmp_path / "page.md") == 1
    page = (tmp_path / "page.md").read_text()
    assert page.count("NOT MET") == 2 and "0 of 2 tolerances met at commit" in page
    assert "NOT MET" in capsys.readouterr().out


def test_no_check_is_forgotten_and_every_peer_has_one_version():
    assert {path.stem for path in FOLDER.glob("*.py")} - HELPERS == set(peers.PEERS)
    lines = [line.split("#")[0].strip() for line in (FOLDER / "requirements.txt").read_text().splitlines()]
    pins = dict(line.split("==") for line in filter(None, lines))
    ours = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines()[1:])
    assert not pins.keys() & ours.keys()  # one place a version


def test_the_checks_can_be_read_by_a_newcomer():
    for name in peers.PEERS:
        lines = (FOLDER / f"{name}.py").read_text().splitlines()
        assert len(lines) <= 150
        assert lines[1] == ""  # a title, then what is compared: both go into the page
