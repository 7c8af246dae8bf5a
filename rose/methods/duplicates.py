"""Duplicates among the rows taken so far."""

from collections import Counter, defaultdict

from rose.config.choices import Dedup
from rose.methods.lexical import words

WORDS = 5  # of a shingle
SIMILAR = 0.8  # Jaccard index of two near-duplicates' shingles, as in Lee et al. (arXiv 2107.06499)


class Exact:
    """Texts that are the same, letter by letter."""

    def __init__(self) -> None:
        self.texts: set[str] = set()

    def holds(self, text: str) -> bool:
        """Whether an equal text was here before; if not, it is kept."""
        if text in self.texts:
            return True
        self.texts.add(text)
        return False


class Near:
    """Texts whose sets A, B of five-word shingles have |A ∩ B| / |A ∪ B| ≥ 0.8."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.holders: dict[tuple[str, ...], list[int]] = defaultdict(list)  # shingle → texts

    def holds(self, text: str) -> bool:
        """Whether a similar text was kept before; if not, this one is."""
        split = words(text)
        starts = range(max(1, len(split) - WORDS + 1))
        shingles = {tuple(split[start : start + WORDS]) for start in starts}
        shared = Counter(holder for shingle in shingles for holder in self.holders.get(shingle, ()))
        if any(n >= SIMILAR * (len(shingles) + self.sizes[holder] - n) for holder, n in shared.items()):
            return True
        for shingle in shingles:
            self.holders[shingle].append(len(self.sizes))
        self.sizes.append(len(shingles))
        return False


SEEN = {Dedup.exact: Exact, Dedup.near: Near}
