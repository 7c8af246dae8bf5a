"""Selection options on a few rows: budgets, filters, quotas, duplicates."""

import json
from collections import Counter

import pandas
import pytest
from method_toys import selected

from rose import keys
from rose.config.choices import Dedup
from rose.config.compose import typed
from rose.data.preferences import hold_out
from rose.errors import RoseError
from rose.methods.duplicates import Near
from rose.shares import part

TABLE = pandas.DataFrame(
    {
        "id": [f"r{i}" for i in range(6)],
        "score": [6.0, 5.0, 4.0, 3.0, 2.0, None],
        "length": [40, 10, 30, 5, 15, 1],
    }
)


def ids(rows: list[dict]) -> list[str]:
    return [row["id"] for row in rows]


def test_a_count_takes_that_many_and_a_ratio_its_share_of_all_rows(tmp_path):
    assert ids(selected(tmp_path, TABLE, count=2)) == ["r0", "r1"]
    assert ids(selected(tmp_path, TABLE, ratio=0.5)) == ["r0", "r1", "r2"]
    assert ids(selected(tmp_path, TABLE, count=99)) == ["r0", "r1", "r2", "r3", "r4"]


@pytest.mark.parametrize(
    ("budget", "kept"),
    [(85, 4), (84, 3), (50, 2), (49, 1), (1, 1)],  # 40, 50, 80, 85; at least one row
)
def test_a_token_budget_is_filled_by_the_best_rows_until_one_does_not_fit(tmp_path, budget, kept):
    assert ids(selected(tmp_path, TABLE, tokens=budget)) == ["r0", "r1", "r2", "r3"][:kept]
    metrics = json.loads((tmp_path / "selection" / "metrics.json").read_text())
    assert metrics["selected_tokens"] <= max(budget, 40)


def test_slices_of_the_ranking_are_equal_and_together_are_all_of_it(tmp_path):
    assert ids(selected(tmp_path, TABLE, slice=1, slices=5)) == ["r0"]
    assert ids(selected(tmp_path, TABLE, slice=2, slices=2, ratio=0.05)) == ["r2", "r3", "r4"]  # 5 rows have a score
    parts = [ids(selected(tmp_path, TABLE, slice=k, slices=3)) for k in (1, 2, 3)]
    assert parts == [["r0"], ["r1", "r2"], ["r3", "r4"]]
    assert ids(selected(tmp_path, TABLE, slice=1, slices=2, min_length=10)) == ["r0", "r1"]
    with pytest.raises(RoseError, match=r"selection\.slices=6: more than the 5 rows"):
        selected(tmp_path, TABLE, slice=1, slices=6)


def test_lengths_outside_the_limits_are_passed_over(tmp_path):
    assert ids(selected(tmp_path, TABLE, count=2, min_length=10, max_length=30)) == ["r1", "r2"]


def test_no_source_has_more_than_its_share(tmp_path):
    pool = [{"dataset": source} for source in "aaabbb"]
    assert ids(selected(tmp_path, TABLE, pool, count=4, per_source=0.5)) == ["r0", "r1", "r3", "r4"]
    # of 60 tokens at most 30 a source: a first row may be longer than that, r1 and r2 then have no room
    assert ids(selected(tmp_path, TABLE, pool, tokens=60, per_source=0.5)) == ["r0", "r3", "r4"]


def test_shares_are_of_the_number_as_it_is_written(tmp_path):
    """.58 · 100 is 57.99999999999999 in floats, .145 · 100 is 14.499999999999998, .575 · 100 is 57.49999999999999."""
    table = pandas.DataFrame({"id": [f"r{i:03}" for i in range(200)], "score": range(200, 0, -1), "length": 1})
    pool = [{"dataset": "ab"[i // 100]} for i in range(200)]
    assert Counter(id < "r100" for id in ids(selected(tmp_path, table, pool, count=100, per_source=0.58))) == {
        True: 58, False: 42,
    }  # fmt: skip
    assert Counter(id < "r100" for id in ids(selected(tmp_path, table, pool, tokens=100, per_source=0.58))) == {
        True: 58, False: 42,
    }  # fmt: skip
    assert len(selected(tmp_path, table[:100], ratio=0.145)) == 15
    assert len(selected(tmp_path, table[:100], ratio=0.1 + 0.2)) == 30
    pairs = [{"prompt": [{"role": "user", "content": str(i)}], "subtask": "all"} for i in range(100)]
    assert [len(part) for part in hold_out(pairs, 0.575, seed=0)] == [42, 58]


@pytest.mark.parametrize("hundredths", range(1, 101))
def test_a_part_is_exact(hundredths):
    assert part(hundredths / 100, 100) == hundredths
    assert part(hundredths / 100, 10**7 + 1) * 100 == hundredths * (10**7 + 1)


def test_copies_of_better_rows_are_passed_over(tmp_path):
    near = "the quick brown fox jumps over the lazy dog and then it runs away from the big bad wolf of the dark wood"
    said = [near, near + " again", near, "something else", "SOMETHING, else!", "x"]
    pool = [{"messages": [{"role": "assistant", "content": text}]} for text in said]
    assert ids(selected(tmp_path, TABLE, pool, dedup=Dedup.none, count=3)) == ["r0", "r1", "r2"]
    assert ids(selected(tmp_path, TABLE, pool, dedup=Dedup.exact, count=3)) == ["r0", "r1", "r3"]
    assert ids(selected(tmp_path, TABLE, pool, dedup=Dedup.near, count=5)) == ["r0", "r3"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (TABLE, r"selection\.min_length=99: leaves none of the 5 rows .* 5 to 40 tokens"),
        (TABLE.assign(score=float("nan")), "no row of the pool has a score"),
    ],
)
def test_a_selection_of_nothing_is_refused(tmp_path, table, message):
    with pytest.raises(RoseError, match=message):
        selected(tmp_path, table, count=2, min_length=99)


@pytest.mark.parametrize("words", ["кот дом лес сад мир", "cat house wood garden peace"])
def test_what_is_near_depends_on_what_is_said_and_not_on_how_json_writes_it(tmp_path, words):
    texts = [" ".join(words.split() * 4), "\n".join(words.split() * 4), " ".join([*words.split() * 3, *"abcde"])]
    pool = [{"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": text}]} for text in texts]
    pool += [{"messages": [{"role": "user", "content": word}]} for word in words.split()[:3]]
    assert ids(selected(tmp_path, TABLE, pool, dedup=Dedup.near, count=9)) == ["r0", "r2", "r3", "r4"]


def test_near_duplicates_share_four_fifths_of_all_their_shingles():
    letters = [f"w{i}" for i in range(13)]  # 9 shingles of five words
    for tail, duplicate in ((2, True), (3, False)):  # 9/11 = .82, 9/12 = .75
        near = Near()
        assert not near.holds(" ".join(letters))
        assert near.holds(" ".join([*letters, *(f"z{i}" for i in range(tail))])) is duplicate


def amount(composed, *overrides):
    config = typed(composed(*overrides))
    return keys.selection(config.method, config.selection, config.warmup, config.finetune)


def test_what_cannot_matter_is_left_out(composed):
    assert amount(composed, "selection.count=5") == amount(composed, "selection.count=5", "selection.ratio=0.5")
    assert amount(composed, "selection.slice=2") == amount(composed, "selection.slice=2", "selection.ratio=0.5")
    assert amount(composed, "selection.slices=9") == amount(composed)
    assert amount(composed, "seed=1") == amount(composed, "seed=2")
    assert amount(composed, "method=full") == amount(composed, "method=full", "selection.tokens=7")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["selection.count=0"], r"selection\.count=0: must be 1 or more"),
        (["selection.tokens=-3"], r"selection\.tokens=-3: must be 1 or more"),
        (["selection.ratio=1.01"], r"selection\.ratio=1\.01: .*\(0, 1\]"),
        (
            ["method.rule=greedy", "method=longest"],
            r"method\.rule=greedy: .*lengths; .*gradients, readout, hidden",
        ),
        (["method.rule=random"], r"method\.rule=random: .*gradients"),
        (["method=random", "method.rule=mean_max"], r"method\.rule=mean_max: .*none"),
        (["method=dsir", "method.seed=null"], r"method\.seed=null"),
        (["method.target=null"], r"method\.target=null: .*preference, chosen"),
        (["method=embedding", "method.encoder=null"], r"method\.encoder=null: .*folder or a hub id"),
        (["selection.count=3", "selection.tokens=3"], r"selection\.tokens=3: .*selection\.count"),
        (["selection.per_source=0"], r"selection\.per_source=0.0: .*\(0, 1\]"),
        (["selection.min_length=9", "selection.max_length=3"], r"selection\.min_length=9.*max_length=3"),
        (["selection.slice=21"], r"selection\.slice=21: must not exceed selection\.slices=20"),
        (["selection.slice=0"], r"selection\.slice=0: must be 1 or more"),
        (["selection.slice=1", "selection.count=3"], r"selection\.slice=1: .*selection\.count"),
        (["method=random_matched", "selection.slice=3"], r"method=random_matched: .*selection\.ratio"),
        (["method=random_matched", "selection.count=3"], r"method=random_matched: .*selection\.ratio"),
    ],
)
def test_a_wrong_amount_is_named(composed, overrides, message):
    with pytest.raises(RoseError, match=message):
        amount(composed, *overrides)
