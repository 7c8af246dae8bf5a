"""Faults of known kind that an answer can be given: what a selector ought to see in it.

A fault is `fault(answer, other, rng) → faulty answer`, `other` the answer of another row of the
same source; None where the answer is too short, or has nothing that the fault could change. Line
breaks and spaces stay where they are, so that only what a kind is named after tells it.
"""

import re
from collections.abc import Callable

from numpy.random import Generator

from rose.config.choices import Fault

LEAST = 6  # words of an answer that is cut, shuffled or repeated
REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "Unfortunately, I am not able to answer this question.",
    "I cannot assist with this request.",
    "As a language model I have no opinion on this matter.",
    "This is something that I would rather not talk about.",
    "I don't have enough information to give an answer.",
)
FILLERS = (
    "It is important to keep this in mind.",
    "There are many aspects to consider here.",
    "As mentioned before, this matters in general.",
    "Of course, every case is somewhat different.",
    "I hope that this is helpful to you.",
    "Please let me know if there is anything else.",
    "In the end, it depends on the situation.",
    "This is a question that many people ask.",
)


def swap(answer: str, other: str, rng: Generator) -> str | None:
    """The answer to another prompt of the same source, of about the same length."""
    return other if other.strip() and other.strip() != answer.strip() else None


def truncate(answer: str, other: str, rng: Generator) -> str | None:
    """The first third of the answer's words."""
    words, spaces = _split(answer)
    return None if len(words) < LEAST else _join(words[: len(words) // 3], spaces)


def shuffle(answer: str, other: str, rng: Generator) -> str | None:
    """The answer's words in random order."""
    words, spaces = _split(answer)
    if len(set(words)) < LEAST:
        return None
    return _changed(answer, _join([words[place] for place in rng.permutation(len(words))], spaces))


def repeat(answer: str, other: str, rng: Generator) -> str | None:
    """The first third of the answer's words over and over, to the answer's number of words."""
    words, spaces = _split(answer)
    if len(words) < LEAST:
        return None
    third = len(words) // 3
    return _changed(answer, _join([words[place % third] for place in range(len(words))], spaces))


def refuse(answer: str, other: str, rng: Generator) -> str | None:
    """A refusal in place of the answer."""
    return REFUSALS[rng.integers(len(REFUSALS))]


def wrong_number(answer: str, other: str, rng: Generator) -> str | None:
    """Every number is another one of as many digits."""
    return _changed(answer, re.sub(r"\d+", lambda number: _other_number(number.group(), rng), answer))


def padding(answer: str, other: str, rng: Generator) -> str | None:
    """The answer, then sentences that say nothing, until it has about twice as many words: a test for length."""
    sentences, least = [], len(answer.split())
    while sum(len(sentence.split()) for sentence in sentences) < least:
        sentences.append(FILLERS[rng.integers(len(FILLERS))])
    return f"{answer} {' '.join(sentences)}" if sentences else None


def garble(answer: str, other: str, rng: Generator) -> str | None:
    """Every word's inner letters in random order."""
    return _changed(
        answer, re.sub(r"(?<=\w)\w{2,}(?=\w)", lambda word: "".join(rng.permutation([*word.group()])), answer)
    )


FAULTS: dict[Fault, Callable[[str, str, Generator], str | None]] = {
    Fault.swap: swap,
    Fault.truncate: truncate,
    Fault.shuffle: shuffle,
    Fault.repeat: repeat,
    Fault.refuse: refuse,
    Fault.wrong_number: wrong_number,
    Fault.padding: padding,
    Fault.garble: garble,
}


def _split(answer: str) -> tuple[list[str], list[str]]:
    """Words, and the white space before each."""
    parts = re.split(r"(\s+)", answer.strip())
    return parts[0::2], ["", *parts[1::2]]


def _join(words: list[str], spaces: list[str]) -> str:
    return "".join(space + word for word, space in zip(words, spaces, strict=False))


def _changed(answer: str, faulty: str) -> str | None:
    return faulty if faulty.strip() != answer.strip() else None


def _other_number(digits: str, rng: Generator) -> str:
    least = 10 ** (len(digits) - 1) if len(digits) > 1 and digits[0] != "0" else 0
    most = 10 ** len(digits)
    step = int(rng.integers(1, most - least)) if len(digits) < 19 else 1
    return str(least + (int(digits) - least + step) % (most - least)).zfill(len(digits))
