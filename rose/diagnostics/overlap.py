"""Texts that share runs of words: few texts, indexed once, against many, in sparse matrices."""

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy
import pandas
from scipy.sparse import csr_array

from rose.methods.duplicates import WORDS
from rose.methods.lexical import words

FACTOR = numpy.uint64(0x9E3779B97F4A7C15)  # odd: multiplying by it, modulo 2⁶⁴, loses nothing


def shingles(texts: Sequence[Sequence[str]], size: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Row numbers and hashes (uint64) of each row's distinct runs of `size` words, in row order."""
    counts = numpy.fromiter(map(len, texts), dtype=numpy.int64, count=len(texts))
    row = numpy.repeat(numpy.arange(len(texts)), counts)
    starts = numpy.flatnonzero(row[size - 1 :] == row[: max(0, len(row) - size + 1)])
    if not len(starts):
        return numpy.zeros(0, dtype=numpy.int64), numpy.zeros(0, dtype=numpy.uint64)
    flat = numpy.array(list(chain.from_iterable(texts)), dtype=object)
    word = pandas.util.hash_array(flat)  # pyright: ignore[reportAttributeAccessIssue] — lazy
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
        self.holds = self._matrix(column, row, len(texts)).T  # [vocabulary, texts]

    def shared(self, texts: Sequence[Sequence[str]]) -> tuple[csr_array, numpy.ndarray]:
        """How many shingles `texts` share with each indexed one [texts, indexed], and have."""
        row, hashes = shingles(texts, self.size)
        place = numpy.searchsorted(self.vocabulary, hashes)
        indexed = place < len(self.vocabulary)
        indexed[indexed] = self.vocabulary[place[indexed]] == hashes[indexed]
        sizes = numpy.bincount(row, minlength=len(texts))
        return self._matrix(place[indexed], row[indexed], len(texts)) @ self.holds, sizes

    def covered(self, texts: Sequence[Sequence[str]]) -> csr_array:
        """|A ∩ B| / |B|, A the shingles of each of `texts`, B those of each indexed one."""
        shared, _ = self.shared(texts)
        return shared * (1 / numpy.maximum(1, self.sizes))[None, :]

    def jaccard(self, texts: Sequence[Sequence[str]]) -> csr_array:
        """|A ∩ B| / |A ∪ B| of each of `texts` and each indexed one."""
        shared, sizes = self.shared(texts)
        both = shared.tocoo()
        union = sizes[both.coords[0]] + self.sizes[both.coords[1]] - both.data
        return csr_array((both.data / union, both.coords), shape=shared.shape)

    def _matrix(self, column: numpy.ndarray, row: numpy.ndarray, rows: int) -> csr_array:
        shape = (rows, len(self.vocabulary))
        return csr_array((numpy.ones(len(row), dtype=numpy.float64), (row, column)), shape=shape)


def near_duplicates(texts: Iterable[str], similar: float) -> list[tuple[int, int]]:
    """(n, m) for each text n that is similar to an earlier one: m is the most similar of these.

    A text of fewer than WORDS words is one shingle.
    """
    split = [text + [""] * (WORDS - len(text)) for text in map(words, texts)]
    alike = Index(split, WORDS).jaccard(split).tocoo()
    later, earlier = alike.coords
    close = (later > earlier) & (alike.data >= similar)
    pairs = pandas.DataFrame({"n": later[close], "m": earlier[close], "value": alike.data[close]})
    best = pairs.sort_values(["n", "value", "m"], ascending=[True, False, True]).drop_duplicates("n")
    return list(zip(best["n"].tolist(), best["m"].tolist(), strict=True))
