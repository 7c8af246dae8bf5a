"""Texts that share runs of words: few texts, indexed once, against many, in sparse matrices."""

import re
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy
import pandas
from scipy.sparse import csr_array

WORDS = 5  # of a shingle, where whole texts are compared
FACTOR = numpy.uint64(0x9E3779B97F4A7C15)  # odd: multiplying by it, modulo 2⁶⁴, loses nothing


def words(text: str) -> list[str]:
    """Case and punctuation aside."""
    return re.findall(r"\w+", text.lower())


def shingles(texts: Sequence[Sequence[str]], size: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Row numbers and hashes (uint64) of the distinct runs of `size` words of each row, in row order."""
    counts = numpy.fromiter(map(len, texts), dtype=numpy.int64, count=len(texts))
    row = numpy.repeat(numpy.arange(len(texts)), counts)
    starts = numpy.flatnonzero(row[size - 1 :] == row[: max(0, len(row) - size + 1)])
    if not len(starts):
        return numpy.zeros(0, dtype=numpy.int64), numpy.zeros(0, dtype=numpy.uint64)
    word = pandas.util.hash_array(numpy.array(list(chain.from_iterable(texts)), dtype=object))
    hashes = numpy.zeros(len(starts), dtype=numpy.uint64)
    for place in range(size):
        hashes = hashes * FACTOR + word[starts + place]
    row = row[starts]
    order = numpy.lexsort((hashes, row))
    row, hashes = row[order], hashes[order]
    first = numpy.r_[True, (row[1:] != row[:-1]) | (hashes[1:] != hashes[:-1])]
    return row[first], hashes[first]


class Index:
    """A few texts, as word lists, by their shingles of `size` words."""

    def __init__(self, texts: Sequence[Sequence[str]], size: int) -> None:
        row, hashes = shingles(texts, size)
        self.size, self.count = size, len(texts)
        self.vocabulary, column = numpy.unique(hashes, return_inverse=True)
        self.sizes = numpy.bincount(row, minlength=len(texts))  # distinct shingles of each text
        self.holds = self._matrix(column, row, len(texts)).T  # [texts, vocabulary], transposed below

    def shared(self, texts: Sequence[Sequence[str]]) -> tuple[csr_array, numpy.ndarray]:
        """How many distinct shingles each of `texts` shares with each indexed one [texts, indexed], and has itself."""
        row, hashes = shingles(texts, self.size)
        place = numpy.searchsorted(self.vocabulary, hashes)
        known = place < len(self.vocabulary)
        known[known] = self.vocabulary[place[known]] == hashes[known]
        own = self._matrix(place[known], row[known], len(texts))
        return own @ self.holds, numpy.bincount(row, minlength=len(texts))

    def covered(self, texts: Sequence[Sequence[str]]) -> csr_array:
        """|A ∩ B| / |B|: the share of each indexed text's shingles B that each of `texts`, A, holds."""
        shared, _ = self.shared(texts)
        return shared * (1 / numpy.maximum(1, self.sizes))[None, :]

    def jaccard(self, texts: Sequence[Sequence[str]]) -> csr_array:
        """|A ∩ B| / |A ∪ B| of each of `texts` and each indexed one."""
        shared, sizes = self.shared(texts)
        found = shared.tocoo()
        union = sizes[found.coords[0]] + self.sizes[found.coords[1]] - found.data
        return csr_array((found.data / union, found.coords), shape=shared.shape)

    def _matrix(self, column: numpy.ndarray, row: numpy.ndarray, rows: int) -> csr_array:
        shape = (rows, len(self.vocabulary))
        return csr_array((numpy.ones(len(row), dtype=numpy.float64), (row, column)), shape=shape)


def near_duplicates(texts: Iterable[str], similar: float) -> list[tuple[int, int]]:
    """(n, m) for each text n that is similar to an earlier one: m is the most similar of these.

    A text of fewer than WORDS words is one shingle.
    """
    split = [own + [""] * (WORDS - len(own)) for own in map(words, texts)]
    alike = Index(split, WORDS).jaccard(split).tocoo()
    later, earlier = alike.coords
    close = (later > earlier) & (alike.data >= similar)
    found = pandas.DataFrame({"n": later[close], "m": earlier[close], "value": alike.data[close]})
    best = found.sort_values(["n", "value", "m"], ascending=[True, False, True]).drop_duplicates("n")
    return list(zip(best["n"].tolist(), best["m"].tolist(), strict=True))
