"""Duplicates among the rows taken so far."""

from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial

from rose.config.choices import Dedup
from rose.methods.lexical import words

WORDS = 5  # of a shingle
SIMILAR = 0.8  # Jaccard index of two near-duplicates' shingles, as in Lee et al. (arXiv 2107.06499)


class Seen:
    """Texts of whose sets A, B of `parts` no two have |A ∩ B| / |A ∪ B| ≥ 0.8."""

    def __init__(self, parts: Callable[[str], set]) -> None:
        self.parts = parts
        self.sizes: list[int] = []
        self.holders: dict[object, list[int]] = defaultdict(list)  # part → texts

    def holds(self, text: str) -> bool:
        """Whether a similar text was kept before; if not, this one is."""
        parts = self.parts(text)
        shared = Counter(holder for part in parts for holder in self.holders.get(part, ()))
        if any(n >= SIMILAR * (len(parts) + self.sizes[holder] - n) for holder, n in shared.items()):
            return True
        for part in parts:
            self.holders[part].append(len(self.sizes))
        self.sizes.append(len(parts))
        return False


def shingles(text: str) -> set[tuple[str, ...]]:
    """Runs of five words."""
    split = words(text)
    return {tuple(split[start : start + WORDS]) for start in range(max(1, len(split) - WORDS + 1))}


Near = partial(Seen, shingles)
SEEN = {Dedup.exact: partial(Seen, lambda text: {text}), Dedup.near: Near}
