"""BM25 and DSIR on a few texts, by their formulas written naively with Counters."""

import math
from collections import Counter
from dataclasses import replace

import numpy
import pandas
import pytest
from method_toys import composed_method, rows_table, texts

from rose.methods.lexical import bm25, buckets, dsir

POOL = ["the cat sat on the mat", "A dog, a dog!", "cat and dog", "nothing", "the the the the the the the cat"]
TARGETS = ["The cat. The dog?", "mat", "unheard of"]


@pytest.fixture
def artifacts(tmp_path):
    return texts(tmp_path, POOL, TARGETS, ["a", "a", "b"])


def test_bm25_is_its_formula(artifacts):
    documents = [text.lower().replace(",", "").replace("!", "").split() for text in POOL]
    queries = [text.lower().replace(".", "").replace("?", "").split() for text in TARGETS]
    mean = sum(map(len, documents)) / 5

    def score(query, document):
        total, counts = 0.0, Counter(document)
        for word in query:
            holding = sum(word in other for other in documents)
            idf = math.log(1 + (5 - holding + 0.5) / (holding + 0.5))
            total += idf * counts[word] * 2.5 / (counts[word] + 1.5 * (0.25 + 0.75 * len(document) / mean))
        return total

    values, subtasks, _ = bm25(composed_method("bm25"), rows_table(5), *artifacts)
    expected = [[score(query, document) for query in queries] for document in documents]
    numpy.testing.assert_allclose(values, expected, rtol=1e-5)
    assert subtasks == ["a", "a", "b"]


def test_rows_without_tokens_are_left_out_of_the_count(artifacts):
    rows = rows_table(5).drop(index=3).reset_index(drop=True)
    values, _, _ = bm25(composed_method("bm25"), rows, *artifacts)
    assert len(values) == 4


@pytest.mark.parametrize(("smoothing", "per_ngram"), [(0.0, False), (1.0, False), (0.5, True)])
def test_dsir_is_the_log_ratio_of_hashed_n_gram_shares(artifacts, smoothing, per_ngram):
    method = replace(composed_method("dsir"), buckets=50, smoothing=smoothing, per_ngram=per_ngram)
    grams = {text: buckets(method, text).tolist() for text in POOL + TARGETS}
    pool = Counter(gram for text in POOL for gram in grams[text])
    target = Counter(gram for text in TARGETS for gram in grams[text])

    def share(counts, bucket):
        return (counts[bucket] + smoothing) / (sum(counts.values()) + smoothing * 50) + 1e-8

    expected = []
    for text in POOL:
        weights = [math.log(share(target, b)) - math.log(share(pool, b)) for b in grams[text]]
        expected.append(sum(weights) / (len(weights) if per_ngram else 1))
    values, subtasks, _ = dsir(method, rows_table(5), *artifacts)
    assert values[:, 0].tolist() == pytest.approx(expected)
    assert subtasks == ["weight"]


def test_a_text_has_its_words_its_marks_and_its_bigrams():
    method = composed_method("dsir")
    assert len(buckets(method, "A dog, a dog!")) == 6 + 5
    assert buckets(method, "a dog")[0] == buckets(method, "A cat")[0]
    assert len(buckets(method, " ")) == 0


def test_unsmoothed_dsir_with_few_targets_is_a_length_filter_and_smoothed_per_n_gram_it_is_not(tmp_path):
    rng = numpy.random.default_rng(0)
    pool = [" ".join(f"w{n}" for n in rng.integers(0, 400, size=length)) for length in rng.integers(5, 60, size=80)]
    artifacts = texts(tmp_path, pool, ["w1 w2 w3 w4 w5"])
    length = pandas.Series([len(text.split()) for text in pool])

    def correlation(name):
        values = dsir(composed_method(name), rows_table(80), *artifacts).values[:, 0]
        return pandas.Series(values).corr(length, method="spearman")

    assert correlation("dsir") < -0.95
    assert abs(correlation("dsir_smoothed")) < 0.5
