"""BM25 (`method=bm25`)

Forty texts of a small vocabulary, eight queries. Ours is bm25s' variant "lucene" times the constant
k1 + 1. rank-bm25's Okapi has the same term frequencies and another idf: ln((N − n + ½)/(n + ½)), a
quarter of the mean idf where that is negative, against Lucene's ln(1 + (N − n + ½)/(n + ½)). With
Lucene's idf put into it the scores are ours; as it comes, only the order is nearly the same.
"""

import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import bm25s
import numpy
import pandas
from scipy.stats import spearmanr

from bench.peers.row import Row, largest, version
from rose.methods.lexical import K1, B, bm25, words

RNG = numpy.random.default_rng(0)
# common words are common: word w is drawn with a weight of 1/(w + 3)
WEIGHTS = 1 / numpy.arange(3, 63)
TEXTS, QUERIES = (
    [" ".join(f"w{w}" for w in RNG.choice(60, size=size, p=WEIGHTS / WEIGHTS.sum())) for size in sizes]
    for sizes in (RNG.integers(4, 40, 40), RNG.integers(3, 12, 8))
)


def rows() -> Iterator[Row]:
    ours = ours_on(TEXTS, QUERIES)
    index = bm25s.BM25(k1=K1, b=B, method="lucene")
    index.index([words(text) for text in TEXTS], show_progress=False)
    found = [index.get_scores([word for word in words(query) if word in index.vocab_dict]) for query in QUERIES]
    theirs = (K1 + 1) * numpy.stack(found, axis=1)
    yield Row("scores, times the constant k1 + 1", version("bm25s"), largest(ours, theirs), 1e-5)

    from rank_bm25 import BM25Okapi  # the tests run what is above without it

    okapi = BM25Okapi([words(text) for text in TEXTS], k1=K1, b=B)
    plain = numpy.stack([okapi.get_scores(words(query)) for query in QUERIES], axis=1)
    correlation = min(float(spearmanr(a, b).statistic) for a, b in zip(ours.T, plain.T, strict=True))
    holding = {word: sum(word in each for each in okapi.doc_freqs) for word in okapi.idf}
    okapi.idf = {word: math.log(1 + (len(TEXTS) - n + 0.5) / (n + 0.5)) for word, n in holding.items()}
    lucene = numpy.stack([okapi.get_scores(words(query)) for query in QUERIES], axis=1)
    yield Row("scores, Okapi with Lucene's idf", version("rank-bm25"), largest(ours, lucene), 1e-4)
    yield Row(
        "scores, Okapi's own idf",
        version("rank-bm25"),
        f"{largest(ours, plain):.2g}; rank correlation ≥ {correlation:.3f}",
    )


def ours_on(pool: list[str], queries: list[str]) -> numpy.ndarray:
    """[texts, queries] by the method, which reads a pool and target pairs from files."""
    said = [[{"role": "assistant", "content": text}] for text in (*pool, *queries)]
    lines = [{"id": f"r{i}", "messages": turns} for i, turns in enumerate(said[: len(pool)])]
    pairs = [
        {"id": f"p{i}", "subtask": "a", "prompt": [], "chosen": turns, "rejected": []}
        for i, turns in enumerate(said[len(pool) :])
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (("pool.jsonl", lines), ("target.jsonl", pairs)):
            (Path(folder) / name).write_text("".join(json.dumps(line) + "\n" for line in content))
        table = pandas.DataFrame({"id": [line["id"] for line in lines]})
        return bm25(None, table, Path(folder), Path(folder)).values
