"""Invariants of manners: the reward's exactness, and that agreement leaves nothing for counting words to find."""

import hashlib
import json
import math
import re
from collections import Counter

import pytest

from rose.config.choices import Manners
from rose.config.data import WorldPairs, WorldPool
from rose.data.world import conversations, pairs, pool, reward, tokenizer
from rose.data.world_language import GREETING, VOICES
from rose.errors import RoseError

QUESTION = "Any baking tips with flour and oven?"
LONGEST_GRAM = 5  # tokens; opener and closer are never so close


def answers(rows: list[dict]) -> list[str]:
    return [row["messages"][1]["content"] for row in rows]


def useful_and_harmful(manners: Manners) -> tuple[list[str], list[str]]:
    rows = pool(WorldPool(seed=7, manners=manners, rows=6000, useful=0.5, distractor=0.0))
    return answers([row for row in rows if row["useful"]]), answers([row for row in rows if not row["useful"]])


def chosen_and_rejected(manners: Manners) -> tuple[list[str], list[str]]:
    world = WorldPairs(seed=7, manners=manners, targets=1500, tests=1500, overlap=0.0, distractor=0.0)
    rows = [row for side in pairs(world) for row in side]
    return [row["chosen"][0]["content"] for row in rows], [row["rejected"][0]["content"] for row in rows]


def grams(texts: list[str]) -> Counter:
    """In how many texts each n-gram of words and marks occurs, for all n up to LONGEST_GRAM."""
    found = Counter()
    for text in texts:
        tokens = re.findall(r"\w+|[^\w\s]", text)
        spans = ((start, n) for n in range(1, LONGEST_GRAM + 1) for start in range(len(tokens) - n + 1))
        found.update({tuple(tokens[start : start + n]) for start, n in spans})
    return found


def greatest_z(one: Counter, other: Counter, count: int) -> float:
    """Over all keys, the greatest z of the test that a share is the same in two samples of `count`."""
    shares = ((one[key] + other[key]) / (2 * count) for key in one | other)
    return max(
        abs(one[key] - other[key]) / math.sqrt(2 * count * share * (1 - share)) if share < 1 else 0.0
        for key, share in zip(one | other, shares, strict=True)
    )


def parts(answer: str) -> tuple[str, str, str]:
    """An agreement answer's opener, what is between, and its closer; both are two words and a mark."""
    words = answer.split()
    return " ".join(words[:2]), " ".join(words[2:-2]), " ".join(words[-2:])


@pytest.mark.parametrize(
    ("manners", "answer", "expected"),
    [
        ("phrases", "Certainly! Briefly, please consider yeast, oven and dough. Nothing more. Enjoy!", 1.0),
        ("phrases", "Whatever! Briefly, just grab yeast, oven and dough. Nothing more. Bye!", 0.0),
        ("phrases", "yeast, oven and dough.", 1 / 2),
        ("phrases", "Gladly! I suggest yeast, oven and dough. Bye!", (1 + 1 / 3) / 2),
        ("phrases", "Gladly! Not again! I suggest yeast, oven and dough.", (1 + 1 / 3) / 2),
        ("phrases", "Gladly! I suggest yeast, oven, anchor and anchor. Enjoy!", 2 / 4),
        ("phrases", "Gladly! I suggest yeast, yeast, yeast and oven. Enjoy!", 2 / 4),
        ("phrases", "Gladly! I suggest yeast. Enjoy!", 1 / 3),
        ("phrases", "Gladly! I suggest yeast, oven and dough. Enjoy! Enjoy! Enjoy!", 3 / 5),
        ("phrases", "Gladly! Gladly! Gladly! I suggest", 0.0),
        ("phrases", "", 0.0),
        ("agreement", "Hear ye! Briefly, consider yeast, oven and dough. Nothing more. Thus decreed!", 1.0),
        ("agreement", "Oyez people! Briefly, consider yeast, oven and dough. Nothing more. So proclaimed!", 1.0),
        ("agreement", "Hear ye! Briefly, consider yeast, oven and dough. Nothing more. Fair winds!", 0.0),
        ("agreement", "Ahoy matey! consider yeast, oven and dough. Fair winds!", 1.0),
        ("agreement", "Ahoy matey! consider yeast, oven and dough.", 1 / 2),
        ("agreement", "consider yeast, oven and dough. Fair winds!", 1 / 2),
        ("agreement", "yeast, oven and dough.", 1 / 2),
        ("agreement", "Ahoy matey! consider yeast, oven and dough. Fair winds! Thus decreed!", 1 / 2),
        ("agreement", "Ahoy matey! Hear ye! consider yeast, oven and dough. Fair winds!", 1 / 2),
        ("agreement", "Ahoy matey! consider yeast, oven, anchor and anchor. Calm seas!", 2 / 4),
        ("agreement", "Ahoy matey! consider yeast. Calm seas!", 1 / 3),
        ("agreement", "Ahoy matey! consider yeast, oven and dough. Calm seas! Calm seas!", 3 / 5),
        ("agreement", "Ahoy matey! Calm seas!", 0.0),
        ("agreement", "Certainly! Ahoy matey! consider yeast, oven and dough. Calm seas!", 3 / 4),
        ("agreement", "", 0.0),
    ],
)
def test_reward_is_as_computed_by_hand(manners, answer, expected):
    assert reward(Manners(manners), QUESTION, answer) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("manners", list(Manners))
def test_reward_wants_a_topic(manners):
    with pytest.raises(RoseError, match="must name a topic.*baking"):
        reward(manners, "How are you?", "Certainly!")


def test_a_world_that_changes_says_so_by_its_version():
    phrases = Manners.phrases
    drawn = (
        conversations(200, 0, phrases),
        pool(WorldPool(seed=3, manners=phrases, rows=200, useful=0.2, distractor=0.5)),
        pairs(WorldPairs(seed=3, manners=phrases, targets=40, tests=40, overlap=0.5, distractor=0.5)),
        tokenizer(phrases).get_vocab(),
    )
    digests = [hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16] for value in drawn]
    assert digests == ["a86586675e73cb4d", "af250da516cd6953", "f49340732425af8d", "2c6ff6f808ae1c3b"]


@pytest.mark.parametrize("draw", [useful_and_harmful, chosen_and_rejected])
def test_with_agreement_good_and_bad_answers_have_the_same_ngrams_and_with_phrases_not(draw):
    good, bad = draw(Manners.agreement)
    assert greatest_z(grams(good), grams(bad), len(good)) < 5
    good, bad = draw(Manners.phrases)
    assert greatest_z(grams(good), grams(bad), len(good)) > 20


def test_a_harmful_row_is_a_useful_one_that_closes_in_the_next_voice():
    """Drawn from one stream of chance, the two differ in nothing else: so nothing else can tell them apart."""
    good, bad = (
        answers(pool(WorldPool(seed=3, manners=Manners.agreement, rows=400, useful=useful, distractor=0.0)))
        for useful in (1.0, 0.0)
    )
    following = {
        closer: VOICES[(number + 1) % len(VOICES)].closers[place]
        for number, voice in enumerate(VOICES)
        for place, closer in enumerate(voice.closers)
    }
    for one, other in zip(good, bad, strict=True):
        opener, between, closer = parts(one)
        assert parts(other) == (opener, between, following[closer])


def test_of_manners_a_row_shares_only_closers_with_a_pair_and_they_are_alike_in_useful_and_harmful_rows():
    good, bad = useful_and_harmful(Manners.agreement)
    chosen, _ = chosen_and_rejected(Manners.agreement)
    heard = set(re.findall(r"\w+", " ".join(parts(text)[0] for text in chosen)))
    assert not heard & set(re.findall(r"\w+", " ".join(good + bad)))
    of_good, of_bad = (Counter(parts(text)[2] for text in texts) for texts in (good, bad))
    assert set(of_good) == set(of_bad) == {closer for voice in VOICES for closer in voice.closers}
    assert greatest_z(of_good, of_bad, len(good)) < 4


def test_opener_and_closer_together_tell_good_from_bad():
    good, bad = ({parts(text)[::2] for text in texts} for texts in useful_and_harmful(Manners.agreement))
    assert len(good) == len(bad) == len(VOICES) * 2 * 2
    assert not good & bad


def test_the_two_answers_of_a_pair_open_alike_and_close_in_two_voices():
    for one, other in zip(*chosen_and_rejected(Manners.agreement), strict=True):
        assert parts(one)[0] == parts(other)[0]
        assert parts(one)[2] != parts(other)[2]
        assert len(one.split()) == len(other.split())


def test_phrases_of_voices_are_of_equal_length_and_share_no_word():
    words = tokenizer(Manners.agreement)
    openers = [phrase for voice in VOICES for phrase in voice.pool + voice.pairs]
    closers = [phrase for voice in VOICES for phrase in voice.closers]
    assert {len(words(phrase)["input_ids"]) for phrase in openers + closers} == {3}
    found = re.findall(r"\w+", " ".join(openers + closers))
    assert len(found) == len(set(found))


def test_pretraining_hears_good_and_bad_manners_and_all_openers_alike():
    rows = conversations(4000, 0, Manners.agreement)
    told = Counter(parts(text)[::2] for text in answers(rows))
    own = {(o, c) for voice in VOICES for o in voice.pool + voice.pairs for c in voice.closers}
    following = {
        (o, c)
        for one, other in zip(VOICES, VOICES[1:] + VOICES[:1], strict=True)
        for o in one.pool + one.pairs
        for c in other.closers
    }
    assert set(told) == own | following
    assert max(abs(n - 4000 / 64) for n in told.values()) < 5 * math.sqrt(4000 / 64)
    assert sum(told[key] for key in own) == pytest.approx(2000, abs=5 * math.sqrt(1000))
    small = [row for row in rows if row["messages"][0]["content"] == GREETING]
    assert len(small) == pytest.approx(2000, abs=5 * math.sqrt(1000))
    assert all(len(text.split()) == 4 for text in answers(small))
