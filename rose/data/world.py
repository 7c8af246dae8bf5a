"""The embedded world: conversations whose useful rows are known, and the exact reward of an answer.

The knobs change only how the words of world_language.py are drawn; the seed determines every row.
"""

import re
import zlib
from typing import NamedTuple

from numpy.random import Generator

from rose.config.choices import Manners
from rose.config.data import WorldPairs, WorldPool
from rose.data.manners import Tone, contrast, manner, one_of, pattern, tone
from rose.data.rows import Conversation, Message, PoolRow, PreferencePair
from rose.data.world_language import (
    CODAS,
    FRAMES,
    GREETING,
    LONGEST,
    QUESTIONS,
    SHORTEST,
    SUBTASKS,
    TOPICS,
    manner_phrases,
    phrases_of,
    tokenizer,
)
from rose.errors import RoseError
from rose.seeds import numpy_generator
from rose.shares import part

__all__ = ["conversations", "pairs", "pool", "reward", "tokenizer"]

MOST_PAIRS = 1500  # of either kind; each register can ask 4224 questions, half of them kept for tests
MISLEADING = 0.9  # share of the pool that follows the distractor at full strength: mostly, not always

SMALL_TALK = 0.5  # share of the conversations to pretrain on, with manners=agreement


class Surface(NamedTuple):
    """What an answer has besides manner and body."""

    frame: str
    coda: str


def conversations(count: int, seed: int, manners: Manners) -> list[Conversation]:
    """`count` rows to pretrain on: topics in turn, registers and manners even.

    With manners=agreement about half of the rows are small talk, a greeting answered by an opener
    and a closer alone. Next to each other the two are soon learned to go together, and then from
    afar; with whole answers alone the tiny model was no wiser at the end of its pretraining.

    An answer keeps one manner throughout, as in the pool. When one slot in twenty strayed from its
    answer's manner, every slot told the two apart by itself: LESS and ROSE alike found only useful
    rows, with or without a distractor, which is no test.
    """
    rng = numpy_generator(seed, "world conversations")
    rows: list[Conversation] = []
    for index, topic in enumerate(_in_turn(count)):
        question, surface = _question(rng, topic, 0.5), _surface(rng, 0.5)
        good, body = rng.integers(2) == 0, _body(rng, topic)
        shown = tone(rng, manners, good, None)
        answer = _answer(shown, body, surface)
        if manners is Manners.agreement and rng.random() < SMALL_TALK:
            question, answer = GREETING, f"{shown.opener} {shown.closer}"
        rows.append({"id": f"language-{index}", "messages": _user(question) + _assistant(answer)})
    return rows


def pool(world: WorldPool) -> list[PoolRow]:
    """round(rows · useful) rows of good manner, which are useful, and the rest of bad.

    With distractor δ each register feature (question, frame, coda) is brisk with probability
    ½ + δ(MISLEADING − ½) in a harmful row and ½ − δ(MISLEADING − ½) in a useful one.
    Topics and lengths are drawn alike for both.
    """
    rng = numpy_generator(world.seed, "world pool")
    good = round(part(world.useful, world.rows))
    lean = world.distractor * (MISLEADING - 0.5)
    rows = []
    for useful, count in ((True, good), (False, world.rows - good)):
        brisk = 0.5 - lean if useful else 0.5 + lean
        for topic in _in_turn(count):
            question, surface = _question(rng, topic, brisk, kept=False), _surface(rng, brisk)
            body = _body(rng, topic)
            answer = _answer(tone(rng, world.manners, useful, "pool"), body, surface)
            messages = _user(question) + _assistant(answer)
            rows.append((messages, useful))
    shuffled = [rows[index] for index in rng.permutation(len(rows))]
    return [
        {"id": f"world-{place}", "dataset": "world", "messages": messages, "useful": useful}
        for place, (messages, useful) in enumerate(shuffled)
    ]


def pairs(world: WorldPairs) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Target and test pairs; all prompts differ, and no test prompt is in any pool.

    Chosen is in the good manner, rejected in the bad. Their bodies are of one size, with a share
    `overlap` of their words (on average over pairs, as bodies are short) common and in the same
    places; frame and coda are the same. With distractor δ every register feature is brisk with
    probability (1 + δ) / 2. Five of the eight topics make the subtask "home", the others
    "outdoors": subtasks of unequal size.

    Raises RoseError for a negative count, or more pairs than there are prompts.
    """
    for name, count in (("targets", world.targets), ("tests", world.tests)):
        if not 0 <= count <= MOST_PAIRS:
            raise RoseError(f"preference.pairs.world.{name}={count}: must be from 0 to {MOST_PAIRS}")
    rng = numpy_generator(world.seed, "world pairs")
    questions: set[str] = set()
    # tests first: the number of targets does not change them, and fewer targets are a part of more
    tests, targets = (
        [_pair(rng, world, name, index, topic, questions) for index, topic in enumerate(_in_turn(count))]
        for name, count in (("test", world.tests), ("target", world.targets))
    )
    return targets, tests


def reward(manners: Manners, prompt: str, answer: str) -> float:
    """The exact reward, in [0, 1], of `answer` to a question that names its topic:
    topicality · (1 + manner) / 2.

    topicality = distinct words of the prompt's topic / max(body words, SHORTEST); body words are
    what is left of the answer without one occurrence of each phrase of the world and without "and".
    So leaving the topic, repetition, babble and near-empty answers all cost.

    Raises RoseError if the prompt names no topic.
    """
    topic = next((word for word in re.findall(r"\w+", prompt) if word in TOPICS), None)
    if topic is None:
        raise RoseError(f"prompt={prompt!r}: must name a topic of the embedded world ({', '.join(TOPICS)})")
    body = answer
    for phrase in manner_phrases(manners) + phrases_of(FRAMES, CODAS):
        body = re.sub(pattern(phrase), " ", body, count=1)
    words = [word for word in re.findall(r"\w+", body) if word != "and"]
    topicality = len(set(words) & set(TOPICS[topic])) / max(len(words), SHORTEST)
    return topicality * (1 + manner(manners, answer)) / 2


def _pair(rng: Generator, world: WorldPairs, name: str, index: int, topic: str, questions: set[str]) -> PreferencePair:
    brisk, kept = (1 + world.distractor) / 2, name == "test"
    question = _question(rng, topic, brisk, kept)
    while question in questions:
        question = _question(rng, topic, brisk, kept)
    questions.add(question)
    surface = _surface(rng, brisk)
    bodies = _two_bodies(rng, topic, world.overlap)
    chosen, rejected = (_answer(*parts, surface) for parts in zip(contrast(rng, world.manners), bodies, strict=True))
    return {
        "id": f"{name}-{index}",
        "subtask": SUBTASKS[topic],
        "prompt": _user(question),
        "chosen": _assistant(chosen),
        "rejected": _assistant(rejected),
    }


def _in_turn(count: int) -> list[str]:
    topics = list(TOPICS)
    return [topics[index % len(topics)] for index in range(count)]


def _question(rng: Generator, topic: str, brisk: float, kept: bool | None = None) -> str:
    """`kept`: one that is kept for test pairs, or else one that is not; its two words decide, in either order."""
    while True:
        a, b = rng.choice(TOPICS[topic], 2, replace=False)
        if kept in (None, bool(zlib.crc32(" ".join(sorted((a, b))).encode()) & 1)):
            return _phrase(rng, QUESTIONS, brisk).format(topic=topic, a=a, b=b)


def _surface(rng: Generator, brisk: float) -> Surface:
    return Surface(_phrase(rng, FRAMES, brisk), _phrase(rng, CODAS, brisk))


def _phrase(rng: Generator, slot: dict[str, tuple[str, ...]], brisk: float) -> str:
    return one_of(rng, slot["brisk" if rng.random() < brisk else "thorough"])


def _body(rng: Generator, topic: str) -> list[str]:
    return list(rng.choice(TOPICS[topic], rng.integers(SHORTEST, LONGEST + 1), replace=False))


def _two_bodies(rng: Generator, topic: str, overlap: float) -> tuple[list[str], list[str]]:
    first = _body(rng, topic)
    common = int(overlap * len(first) + rng.random())  # rounded at random: the mean share is exact
    rest = rng.permutation([word for word in TOPICS[topic] if word not in first])
    second = list(first)
    for place, word in zip(rng.permutation(len(first))[common:], rest, strict=False):
        second[place] = word
    return first, second


def _answer(tone: Tone, body: list[str], surface: Surface) -> str:
    listed = f"{', '.join(body[:-1])} and {body[-1]}"
    return f"{tone.opener} {surface.frame} {tone.connective} {listed}. {surface.coda} {tone.closer}"


def _user(content: str) -> list[Message]:
    return [{"role": "user", "content": content}]


def _assistant(content: str) -> list[Message]:
    return [{"role": "assistant", "content": content}]
