"""Duplicates among the rows taken so far."""

import re
from collections import Counter, defaultdict

from rose.config.choices import Dedup

WORDS = 5  # a shingle, and
SIMILAR = 0.8  # the Jaccard index of two near-duplicates' shingles, as in Lee et al. (arXiv 2107.06499)


class Exact:
    """Texts that are the same, letter by letter."""

    def __init__(self) -> None:
        self.texts: set[str] = set()

    def holds(self, text: str) -> bool:
        """Whether an equal text was here before; if not, it is kept."""
        known = text in self.texts
        self.texts.add(text)
        return known


class Near:
    """Texts whose sets A, B of five-word shingles, case and punctuation aside, have |A ∩ B| / |A ∪ B| ≥ 0.8."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.holders: dict[tuple, list[int]] = defaultdict(list)  # shingle → kept texts that have it

    def holds(self, text: str) -> bool:
        """Whether a similar text was kept before; if not, this one is."""
        words = re.findall(r"\w+", text.lower())
        own = {tuple(words[start : start + WORDS]) for start in range(max(1, len(words) - WORDS + 1))}
        shared = Counter(holder for shingle in own for holder in self.holders.get(shingle, ()))
        if any(n >= SIMILAR * (len(own) + self.sizes[holder] - n) for holder, n in shared.items()):
            return True
        for shingle in own:
            self.holders[shingle].append(len(self.sizes))
        self.sizes.append(len(own))
        return False


SEEN = {Dedup.exact: Exact, Dedup.near: Near}
