"""Good and bad manners of the embedded world's answers: how they are drawn and recognised.

phrases: good manners are phrases of their own, so that counting words finds them.
agreement: an opener and a closer, far apart, are in one voice or in two. Good and bad answers have
the same words, neighbours and lengths in distribution. Pairs open with other phrases than pool
rows, so the words that a row and a pair have in common say nothing about the row. Only who knows
which phrases belong together can tell, as the base model does from its pretraining.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from numpy.random import Generator

from rose.config.choices import Manners
from rose.data.world_language import CONSIDER, MANNERS, VOICES


class Tone(NamedTuple):
    """The parts of an answer that show its manners."""

    opener: str
    connective: str
    closer: str


def tone(rng: Generator, manners: Manners, good: bool, side: str | None) -> Tone:
    """One answer's tone. With agreement, `side` ("pool" or "pairs") says whose openers to take;
    None: either's.

    A bad closer is that of the *next* voice, and not of any other: so each of the two that can
    follow an opener is as likely as the other where good and bad are, and the pretrained model
    prefers neither.
    """
    if manners is Manners.phrases:
        return Tone(*(one_of(rng, slot["good" if good else "bad"]) for slot in MANNERS))
    voice = int(rng.integers(len(VOICES)))
    return Tone(_opener(rng, voice, side), CONSIDER, _closer(rng, voice if good else voice + 1))


def contrast(rng: Generator, manners: Manners) -> tuple[Tone, Tone]:
    """Tones of a chosen and a rejected answer; with agreement they differ in the closer alone."""
    if manners is Manners.phrases:
        return tone(rng, manners, True, None), tone(rng, manners, False, None)
    voice = int(rng.integers(len(VOICES)))
    opener = _opener(rng, voice, "pairs")
    good, bad = (Tone(opener, CONSIDER, _closer(rng, place)) for place in (voice, voice + 1))
    return good, bad


def manner(manners: Manners, answer: str) -> float:
    """How good an answer's manners are, from −1 to 1; 0 where it has none.

    phrases: mean over opener, connective and closer of [a good phrase occurs] − [a bad one occurs].
    agreement: [an opener and a closer of one voice occur] − [… of two voices occur].
    """
    if manners is Manners.phrases:
        slots = [uses(slot["good"], answer) - uses(slot["bad"], answer) for slot in MANNERS]
        return sum(slots) / len(slots)
    opened = [number for number, voice in enumerate(VOICES) if uses((*voice.pool, *voice.pairs), answer)]
    closed = [number for number, voice in enumerate(VOICES) if uses(voice.closers, answer)]
    same = [opener == closer for opener in opened for closer in closed]
    return float(any(same) - (not all(same)))


def one_of(rng: Generator, phrases: tuple[str, ...]) -> str:
    return phrases[rng.integers(len(phrases))]


def uses(phrases: Iterable[str], answer: str) -> bool:
    return any(re.search(pattern(phrase), answer) for phrase in phrases)


def pattern(phrase: str) -> str:
    """A regular expression of the phrase as whole words."""
    return rf"(?<!\w){re.escape(phrase)}(?!\w)"


def _opener(rng: Generator, voice: int, side: str | None) -> str:
    pool, pairs, _ = VOICES[voice]
    return one_of(rng, {"pool": pool, "pairs": pairs, None: pool + pairs}[side])


def _closer(rng: Generator, voice: int) -> str:
    return one_of(rng, VOICES[voice % len(VOICES)].closers)
