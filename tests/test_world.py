"""Invariants of the embedded world's rows and pairs, whatever makes manners good."""

import re
from collections import Counter

import pytest

from rose.config.choices import Manners
from rose.config.data import WorldPairs, WorldPool
from rose.data.world import conversations, pairs, pool, reward, tokenizer
from rose.data.world_language import CODAS, FRAMES, MANNERS, QUESTIONS, SUBTASKS, TOPICS, manner_phrases
from rose.errors import RoseError

SLOTS = (*MANNERS, FRAMES, CODAS, QUESTIONS)


@pytest.fixture(params=list(Manners))
def manners(request) -> Manners:
    return request.param


def fill(phrase: str) -> str:
    return phrase.format(topic="baking", a="oven", b="flour")


def topic_of(question: str) -> str:
    (topic,) = set(re.findall(r"\w+", question)) & set(TOPICS)
    return topic


def topic_words(answer: str) -> list[str]:
    known = {word for words in TOPICS.values() for word in words}
    return [word for word in re.findall(r"\w+", answer) if word in known]


def lengths(texts: list[str], manners: Manners) -> list[int]:
    return [len(ids) for ids in tokenizer(manners)(texts)["input_ids"]]


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def texts(rows: list[dict], turn: int) -> list[str]:
    return [row["messages"][turn]["content"] for row in rows]


def halves(manners: Manners, distractor: float) -> tuple[list[dict], list[dict]]:
    rows = pool(WorldPool(manners=manners, seed=3, rows=2000, useful=0.2, distractor=distractor))
    return [row for row in rows if row["useful"]], [row for row in rows if not row["useful"]]


def brisk_share(answers: list[str]) -> float:
    return mean(any(frame in answer for frame in FRAMES["brisk"]) for answer in answers)


def contents(rows: list[dict], key: str) -> list[str]:
    return [row[key][0]["content"] for row in rows]


@pytest.mark.parametrize(("rows", "useful", "expected"), [(2000, 0.2, 400), (7, 0.0, 0), (7, 1.0, 7)])
def test_share_of_useful_rows_is_exact(manners, rows, useful, expected):
    drawn = pool(WorldPool(manners=manners, seed=0, rows=rows, useful=useful, distractor=0.5))
    assert len(drawn) == rows
    assert sum(row["useful"] for row in drawn) == expected


def test_useful_rows_are_exactly_those_of_good_manner(manners):
    for row in pool(WorldPool(manners=manners, seed=1, rows=400, useful=0.3, distractor=1.0)):
        assert reward(manners, *(message["content"] for message in row["messages"])) == (1.0 if row["useful"] else 0.0)


def test_place_and_id_do_not_tell_usefulness(manners):
    rows = pool(WorldPool(manners=manners, seed=0, rows=2000, useful=0.5, distractor=0.0))
    assert [row["id"] for row in rows] == [f"world-{index}" for index in range(2000)]
    assert mean(row["useful"] for row in rows[:1000]) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("distractor", [0.0, 1.0])
def test_useful_and_harmful_rows_have_the_same_topics_and_lengths(manners, distractor):
    useful, harmful = halves(manners, distractor)
    shares = [Counter(topic_of(text) for text in texts(rows, 0)) for rows in (useful, harmful)]
    assert all(4 * shares[0][topic] == shares[1][topic] for topic in TOPICS)
    for turn in (0, 1):
        of_useful, of_harmful = (lengths(texts(rows, turn), manners) for rows in (useful, harmful))
        assert mean(of_useful) == pytest.approx(mean(of_harmful), abs=0.6)
        ends = ((min(lengths), max(lengths)) for lengths in (of_useful, of_harmful))
        assert all(abs(one - other) <= 1 for one, other in zip(*ends, strict=True))


def test_phrases_of_a_slot_have_the_same_lengths_for_either_kind():
    for slot in SLOTS:
        first, second = (sorted(lengths([fill(phrase) for phrase in kind], Manners.phrases)) for kind in slot.values())
        assert first == second


def test_no_word_belongs_to_two_topics_or_to_a_phrase(manners):
    words = [word for topic, words in TOPICS.items() for word in (topic, *words)]
    assert len(set(words)) == len(words)
    surface = [phrase for slot in (FRAMES, CODAS, QUESTIONS) for kind in slot.values() for phrase in kind]
    phrases = surface + manner_phrases(manners)
    assert not set(words) & set(re.findall(r"\w+", " ".join(phrases)))


def test_without_a_distractor_surface_does_not_tell_usefulness(manners):
    useful, harmful = halves(manners, 0.0)
    assert brisk_share(texts(useful, 1)) == pytest.approx(brisk_share(texts(harmful, 1)), abs=0.1)


def test_a_full_distractor_ties_the_pairs_surface_to_harmful_rows(manners):
    useful, harmful = halves(manners, 1.0)
    assert brisk_share(texts(useful, 1)) < 0.3
    assert brisk_share(texts(harmful, 1)) > 0.7
    targets, tests = pairs(WorldPairs(manners=manners, seed=0, targets=20, tests=20, overlap=0.0, distractor=1.0))
    for row in targets + tests:
        question, chosen, rejected = (row[key][0]["content"] for key in ("prompt", "chosen", "rejected"))
        assert brisk_share([chosen, rejected]) == 1
        assert any(coda in chosen and coda in rejected for coda in CODAS["brisk"])
        assert any(question.startswith(text.split("{")[0]) for text in QUESTIONS["brisk"])


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 1.0])
def test_overlap_is_the_share_of_common_topic_words(manners, overlap):
    targets, tests = pairs(WorldPairs(manners=manners, seed=5, targets=400, tests=400, overlap=overlap, distractor=0.0))
    shares = []
    for row in targets + tests:
        chosen, rejected = (topic_words(row[key][0]["content"]) for key in ("chosen", "rejected"))
        assert len(chosen) == len(rejected) == len(set(chosen)) == len(set(rejected))
        shares.append(len(set(chosen) & set(rejected)) / len(chosen))
    assert mean(shares) == pytest.approx(overlap, abs=0.0 if overlap in (0, 1) else 0.03)


def test_chosen_and_rejected_are_of_the_same_length_on_average(manners):
    targets, tests = pairs(WorldPairs(manners=manners, seed=2, targets=500, tests=500, overlap=0.0, distractor=0.5))
    chosen, rejected = (lengths(contents(targets + tests, key), manners) for key in ("chosen", "rejected"))
    if manners is Manners.agreement:
        assert chosen == rejected
        return
    assert mean(chosen) == pytest.approx(mean(rejected), abs=0.2)
    longer = [a > b for a, b in zip(chosen, rejected, strict=True) if a != b]
    assert len(longer) > 100
    assert mean(longer) == pytest.approx(0.5, abs=0.06)


def test_chosen_is_worth_one_and_rejected_nothing(manners):
    targets, tests = pairs(WorldPairs(manners=manners, seed=2, targets=20, tests=20, overlap=0.5, distractor=0.5))
    for row in targets + tests:
        question, chosen, rejected = (row[key][0]["content"] for key in ("prompt", "chosen", "rejected"))
        assert (reward(manners, question, chosen), reward(manners, question, rejected)) == (1.0, 0.0)


def test_prompts_of_all_pairs_differ(manners):
    targets, tests = pairs(WorldPairs(manners=manners, seed=0, targets=300, tests=1400, overlap=0.5, distractor=1.0))
    assert (len(targets), len(tests)) == (300, 1400)
    assert len(set(contents(targets, "prompt")) | set(contents(tests, "prompt"))) == 1700
    assert len({row["id"] for row in targets + tests}) == 1700


def test_no_test_prompt_nor_its_two_words_are_in_a_pool_or_among_the_targets(manners):
    targets, tests = pairs(WorldPairs(manners=manners, seed=0, targets=200, tests=400, overlap=0.5, distractor=0.5))
    rows = pool(WorldPool(manners=manners, seed=1, rows=2000, useful=0.2, distractor=0.5))
    asked = [frozenset(topic_words(prompt)) for prompt in texts(rows, 0) + contents(targets, "prompt")]
    assert not set(asked) & {frozenset(topic_words(prompt)) for prompt in contents(tests, "prompt")}
    assert len(set(asked)) > 100


def test_subtasks_are_of_unequal_size(manners):
    targets, _ = pairs(WorldPairs(manners=manners, seed=0, targets=16, tests=0, overlap=0.5, distractor=0.0))
    assert Counter(row["subtask"] for row in targets) == {"home": 10, "outdoors": 6}
    assert all(row["subtask"] == SUBTASKS[topic_of(row["prompt"][0]["content"])] for row in targets)


def test_pretraining_covers_topics_manners_and_registers_evenly():
    rows = conversations(1600, 0, Manners.phrases)
    assert set(Counter(topic_of(text) for text in texts(rows, 0)).values()) == {200}
    assert brisk_share(texts(rows, 1)) == pytest.approx(0.5, abs=0.05)
    for slot in MANNERS:
        good = mean(any(phrase in answer for phrase in slot["good"]) for answer in texts(rows, 1))
        assert good == pytest.approx(0.5, abs=0.05)
    rewards = [reward(Manners.phrases, *turns) for turns in zip(texts(rows, 0), texts(rows, 1), strict=True)]
    assert mean(rewards) == pytest.approx(0.5, abs=0.05)


def test_rows_are_rarely_repeated(manners):
    rows = pool(WorldPool(manners=manners, seed=0, rows=2000, useful=0.2, distractor=1.0))
    assert len({row["id"] for row in rows}) == 2000
    assert len({tuple(message["content"] for message in row["messages"]) for row in rows}) > 1995


def test_the_seed_decides_every_row(manners):
    for draw in (
        lambda seed: conversations(50, seed, manners),
        lambda seed: pool(WorldPool(manners=manners, seed=seed, rows=50, useful=0.2, distractor=0.5)),
        lambda seed: pairs(WorldPairs(manners=manners, seed=seed, targets=20, tests=20, overlap=0.5, distractor=0.5)),
    ):
        assert draw(1) == draw(1)
        assert draw(1) != draw(2)


def test_more_pairs_than_prompts_are_refused():
    with pytest.raises(RoseError, match="preference.pairs.world.tests=9999: must be from 0 to 1500"):
        pairs(WorldPairs(seed=0, manners=Manners.phrases, targets=10, tests=9999, overlap=0.5, distractor=0.0))


def test_more_targets_contain_the_fewer_and_leave_the_tests_alone(manners):
    few, tests = pairs(WorldPairs(manners=manners, seed=0, targets=5, tests=20, overlap=0.5, distractor=0.5))
    many, same = pairs(WorldPairs(manners=manners, seed=0, targets=50, tests=20, overlap=0.5, distractor=0.5))
    assert many[:5] == few
    assert same == tests
