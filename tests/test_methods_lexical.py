"""BM25 and DSIR on a few texts, by their formulas written naively with Counters."""

import math
import re
import string
import unicodedata
from collections import Counter
from dataclasses import replace

import numpy
import pandas
import pytest
from method_toys import composed_method, rows_table, texts

from rose.methods.duplicates import Near
from rose.methods.lexical import bm25, buckets, dsir, words

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

    found = bm25(composed_method("bm25"), rows_table(5), *artifacts)
    expected = [[score(query, document) for query in queries] for document in documents]
    numpy.testing.assert_allclose(found.values, expected, rtol=1e-5)
    assert found.subtasks == ["a", "a", "b"]


def test_rows_without_tokens_are_left_out_of_the_count(artifacts):
    rows = rows_table(5).drop(index=3).reset_index(drop=True)
    assert len(bm25(composed_method("bm25"), rows, *artifacts).values) == 4


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
    found = dsir(method, rows_table(5), *artifacts)
    assert found.values[:, 0].tolist() == pytest.approx(expected)
    assert found.subtasks == ["weight"]


def test_a_text_has_its_words_its_marks_and_its_bigrams():
    method = composed_method("dsir")
    assert len(buckets(method, "A dog, a dog!")) == 6 + 5
    assert buckets(method, "a dog")[0] == buckets(method, "A cat")[0]
    assert len(buckets(method, " ")) == 0


SCRIPTS = {  # a text and its words by Unicode TR-29's rules, worked out by hand
    "Hindi": ("हिन्दी में लिखा हुआ वाक्य।", ["हिन्दी", "में", "लिखा", "हुआ", "वाक्य"]),
    "Tamil": ("தமிழ் மொழி", ["தமிழ்", "மொழி"]),
    "Thai": ("ที่นี่ ดี", ["ที่", "นี่", "ดี"]),  # letters with their marks: no dictionary
    "Chinese": ("我喜欢苹果。", ["我", "喜", "欢", "苹", "果"]),
    "Japanese": ("カタカナとSF", ["カタカナ", "と", "sf"]),
    "Korean": ("한국어 단어", ["한국어", "단어"]),
    "Arabic": ("السَّلامُ عليكم", ["السَّلامُ", "عليكم"]),
    "Hebrew": ("שָׁלוֹם עולם", ["שָׁלוֹם", "עולם"]),
    "German": ("Straße für größere Äpfel", ["straße", "für", "größere", "äpfel"]),
    "German, accents apart": ("fu\u0308r A\u0308pfel", ["für", "äpfel"]),
    "English": (
        "Don't pay $3.50 for foo_bar: x² or 33⅓!",
        ["don", "t", "pay", "3", "50", "for", "foo_bar", "x²", "or", "33⅓"],
    ),
    "a sign with a mark": ("☎︎ ok", ["ok"]),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_script_s_words_are_broken_into_letters_or_left_in_one_piece(script):
    text, expected = SCRIPTS[script]
    assert words(text) == [unicodedata.normalize("NFC", word) for word in expected]


def test_ascii_text_has_the_words_it_always_had():
    for text in (*POOL, *TARGETS, string.printable, "it's 10,000.5 a.m. _x_ --flag=1 http://a.b/c?d=e", "A-b_c'd"):
        for each in (text, text + " é"):  # both ways of looking for them
            found = [word for word in words(each) if word != "é"]
            assert found == re.findall(r"\w+", text.lower())


@pytest.mark.parametrize(
    ("near", "far", "target"),
    [
        ("दिल्ली भारत की राजधानी है", "मुझे खाना पसंद नहीं", "भारत की राजधानी"),
        ("กรุงเทพเป็นเมืองหลวงของไทย", "ฉันชอบกินข้าวผัด", "เมืองหลวงของไทย"),
        ("北京是中国的首都", "我喜欢吃苹果", "中国的首都是什么"),
        ("القاهرة عاصمة مصر", "أحب التفاح الأحمر", "ما هي عاصمة مصر"),
        ("Die Straße führt über größere Hügel", "Äpfel schmecken süß", "größere Hügel"),
    ],
)
def test_what_shares_words_is_nearer_in_every_script(tmp_path, near, far, target):
    artifacts = texts(tmp_path, [near, far], [target])
    for method, score in (("bm25", bm25), ("dsir_smoothed", dsir)):  # dsir alone: the shorter wins
        values = score(composed_method(method), rows_table(2), *artifacts).values[:, 0]
        assert values[0] > values[1]
    seen = Near()
    assert not seen.holds(near) and not seen.holds(far) and seen.holds(f"«{near}»!")


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
