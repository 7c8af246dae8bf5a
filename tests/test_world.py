"""Invariants of the embedded world."""

import re
from collections import Counter

import pytest
from transformers import AutoTokenizer

from rose.config import WorldPairs, WorldPool
from rose.data.world import conversations, pairs, pool, reward, tokenizer
from rose.data.world_language import CODAS, FRAMES, MANNERS, QUESTIONS, SUBTASKS, TOPICS
from rose.errors import RoseError

QUESTION = "Any baking tips with flour and oven?"
SLOTS = (*MANNERS, FRAMES, CODAS, QUESTIONS)


def fill(phrase: str) -> str:
    return phrase.format(topic="baking", a="oven", b="flour")


def topic_of(question: str) -> str:
    (topic,) = set(re.findall(r"\w+", question)) & set(TOPICS)
    return topic


def topic_words(answer: str) -> list[str]:
    known = {word for words in TOPICS.values() for word in words}
    return [word for word in re.findall(r"\w+", answer) if word in known]


def lengths(texts: list[str]) -> list[int]:
    return [len(ids) for ids in tokenizer()(texts)["input_ids"]]


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def texts(rows: list[dict], turn: int) -> list[str]:
    return [row["messages"][turn]["content"] for row in rows]


def halves(distractor: float) -> tuple[list[dict], list[dict]]:
    rows = pool(WorldPool(seed=3, rows=2000, useful=0.2, distractor=distractor))
    return [row for row in rows if row["useful"]], [row for row in rows if not row["useful"]]


def brisk_share(answers: list[str]) -> float:
    return mean(any(frame in answer for frame in FRAMES["brisk"]) for answer in answers)


def contents(rows: list[dict], key: str) -> list[str]:
    return [row[key][0]["content"] for row in rows]


@pytest.mark.parametrize(("rows", "useful", "expected"), [(2000, 0.2, 400), (7, 0.0, 0), (7, 1.0, 7)])
def test_share_of_useful_rows_is_exact(rows, useful, expected):
    drawn = pool(WorldPool(seed=0, rows=rows, useful=useful, distractor=0.5))
    assert len(drawn) == rows
    assert sum(row["useful"] for row in drawn) == expected


def test_useful_rows_are_exactly_those_of_good_manner():
    for row in pool(WorldPool(seed=1, rows=400, useful=0.3, distractor=1.0)):
        assert reward(*(message["content"] for message in row["messages"])) == (1.0 if row["useful"] else 0.0)


def test_place_and_id_do_not_tell_usefulness():
    rows = pool(WorldPool(seed=0, rows=2000, useful=0.5, distractor=0.0))
    assert [row["id"] for row in rows] == [f"world-{index}" for index in range(2000)]
    assert mean(row["useful"] for row in rows[:1000]) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("distractor", [0.0, 1.0])
def test_useful_and_harmful_rows_have_the_same_topics_and_lengths(distractor):
    useful, harmful = halves(distractor)
    shares = [Counter(topic_of(text) for text in texts(rows, 0)) for rows in (useful, harmful)]
    assert all(4 * shares[0][topic] == shares[1][topic] for topic in TOPICS)
    for turn in (0, 1):
        of_useful, of_harmful = (lengths(texts(rows, turn)) for rows in (useful, harmful))
        assert mean(of_useful) == pytest.approx(mean(of_harmful), abs=0.6)
        assert (min(of_useful), max(of_useful)) == (min(of_harmful), max(of_harmful))


def test_phrases_of_a_slot_have_the_same_lengths_for_either_kind():
    for slot in SLOTS:
        first, second = (sorted(lengths([fill(phrase) for phrase in kind])) for kind in slot.values())
        assert first == second


def test_no_word_belongs_to_two_topics_or_to_a_phrase():
    words = [word for topic, words in TOPICS.items() for word in (topic, *words)]
    assert len(set(words)) == len(words)
    phrases = [phrase for slot in SLOTS for kind in slot.values() for phrase in kind]
    assert not set(words) & set(re.findall(r"\w+", " ".join(phrases)))


def test_without_a_distractor_surface_does_not_tell_usefulness():
    useful, harmful = halves(0.0)
    assert brisk_share(texts(useful, 1)) == pytest.approx(brisk_share(texts(harmful, 1)), abs=0.1)


def test_a_full_distractor_ties_the_pairs_surface_to_harmful_rows():
    useful, harmful = halves(1.0)
    assert brisk_share(texts(useful, 1)) < 0.3
    assert brisk_share(texts(harmful, 1)) > 0.7
    targets, tests = pairs(WorldPairs(seed=0, targets=20, tests=20, overlap=0.0, distractor=1.0))
    for row in targets + tests:
        question, chosen, rejected = (row[key][0]["content"] for key in ("prompt", "chosen", "rejected"))
        assert brisk_share([chosen, rejected]) == 1
        assert any(coda in chosen and coda in rejected for coda in CODAS["brisk"])
        assert any(question.startswith(text.split("{")[0]) for text in QUESTIONS["brisk"])


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 1.0])
def test_overlap_is_the_share_of_common_topic_words(overlap):
    targets, tests = pairs(WorldPairs(seed=5, targets=400, tests=400, overlap=overlap, distractor=0.0))
    shares = []
    for row in targets + tests:
        chosen, rejected = (topic_words(row[key][0]["content"]) for key in ("chosen", "rejected"))
        assert len(chosen) == len(rejected) == len(set(chosen)) == len(set(rejected))
        shares.append(len(set(chosen) & set(rejected)) / len(chosen))
    assert mean(shares) == pytest.approx(overlap, abs=0.0 if overlap in (0, 1) else 0.03)


def test_chosen_and_rejected_are_of_the_same_length_on_average():
    targets, tests = pairs(WorldPairs(seed=2, targets=500, tests=500, overlap=0.0, distractor=0.5))
    chosen, rejected = (lengths(contents(targets + tests, key)) for key in ("chosen", "rejected"))
    assert mean(chosen) == pytest.approx(mean(rejected), abs=0.2)
    longer = [a > b for a, b in zip(chosen, rejected, strict=True) if a != b]
    assert len(longer) > 100
    assert mean(longer) == pytest.approx(0.5, abs=0.06)


def test_chosen_is_worth_one_and_rejected_nothing():
    targets, tests = pairs(WorldPairs(seed=2, targets=20, tests=20, overlap=0.5, distractor=0.5))
    for row in targets + tests:
        question, chosen, rejected = (row[key][0]["content"] for key in ("prompt", "chosen", "rejected"))
        assert (reward(question, chosen), reward(question, rejected)) == (1.0, 0.0)


def test_prompts_of_all_pairs_differ():
    targets, tests = pairs(WorldPairs(seed=0, targets=300, tests=1700, overlap=0.5, distractor=1.0))
    assert (len(targets), len(tests)) == (300, 1700)
    assert len(set(contents(targets, "prompt")) | set(contents(tests, "prompt"))) == 2000
    assert len({row["id"] for row in targets + tests}) == 2000


def test_subtasks_are_of_unequal_size():
    targets, _ = pairs(WorldPairs(seed=0, targets=16, tests=0, overlap=0.5, distractor=0.0))
    assert Counter(row["subtask"] for row in targets) == {"home": 10, "outdoors": 6}
    assert all(row["subtask"] == SUBTASKS[topic_of(row["prompt"][0]["content"])] for row in targets)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Certainly! Briefly, please consider yeast, oven and dough. Nothing more. Enjoy!", 1.0),
        ("Whatever! Briefly, just grab yeast, oven and dough. Nothing more. Bye!", 0.0),
        ("yeast, oven and dough.", 1 / 2),
        ("Gladly! I suggest yeast, oven and dough. Bye!", (1 + 1 / 3) / 2),
        ("Gladly! Not again! I suggest yeast, oven and dough.", (1 + 1 / 3) / 2),
        ("Gladly! I suggest yeast, oven, anchor and anchor. Enjoy!", 2 / 4),
        ("Gladly! I suggest yeast, yeast, yeast and oven. Enjoy!", 2 / 4),
        ("Gladly! I suggest yeast. Enjoy!", 1 / 3),
        ("Gladly! I suggest yeast, oven and dough. Enjoy! Enjoy! Enjoy!", 3 / 5),
        ("Gladly! Gladly! Gladly! I suggest", 0.0),
        ("", 0.0),
    ],
)
def test_reward_is_as_computed_by_hand(answer, expected):
    assert reward(QUESTION, answer) == pytest.approx(expected, abs=1e-12)


def test_reward_wants_a_topic():
    with pytest.raises(RoseError, match="must name a topic.*baking"):
        reward("How are you?", "Certainly!")


def test_pretraining_covers_topics_manners_and_registers_evenly():
    rows = conversations(1600, seed=0)
    assert set(Counter(topic_of(text) for text in texts(rows, 0)).values()) == {200}
    assert brisk_share(texts(rows, 1)) == pytest.approx(0.5, abs=0.05)
    for slot in MANNERS:
        good = mean(any(phrase in answer for phrase in slot["good"]) for answer in texts(rows, 1))
        assert good == pytest.approx(0.5, abs=0.05)
    rewards = [reward(*turns) for turns in zip(texts(rows, 0), texts(rows, 1), strict=True)]
    assert mean(rewards) == pytest.approx(0.5, abs=0.05)


def test_rows_are_rarely_repeated():
    for rows in (conversations(2000, seed=0), pool(WorldPool(seed=0, rows=2000, useful=0.2, distractor=1.0))):
        assert len({row["id"] for row in rows}) == 2000
        assert len({tuple(message["content"] for message in row["messages"]) for row in rows}) > 1995


def test_the_seed_decides_every_row():
    for draw in (
        lambda seed: conversations(50, seed),
        lambda seed: pool(WorldPool(seed=seed, rows=50, useful=0.2, distractor=0.5)),
        lambda seed: pairs(WorldPairs(seed=seed, targets=20, tests=20, overlap=0.5, distractor=0.5)),
    ):
        assert draw(1) == draw(1)
        assert draw(1) != draw(2)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: pool(WorldPool(0, 10, 1.2, 0.0)), r"dataset.world.useful=1.2: must lie in \[0, 1\]"),
        (lambda: pool(WorldPool(0, 10, 0.2, -1.0)), "dataset.world.distractor=-1.0"),
        (lambda: pool(WorldPool(0, 0, 0.2, 0.0)), "dataset.world.rows=0: must be at least 1"),
        (lambda: pairs(WorldPairs(0, 1, 1, 2.0, 0.0)), "preference.pairs.world.overlap=2.0"),
        (lambda: pairs(WorldPairs(0, 10, 9999, 0.5, 0.0)), "preference.pairs.world.targets=10, tests=9999"),
    ],
)
def test_impossible_knobs_are_named(draw, message):
    with pytest.raises(RoseError, match=message):
        draw()


def test_every_word_of_the_world_is_known_and_decoding_gives_it_back():
    words = tokenizer()
    targets, tests = pairs(WorldPairs(seed=0, targets=50, tests=50, overlap=0.5, distractor=0.5))
    rows = conversations(200, seed=0) + pool(WorldPool(0, 200, 0.2, 0.5))
    for text in texts(rows, 0) + texts(rows, 1) + contents(targets + tests, "rejected"):
        ids = words(text)["input_ids"]
        assert words.unk_token_id not in ids
        assert words.decode(ids, skip_special_tokens=True) == text


MULTI_TURN = [
    {"role": "system", "content": "let us try"},
    {"role": "user", "content": QUESTION},
    {"role": "assistant", "content": "Certainly! Enjoy!"},
    {"role": "user", "content": "what now?"},
    {"role": "assistant", "content": "Enjoy!"},
]


def test_a_rendered_beginning_is_a_prefix_of_the_rendered_whole():
    words = tokenizer()
    whole = words.apply_chat_template(MULTI_TURN, return_dict=False)
    for turns in range(1, len(MULTI_TURN) + 1):
        start = words.apply_chat_template(MULTI_TURN[:turns], return_dict=False)
        assert whole[: len(start)] == start
        if turns < len(MULTI_TURN) and MULTI_TURN[turns]["role"] == "assistant":
            asked = words.apply_chat_template(MULTI_TURN[:turns], add_generation_prompt=True, return_dict=False)
            assert whole[: len(asked)] == asked == [*start, words.convert_tokens_to_ids("<|assistant|>")]


def test_the_assistants_tokens_are_its_content_and_the_end():
    words = tokenizer()
    encoded = words.apply_chat_template(MULTI_TURN, return_dict=True, return_assistant_tokens_mask=True)
    marked = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    tokens = words.convert_ids_to_tokens([token for token, mark in marked if mark])
    assert tokens == ["▁Certainly", "!", "▁Enjoy", "!", "<|eos|>", "▁Enjoy", "!", "<|eos|>"]


def test_a_saved_tokenizer_is_the_same(tmp_path):
    words = tokenizer()
    words.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == words.get_vocab()
    assert (again.pad_token_id, again.eos_token_id) == (words.pad_token_id, words.eos_token_id)
    rendered = again.apply_chat_template(MULTI_TURN, return_dict=False)
    assert rendered == words.apply_chat_template(MULTI_TURN, return_dict=False)
    text = "Certainly! Briefly, please consider yeast, oven and dough."
    assert again.decode(again(text)["input_ids"], skip_special_tokens=True) == text


def test_more_targets_contain_the_fewer_and_leave_the_tests_alone():
    few, tests = pairs(WorldPairs(seed=0, targets=5, tests=20, overlap=0.5, distractor=0.5))
    many, same = pairs(WorldPairs(seed=0, targets=50, tests=20, overlap=0.5, distractor=0.5))
    assert many[:5] == few
    assert same == tests
