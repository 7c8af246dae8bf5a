"""Intervals against scipy, statsmodels and simulation; what is random is seeded."""

import warnings

import numpy
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from rose.report.statistics import Estimate, from_items, from_seeds, holm, more_seeds, wins

NAN = numpy.nan


def crossed(generator: numpy.random.Generator, seeds: int, prompts: int, between: float, noise: float = 1.0):
    """Values around 0 with effects of seed, prompt and both: [seeds, prompts]."""
    return (
        generator.normal(0, between, (seeds, 1))
        + generator.normal(0, 1, prompts)
        + generator.normal(0, noise, (seeds, prompts))
    )


def test_one_seed_is_scipys_bootstrap_of_the_prompts():
    values = numpy.random.default_rng(0).gamma(2, size=(1, 300))
    ours = from_items(values, numpy.arange(300))
    theirs = stats.bootstrap(values, numpy.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    width = theirs.high - theirs.low
    assert (ours.seeds, ours.items) == (1, 300)
    assert ours.mean == pytest.approx(values.mean())
    assert abs(ours.low - theirs.low) < 0.06 * width
    assert abs(ours.high - theirs.high) < 0.06 * width


def test_seeds_that_share_no_prompt_are_students_t_on_their_means():
    generator = numpy.random.default_rng(0)
    values = numpy.full((4, 200), NAN)
    for seed in range(4):
        values[seed, seed * 50 : seed * 50 + 50] = generator.normal(seed, 1, 50)
    ours, means = from_items(values, numpy.arange(200)), numpy.nanmean(values, axis=1)
    low, high = stats.t.interval(0.95, 3, means.mean(), stats.sem(means))
    assert ours.low == pytest.approx(low, abs=0.01 * (high - low))
    assert ours.high == pytest.approx(high, abs=0.01 * (high - low))
    assert ours.prompt_variance == 0


def test_one_value_a_seed_is_the_paired_t_test():
    one, other = numpy.array([0.7, 0.8, 0.95, 0.6]), numpy.array([0.5, 0.75, 0.7, 0.55])
    ours, theirs = from_seeds(one - other), stats.ttest_rel(one, other)
    interval = theirs.confidence_interval(0.95)
    assert (ours.mean, ours.p) == (pytest.approx((one - other).mean()), pytest.approx(theirs.pvalue))
    assert (ours.low, ours.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_the_prompts_part_is_the_variance_component_of_a_two_way_anova():
    """Balanced and crossed: seed_variance = MS_seed / prompts, prompt_variance = (MS_prompt − MS_both) / all."""
    values = crossed(numpy.random.default_rng(3), 4, 60, between=0.3)
    rows, columns, grand = values.mean(axis=1, keepdims=True), values.mean(axis=0), values.mean()
    ms_seed = 60 * ((rows - grand) ** 2).sum() / 3
    ms_prompt = 4 * ((columns - grand) ** 2).sum() / 59
    ms_both = ((values - rows - columns + grand) ** 2).sum() / (3 * 59)
    ours = from_items(values, numpy.arange(60))
    assert ours.seed_variance == pytest.approx(ms_seed / 60)
    assert ours.prompt_variance == pytest.approx((ms_prompt - ms_both) / 240)


@pytest.mark.parametrize(("seeds", "between"), [(2, 0.2), (3, 0.0), (3, 0.2), (3, 1.0), (5, 0.2)])
def test_the_interval_covers_and_a_bootstrap_of_few_seeds_would_not(seeds: int, between: float):
    generator = numpy.random.default_rng(5)
    estimates = [from_items(crossed(generator, seeds, 50, between), numpy.arange(50)) for _ in range(250)]
    covered = numpy.mean([estimate.low <= 0 <= estimate.high for estimate in estimates])
    assert 0.915 <= covered <= 1  # 0.95 − 2.5 standard errors of 250
    if between == 1.0:
        thin = [
            stats.norm.interval(0.95, e.mean, (e.seed_variance * (1 - 1 / seeds) / seeds) ** 0.5) for e in estimates
        ]
        assert numpy.mean([low <= 0 <= high for low, high in thin]) < 0.85


@pytest.mark.parametrize(("rate", "logit"), [(0.9, 3.402), (0.97, 5.071)])
def test_the_interval_of_a_rate_near_one_covers_where_one_cut_at_the_bound_would_not(rate: float, logit: float):
    """Logits spread 1.2 over five seeds, 1.5 over 200 prompts and .5 within; `logit` is their mean for such a rate."""
    generator, nodes = numpy.random.default_rng(7), stats.norm.ppf((numpy.arange(10_000) + 0.5) / 10_000)
    spread = (1.2**2 + 1.5**2 + 0.5**2) ** 0.5
    assert (1 / (1 + numpy.exp(-(logit + spread * nodes)))).mean() == pytest.approx(rate, abs=1e-4)
    covered = numpy.zeros(2)
    for _ in range(150):
        logits = logit + 1.5 * generator.normal(size=200)
        logits = logits + 1.2 * generator.normal(size=(5, 1)) + 0.5 * generator.normal(size=(5, 200))
        values = (generator.random((5, 200)) < 1 / (1 + numpy.exp(-logits))).astype(float)
        for place, bounds in enumerate([(0.0, 1.0), (-numpy.inf, 1.0)]):  # a rate; what is but cut
            estimate = from_items(values, numpy.arange(200), bounds)
            covered[place] += estimate.low <= rate <= estimate.high
    assert covered[0] / 150 >= 0.95 - 2.5 * (0.95 * 0.05 / 150) ** 0.5
    assert covered[1] < covered[0]


def test_the_limits_of_one_models_rate_are_wilsons():
    """One seed, an item a prompt: 180 of 200, within the noise of the resamples."""
    values = (numpy.arange(200) < 180).astype(float)[None]
    estimate = from_items(values, numpy.arange(200), (0.0, 1.0))
    wilson = stats.binomtest(180, 200).proportion_ci(0.95, "wilson")
    assert (estimate.low, estimate.high) == (pytest.approx(wilson.low, abs=3e-3), pytest.approx(wilson.high, abs=3e-3))


def test_two_seeds_that_agree_tell_nothing_and_three_may():
    """By luck or not: with two seeds a spread of zero is as likely as any other."""
    prompts = numpy.random.default_rng(0).normal(0.5, 1, 200)
    apart = numpy.stack([prompts, prompts[::-1]])  # the same mean from other items
    agreeing = from_items(apart, numpy.arange(200))
    assert agreeing.low > 0 and numpy.isnan(agreeing.p)
    assert from_items(numpy.concatenate([apart, prompts[None]]), numpy.arange(200)).p < 0.05
    assert from_items(numpy.add(apart, [[0.0], [1e-3]]), numpy.arange(200)).p < 0.05
    assert from_items(numpy.zeros((2, 200)), numpy.arange(200)).p == 1


def told_falsely(generator: numpy.random.Generator, methods: int = 14, prompts: int = 200, seeds: int = 2) -> bool:
    """Whether any of `methods` that are all alike is told from the first or the second one, Bonferroni-corrected.

    Holm's first step is the same. What neither the seeds' t nor the prompts' normal finds, nothing that adds the two
    can: only the others are worked out.
    """
    logit = generator.normal(0, 1, prompts) + generator.normal(0, 1, (methods + 1, seeds, 1))
    rates = (generator.random((methods + 1, seeds, prompts)) < 1 / (1 + numpy.exp(-logit))).astype(float)
    differences = numpy.concatenate([rates[1:] - rates[0], rates[2:] - rates[1]])
    level = 0.05 / len(differences)
    with numpy.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # scipy's, of equal values
        of_seeds = numpy.nan_to_num(stats.ttest_1samp(differences.mean(axis=2), 0, axis=1).pvalue, nan=0)
        of_prompts = stats.ttest_1samp(differences.mean(axis=1), 0, axis=1).pvalue
    there = differences[(of_seeds < 2 * level) & (of_prompts < 2 * level)]
    return any(from_items(each, numpy.arange(prompts), (-1, 1)).p < level for each in there)


def test_of_fourteen_methods_that_are_alike_none_is_told_in_more_than_one_sweep_of_twenty():
    generator = numpy.random.default_rng(0)
    assert numpy.mean([told_falsely(generator) for _ in range(400)]) <= 0.05 + 2.5 * (0.05 * 0.95 / 400) ** 0.5


def test_pairs_of_one_prompt_move_together():
    single = numpy.random.default_rng(0).normal(size=(1, 50))
    doubled = from_items(numpy.repeat(single, 4, axis=1), numpy.repeat(numpy.arange(50), 4))
    alone = from_items(single, numpy.arange(50))
    assert (doubled.low, doubled.high) == (pytest.approx(alone.low), pytest.approx(alone.high))
    naive = from_items(numpy.repeat(single, 4, axis=1), numpy.arange(200))
    assert naive.high - naive.low < 0.6 * (alone.high - alone.low)


def test_what_both_arms_share_is_not_in_their_difference():
    generator = numpy.random.default_rng(0)
    shared = crossed(generator, 3, 80, between=1.0)
    difference = (shared + 0.1 + generator.normal(0, 0.05, (3, 80))) - shared
    estimate = from_items(difference, numpy.arange(80))
    assert 0.05 < estimate.low < 0.1 < estimate.high < 0.15
    assert estimate.p < 0.05


def test_equal_values_have_no_false_precision():
    same = from_items(numpy.zeros((3, 40)), numpy.arange(40))
    assert (same.mean, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert not same.has_interval
    perfect = from_items(numpy.ones((3, 40)), numpy.arange(40), bounds=(0, 1))
    assert (perfect.mean, perfect.high) == (1, 1)
    assert perfect.has_interval
    assert perfect.low == pytest.approx(stats.binomtest(40, 40).proportion_ci(0.95, "exact").low)
    flat = from_seeds(numpy.array([0.2, 0.2, 0.2]))
    assert flat.mean == pytest.approx(0.2)
    assert numpy.isnan([flat.low, flat.high, flat.p]).all()
    assert not flat.has_interval


def test_missing_items_count_for_neither_mean_nor_interval():
    values = numpy.random.default_rng(0).normal(size=(2, 30))
    gaps = numpy.concatenate([values, numpy.full((2, 5), NAN)], axis=1)
    with_gaps = from_items(numpy.concatenate([gaps, numpy.full((1, 35), NAN)]), numpy.arange(35))
    assert with_gaps == from_items(values, numpy.arange(30))
    assert from_items(numpy.full((2, 3), NAN), numpy.arange(3)).seeds == 0
    assert numpy.isnan(from_seeds(numpy.array([0.4])).low)


def test_limits_stay_within_what_is_possible():
    values = (numpy.random.default_rng(0).random((2, 40)) < 0.05).astype(float)
    estimate = from_items(values, numpy.arange(40), bounds=(0, 1))
    assert 0 <= estimate.low <= estimate.mean <= estimate.high <= 1


def test_holm_is_statsmodels_and_skips_what_is_unknown():
    p = [0.01, NAN, 0.04, 0.03, NAN]
    corrected = holm(p)
    assert numpy.isnan(corrected[1]) and numpy.isnan(corrected[4])
    assert [corrected[0], corrected[2], corrected[3]] == list(multipletests([0.01, 0.04, 0.03], method="holm")[1])
    assert corrected[0] == pytest.approx(0.03)  # by hand: 3 × .01, 2 × .03, then no less
    assert corrected[2] == corrected[3] == pytest.approx(0.06)
    assert holm([]) == []


def test_the_winner_is_counted_over_seeds_and_prompts():
    base = numpy.random.default_rng(0).normal(size=(3, 50))
    clear = numpy.stack([base, base + 0.5, base - 0.5])
    assert wins(clear, numpy.arange(50)).tolist() == [0, 1, 0]
    assert wins(numpy.stack([base, base]), numpy.arange(50)).tolist() == [0.5, 0.5]
    one_seed = wins(numpy.stack([base[:1] * 0, base[:1] - base.mean()]), numpy.arange(50))
    assert one_seed.sum() == pytest.approx(1)
    assert 0.05 < one_seed[0] < 0.95


def test_the_winner_over_three_seeds_is_students_t():
    base, gains = numpy.random.default_rng(0).normal(size=(3, 50)), numpy.array([[0.1], [0.3], [-0.05]])
    share = wins(numpy.stack([base, base + gains]), numpy.arange(50))[1]  # prompts move both arms alike
    assert share == pytest.approx(stats.t.cdf(gains.mean() / stats.sem(gains[:, 0]), 2), abs=0.02)


def test_the_winner_of_two_equal_arms_is_open():
    generator = numpy.random.default_rng(1)
    shares = [wins(numpy.stack([crossed(generator, 5, 40, 0.5) for _ in "ab"]), numpy.arange(40))[0] for _ in range(40)]
    assert numpy.mean(shares) == pytest.approx(0.5, abs=0.15)


def test_more_seeds_is_the_power_of_a_t_test():
    """Without a prompts part, statsmodels' sample size of a one-sample t test for d = .75: 16 seeds."""
    from statsmodels.stats.power import TTestPower

    needed = TTestPower().solve_power(effect_size=0.75, alpha=0.05, power=0.8)
    seen = Estimate(3, 0, 0.75, NAN, NAN, 0.2, seed_variance=1.0)
    assert more_seeds(seen, comparisons=1) == pytest.approx(numpy.ceil(needed) - 3, abs=1)
    assert more_seeds(seen, comparisons=10) > more_seeds(seen, comparisons=1)


def test_more_seeds_do_not_help_where_prompts_are_too_few():
    seen = Estimate(3, 100, 0.1, NAN, NAN, 0.2, seed_variance=0.01, prompt_variance=0.01)
    assert more_seeds(seen, comparisons=1) == numpy.inf
    assert numpy.isnan(more_seeds(Estimate(1, 100, 0.1, NAN, NAN, 0.2), comparisons=1))
    assert numpy.isnan(more_seeds(Estimate(3, 0, 0.001, NAN, NAN, 0.9, seed_variance=1.0), comparisons=1))
