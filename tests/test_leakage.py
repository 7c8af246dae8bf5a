"""Shared runs of words and leaked prompts, beside plain sets."""

import json

import numpy
import pytest
from method_toys import lines

from rose.diagnostics.leakage import leakage
from rose.diagnostics.overlap import Index, near_duplicates, shingles
from rose.methods.duplicates import Near
from rose.methods.lexical import words

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen " * 2
PROMPT = " ".join(f"{word}{place}" for place, word in enumerate(LONG.split()))  # 32 different words


def naive(text: str, size: int) -> set[tuple[str, ...]]:
    own = words(text)
    return {tuple(own[start : start + size]) for start in range(len(own) - size + 1)}


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Few different words, so that runs recur within and between texts; some are too short to have any."""
    rng = numpy.random.default_rng(0)
    return [" ".join(rng.choice(list("abc"), rng.integers(0, 30))) for _ in range(40)]


@pytest.mark.parametrize("size", [2, 5])
def test_shares_are_those_of_plain_sets(texts, size):
    few, many = texts[:15], texts[15:]
    index = Index([words(text) for text in few], size)
    covered, jaccard = (compare([words(text) for text in many]).toarray() for compare in (index.covered, index.jaccard))
    for i, own in enumerate(naive(text, size) for text in many):
        for j, other in enumerate(naive(text, size) for text in few):
            assert covered[i, j] == pytest.approx(len(own & other) / max(1, len(other)))
            assert jaccard[i, j] == pytest.approx(len(own & other) / max(1, len(own | other)))


def test_runs_do_not_cross_from_one_text_into_the_next():
    row, hashes = shingles([["a", "b"], [], ["c", "d"], ["b", "c"]], 2)
    assert row.tolist() == [0, 2, 3]
    assert len(set(hashes.tolist())) == 3


def test_near_duplicates_are_those_that_selection_passes_over():
    rng = numpy.random.default_rng(0)
    base = [f"w{number}" for number in rng.integers(0, 1000, 60)]
    changed = [[*base[:n], "other", *base[n + 1 :]] for n in (0, 59)]  # 5-word runs: 55 of 57 in common at an end
    far = [*base[:20], *(f"v{number}" for number in range(40))]
    own = [" ".join(text) for text in (base, far, *changed)] + ["Да, нет", "да нет!", "да"]
    near = Near()
    assert [near.holds(text) for text in own] == [False, False, True, True, False, True, False]
    assert near_duplicates(own, 0.8) == [(2, 0), (3, 0), (5, 4)]


def leaked(path, pool: list[tuple[str, str]], target: list[str], test: list[str]) -> tuple[list[dict], dict]:
    said = [[{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}] for prompt, answer in pool]
    lines(path / "pool" / "pool.jsonl", [{"id": f"r{i}", "messages": messages} for i, messages in enumerate(said)])
    for name, prompts in (("target", target), ("test", test)):
        answer = [{"role": "assistant", "content": "yes"}]
        pairs = [
            {
                "id": f"{name}{i}",
                "prompt": [{"role": "user", "content": text}],
                "chosen": answer,
                "rejected": answer,
            }
            for i, text in enumerate(prompts)
        ]
        lines(path / "pairs" / f"{name}.jsonl", pairs)
    out = path / "leakage"
    out.mkdir()
    leakage(out, path / "pool", path / "pairs")
    found = [json.loads(line) for line in (out / "leaks.jsonl").read_text().splitlines()]
    return found, json.loads((out / "leakage.json").read_text())


def test_each_kind_of_leak_is_found_and_names_prompt_and_row(tmp_path):
    near = PROMPT.replace("sixteen31", "other")  # 27 of 29 five-word runs in common
    pool = [("Nothing like it", "at all"), ("Short one?", "Yes"), (near, "a"), ("Read this", f"Well, {PROMPT}, so")]
    test = ["short ONE", PROMPT, "nothing of all this", " ".join(PROMPT.split()[:26] + ["x"] * 6)]
    found, counts = leaked(tmp_path, pool, ["another"], test)
    shown = [(leak["between"], leak["id"], leak["kind"], leak["row"]) for leak in found]
    assert shown == [
        ("pool/test", "test0", "exact", "r1"),
        ("pool/test", "test1", "near", "r2"),
        ("pool/test", "test3", "ngram", "r2"),
    ]
    assert found[1]["share"] == pytest.approx(27 / 29)
    runs = naive(test[3], 13)
    assert found[2]["share"] == pytest.approx(len(runs & naive(PROMPT, 13)) / len(runs))
    assert counts["pool/test"] == {"prompts": 4, "leaked": 3, "exact": 1, "near": 1, "ngram": 1}
    assert counts["pool/target"]["leaked"] == counts["target/test"]["leaked"] == 0


def test_a_prompt_inside_an_answer_is_found_by_its_runs_of_words(tmp_path):
    found, _ = leaked(tmp_path, [("Read", f"Well, {PROMPT}, so")], ["t"], [PROMPT])
    assert [(leak["kind"], leak["share"]) for leak in found] == [("ngram", 1.0)]


def test_prompts_count_once_however_many_pairs_have_them(tmp_path):
    found, counts = leaked(tmp_path, [("a", "b")], ["c", "a"], ["a", "a", "d"])
    assert [(leak["between"], leak["id"]) for leak in found] == [
        ("pool/test", "test0"),
        ("pool/target", "target1"),
        ("target/test", "test0"),
    ]
    assert counts["pool/test"]["prompts"] == 2


def test_words_in_common_without_a_run_of_them_are_no_leak(tmp_path):
    shuffled = " ".join(sorted(PROMPT.split()))
    assert leaked(tmp_path, [(shuffled, shuffled)], ["t"], [PROMPT])[0] == []
