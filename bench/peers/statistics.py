"""Intervals and corrections of the report

Holm's correction of ten families of p values; Student's t of 50 samples of three to nine seeds; the
exact limits of a rate that is 1 in every item; the number of seeds for a power of 80 % (whole
numbers: ours looks for the least, at most one off); the bootstrap of one seed's prompts, whose
noise is a few percent of the interval.
"""

import math
from collections.abc import Iterator

import numpy
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from bench.peers.row import Row, largest, version
from rose.report.statistics import Estimate, from_items, from_seeds, holm, more_seeds


def rows() -> Iterator[Row]:
    rng = numpy.random.default_rng(0)
    families = [numpy.round(rng.random(size) ** 3, 2) for size in rng.integers(5, 60, 10)]  # rounded: with ties
    worst = max(largest(holm(list(p)), multipletests(p, method="holm")[1]) for p in families)
    yield Row("Holm's correction", version("statsmodels"), worst, 1e-12)

    samples = [rng.normal(rng.normal(), 1, size) for size in rng.integers(3, 10, 50)]
    estimates = [from_seeds(sample) for sample in samples]
    theirs = [DescrStatsW(sample).tconfint_mean() for sample in samples]
    worst = largest([(e.low, e.high) for e in estimates], theirs)
    yield Row("t interval of seeds", version("statsmodels"), worst, 1e-9)
    theirs = [stats.ttest_1samp(sample, 0).pvalue for sample in samples]
    yield Row("p of a mean of zero", version("scipy"), largest([e.p for e in estimates], theirs), 1e-12)

    perfect = [from_items(numpy.ones((1, count)), numpy.arange(count), (0, 1)).low for count in (10, 40, 200)]
    theirs = [proportion_confint(count, count, method="beta")[0] for count in (10, 40, 200)]
    yield Row("least rate, all items right", version("statsmodels"), largest(perfect, theirs), 1e-9)

    effects = (0.6, 0.75, 0.9, 1.2)
    seen = [Estimate(3, 0, effect, *[math.nan] * 3, seed_variance=1.0) for effect in effects]
    needed = [numpy.ceil(TTestPower().solve_power(effect_size=effect, alpha=0.05, power=0.8)) - 3 for effect in effects]
    worst = largest([more_seeds(estimate, comparisons=1) for estimate in seen], needed)
    yield Row("seeds still needed", version("statsmodels"), worst, 1.0)

    values = rng.gamma(2.0, size=300)
    ours = from_items(values[None], numpy.arange(300))
    theirs = stats.bootstrap((values,), numpy.mean, n_resamples=20_000, method="percentile", rng=rng)
    low, high = theirs.confidence_interval
    share = largest([ours.low, ours.high], [low, high]) / (high - low)
    yield Row("bootstrap of prompts, in widths of the interval", version("scipy"), share, 0.1)
