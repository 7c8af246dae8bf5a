"""Lexical overlap of pool rows and targets (a prompt and its chosen answer); no model is run."""

import logging
import unicodedata
import zlib
from collections.abc import Iterable
from itertools import chain, pairwise
from pathlib import Path

import bm25s
import numpy
import pandas
import regex

from rose.config.schema import Method
from rose.data import files
from rose.data.chat import said
from rose.methods.influence import Influence

logging.getLogger("bm25s").setLevel(logging.WARNING)  # importing it set DEBUG

K1, B = 1.5, 0.75  # BM25's usual constants
# Letters, digits and marks on them, up to a boundary between words as Unicode draws it (TR-29, which WORD says). "3½"
# and "x²" stay whole. ASCII's words are those of `\w+`: an apostrophe or a point ends one.
LETTER = r"[\w\p{No}]"
WORD = rf"(?!\p{{M}}){LETTER}+?(?:\b(?<!\p{{No}})(?!\p{{No}})|(?!{LETTER}))"
WORDS = regex.compile(WORD, regex.WORD)
WORDS_AND_MARKS = regex.compile(rf"{WORD}|[^\w\p{{No}}\s]+", regex.WORD)
ASCII_WORDS = regex.compile(r"\w+", regex.ASCII)  # the same, three times as fast
TINY = 1e-8  # what DSIR's code adds to every probability


def bm25(
    method: Method, rows: pandas.DataFrame, pool: Path, preferences: Path, background: Path | None = None
) -> Influence:
    """BM25 of each pool row (the document) for each target text (the query): [rows, pairs].

    Σ over the query's words w, repeats included, of
    ln(1 + (N − n_w + ½)/(n_w + ½)) · f·2.5/(f + 1.5·(¼ + ¾·len/mean len)), f the count of w in
    the row, n_w the rows that hold it (Robertson and Zaragoza 2009, with Lucene's idf). Rows of
    `background` are counted as well, but not scored.
    """
    targets, subtasks = target_texts(preferences)
    unscored = [] if background is None else pool_texts(background)
    index = bm25s.BM25(k1=K1, b=B, method="lucene")  # Lucene leaves out the constant k1 + 1
    index.index([words(text) for text in pool_texts(pool, rows["id"]) + unscored], show_progress=False)
    queries = [[word for word in words(text) if word in index.vocab_dict] for text in targets]
    none = numpy.zeros(len(rows) + len(unscored))
    values = [(index.get_scores(query) * (K1 + 1) if query else none)[: len(rows)] for query in queries]
    return Influence(numpy.stack(values, axis=1).astype(float), subtasks)


def dsir(
    method: Method, rows: pandas.DataFrame, pool: Path, preferences: Path, background: Path | None = None
) -> Influence:
    """DSIR's log importance weight (arXiv 2302.03169): Σ over a row's n-grams of ln q_b − ln p_b.

    q and p are the shares of bucket b among all uni- and bigrams of the targets and of the pool (of
    `background` where it is given), hashed into `method.buckets`, plus 1e-8. `smoothing` s makes
    them (count + s)/(total + s·buckets); `per_ngram` divides by the row's number of n-grams. All
    targets are one distribution: the only column is "weight".
    """
    texts = pool_texts(pool, rows["id"])
    p = _shares(method, texts if background is None else pool_texts(background))
    q = _shares(method, target_texts(preferences)[0])
    ratio = numpy.log(q + TINY) - numpy.log(p + TINY)
    ratios = [ratio[buckets(method, text)] for text in texts]
    values = [each.sum() / (max(1, len(each)) if method.per_ngram else 1) for each in ratios]
    return Influence(numpy.array(values)[:, None], ["weight"])


def _shares(method: Method, texts: list[str]) -> numpy.ndarray:
    counts = numpy.full(method.buckets, method.smoothing, dtype=float)
    for text in texts:
        counts += numpy.bincount(buckets(method, text), minlength=method.buckets)
    return counts / max(counts.sum(), TINY)


def buckets(method: Method, text: str) -> numpy.ndarray:
    """The bucket of each uni- and bigram of a text, by CRC-32: the same on every machine."""
    tokens = WORDS_AND_MARKS.findall(plain(text))
    grams = chain(tokens, map(" ".join, pairwise(tokens)))
    return numpy.array([zlib.crc32(gram.encode()) % method.buckets for gram in grams], dtype=numpy.int64)


def words(text: str) -> list[str]:
    """Case and punctuation aside, in any script.

    Where a script has no spaces, Unicode ends a word after each letter with its marks (Thai, Lao) or each character
    (Chinese, Hiragana): such texts share letters and runs of them, which is coarse, but no dictionary is needed.
    """
    text = plain(text)
    return (ASCII_WORDS if text.isascii() else WORDS).findall(text)


def plain(text: str) -> str:
    """In lower case; a letter and its accent are one character, however they were typed."""
    return unicodedata.normalize("NFC", text.lower())


def pool_texts(pool: Path, ids: Iterable[str] | None = None) -> list[str]:
    """What is said in each pool row of those `ids`, or in every one, in the pool's order."""
    wanted = None if ids is None else set(ids)
    rows = files.load(pool / "pool.jsonl")
    return [said(row["messages"]) for row in rows if wanted is None or row["id"] in wanted]


def target_texts(preferences: Path) -> tuple[list[str], list[str]]:
    """Prompt and chosen answer of each target pair, and its subtask."""
    pairs = list(files.load(preferences / "target.jsonl"))
    return [said(pair["prompt"] + pair["chosen"]) for pair in pairs], [pair["subtask"] for pair in pairs]
