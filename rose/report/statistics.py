"""Means over seeds and test prompts with 95 % intervals that hold with three seeds.

A method's mean is uncertain because of the seeds it was run with and the prompts it was tested on.
With three seeds a bootstrap of the seeds is far too narrow, so the two are treated apart and added,
draw by draw:

- seeds: Student's t with seeds − 1 degrees of freedom on the seeds' means. Their spread holds all
  that differs from one seed to the next: the seed itself, and its luck with single prompts.
- prompts: a bootstrap of whole prompts, the same ones for every seed and both arms of a difference,
  scaled to what seeds share: the mean covariance between the means of two seeds that comes from
  their common prompts. What single seeds owe to their prompts is in the t already and would count
  twice (Owen, 2007; Cameron, Gelbach and Miller, 2011). Seeds that were tested on different prompts
  share nothing, and the t alone remains; but with seeds that happen to agree the interval is never
  narrower than the prompts alone make it. Two seeds of the same mean have no spread to judge by:
  they tell nothing, whatever the prompts. (Of 14 methods in 400 simulated sweeps, 27 comparisons of
  rates over 200 prompts, some difference of two seeds was told falsely in .10 by prompts alone.)

The sum of the two is the Behrens–Fisher fiducial distribution, known to err on the wide side
(Robinson, 1976). Coverage of the nominal 95 % in 2,000 simulated samples each of 100 prompts;
effects of prompts and the rest have a standard deviation of 1, those of seeds as given, and "plain"
resamples seeds and prompts with replacement and nothing else (`tests/test_report_statistics.py`
repeats it with fewer samples):

    seeds' deviation     0: 2 seeds .994, 3 seeds .984, 5 seeds .964   plain .965, .972, .969
                        .2: 2 seeds .984, 3 seeds .970, 5 seeds .965   plain .886, .926, .948
                         1: 2 seeds .953, 3 seeds .949, 5 seeds .949   plain .607, .751, .850
    .2, own prompts a seed: 2 seeds .983, 3 seeds .973, 5 seeds .959
    difference of two rates near .2, spread over seeds:
                            2 seeds .961, 3 seeds .962, 5 seeds .951   plain .742, .833, .879

The mean of a rate has limits that follow its scale (`_within`): Wilson's score interval for as many
independent items as would have the interval that seeds and prompts make, as Dean and Pagano (2015)
take it for clusters. Only cut at 0 and 1 it covers too little where seeds differ. In 400 simulated
samples of 200 prompts, whose logits have a deviation of 1.5 between prompts, .5 within, and as given
between seeds (at 1.2 single models' rates near .9 have one of .07; standard errors are near .01):

    seeds' deviation 1.2, rate .5:  3 seeds .952 → .962, 5 seeds .940 → .945
                          rate .9:  3 seeds .890 → .945, 5 seeds .895 → .937
                          rate .97: 3 seeds .852 → .962, 5 seeds .840 → .930

Their paired differences cover .92 to .98 there as they are, and stay as they are.

One seed: the interval is the bootstrap of the prompts and speaks of that model, not of the method.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy
import pandas
from scipy import special, stats

RESAMPLES = 2000
TILES = 16  # draws of t beside each resample of the prompts: its tails are heavy
LEVEL = 0.95
POWER = 0.8
MOST_SEEDS = 100  # beyond which "more seeds" is no advice


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, or the mean of a paired difference, with its 95 % interval."""

    seeds: int
    items: int  # test items a seed was measured on; 0 where only each seed's value is known
    mean: float
    low: float = numpy.nan  # as `high` and `p`, where there is nothing to tell a spread from
    high: float = numpy.nan
    p: float = numpy.nan  # two-sided, of a true mean of zero; NaN too where two seeds have the same mean
    seed_variance: float = numpy.nan  # of one seed's value
    prompt_variance: float = 0.0  # of the mean, from the choice of prompts; more seeds leave it
    prompts: int = 0  # that the items belong to
    deviation: float = numpy.nan  # of the prompts' values, each the mean over seeds

    @property
    def has_interval(self) -> bool:
        """Whether there is one to show: a width of zero would say more than is known."""
        return self.high - self.low > 1e-12 * abs(self.mean)


UNBOUNDED = (-numpy.inf, numpy.inf)
SHARE = (0.0, 1.0)  # bounds of a rate: nothing else has these
NOTHING = Estimate(0, 0, numpy.nan)


def from_items(values: numpy.ndarray, prompts: numpy.ndarray, bounds: tuple[float, float] = UNBOUNDED) -> Estimate:
    """The estimate for `values` [seeds, items], NaN where a seed lacks an item.

    The unit is the prompt, of which `prompts` [items] holds each item's as a number: it weighs the
    same whatever the number of its items (`rose.evaluation.items`). Limits are cut at `bounds`, the
    least and greatest possible value.
    """
    values = values[~numpy.isnan(values).all(axis=1)]
    if not len(values):
        return NOTHING
    seen = ~numpy.isnan(values).all(axis=0)
    table = _by_prompt(values[:, seen], prompts[seen])
    means = numpy.nanmean(table, axis=1)
    mean, seeds, items = float(means.mean()), len(values), int(seen.sum())
    if numpy.nanmin(values) == numpy.nanmax(values) and mean in bounds:
        low, high = _never_seen(mean, bounds, table.shape[1])
        sign_test = min(1.0, 2 * 0.5 ** table.shape[1])
        return Estimate(seeds, items, mean, low, high, sign_test, 0.0, prompts=table.shape[1], deviation=0.0)
    shared, total = _prompt_variance(table, means)
    variance = float(means.var(ddof=1)) if seeds > 1 else numpy.nan
    if seeds > 1:  # where they agree by luck, never narrower than the prompts alone
        shared = max(shared, total - variance / seeds)
    deviations = _resampled(table).mean(axis=1) - mean
    deviations *= numpy.sqrt(shared / total) if total else 0.0
    draws = mean + numpy.tile(deviations, TILES)
    if seeds > 1:
        draws += _student(seeds - 1) * numpy.sqrt(variance / seeds)
    low, high = _within(mean, numpy.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]), bounds)
    alike = seeds == 2 and total > 0 and numpy.ptp(means) <= 1e-12 * abs(mean)
    p = numpy.nan if alike else _outside(draws)
    deviation = (total * table.shape[1]) ** 0.5
    return Estimate(seeds, items, mean, low, high, p, variance, float(shared), table.shape[1], deviation)


def _never_seen(mean: float, bounds: tuple[float, float], prompts: int) -> tuple[float, float]:
    """The interval where all values lie on one bound, so that no resample differs.

    The other limit is that of a share never seen in so many prompts (Clopper and Pearson, 1934).
    """
    rest = (bounds[1] - bounds[0]) * (1 - ((1 - LEVEL) / 2) ** (1 / prompts))
    return (mean, mean + rest) if mean == bounds[0] else (mean - rest, mean)


def from_seeds(values: numpy.ndarray, bounds: tuple[float, float] = UNBOUNDED) -> Estimate:
    """The estimate for one value a seed, [seeds]: Student's t; no interval where all are equal."""
    values = numpy.asarray(values, float)
    values = values[~numpy.isnan(values)]
    if not len(values):
        return NOTHING
    mean, seeds = float(values.mean()), len(values)
    if seeds < 2 or numpy.ptp(values) <= 1e-12 * abs(mean):
        return Estimate(seeds, 0, mean, seed_variance=0.0 if seeds > 1 else numpy.nan)
    test: Any = stats.ttest_1samp(values, 0)
    low, high = _within(mean, test.confidence_interval(LEVEL), bounds)
    return Estimate(seeds, 0, mean, low, high, float(test.pvalue), float(values.var(ddof=1)))


def _within(mean: float, limits: Iterable[float], bounds: tuple[float, float]) -> tuple[float, float]:
    """The low and the high limit around a mean, cut at `bounds`; those of a rate follow its scale.

    With h half of high − low: the rates π for which (mean − π)² ≤ h² · π(1 − π) / mean(1 − mean).
    That is Wilson's score interval (1927) for as many items as would have the interval mean ± h.
    """
    low, high = limits
    if bounds == SHARE and 0 < mean < 1:
        scaled = ((high - low) / 2) ** 2 / (mean * (1 - mean))
        middle, root = mean + scaled / 2, (scaled * mean * (1 - mean) + scaled**2 / 4) ** 0.5
        low, high = (middle - root) / (1 + scaled), (middle + root) / (1 + scaled)
    return max(float(low), bounds[0]), min(float(high), bounds[1])


def wins(values: numpy.ndarray, prompts: numpy.ndarray) -> numpy.ndarray:
    """The share of resamples in which each arm has the greatest mean, [arms].

    `values` is [arms, seeds, items]. Prompts are drawn with replacement, the same for every arm. So
    would seeds be, but a draw with replacement from three is too narrow: a resample weights the
    seeds' deviations by independent normal numbers over the root of a chi-square, again the same
    for every arm, so that the difference of two arms is spread as Student's t. A tie is shared.
    """
    arms, seeds, items = values.shape
    table = _by_prompt(values.reshape(arms * seeds, items), prompts)
    means = _resampled(table).reshape(RESAMPLES, arms, seeds)
    center = means.mean(axis=2)
    if seeds > 1:
        generator = numpy.random.default_rng(1)
        weights = generator.normal(size=(RESAMPLES, seeds)) / numpy.sqrt(generator.chisquare(seeds - 1, (RESAMPLES, 1)))
        fixed = numpy.nanmean(table, axis=1).reshape(arms, seeds)
        fixed -= fixed.mean(axis=1, keepdims=True)
        center = center + weights @ fixed.T / numpy.sqrt(seeds)
    best = numpy.isclose(center, center.max(axis=1, keepdims=True), rtol=0, atol=1e-12)
    return (best / best.sum(axis=1, keepdims=True)).mean(axis=0)


def holm(p: list[float]) -> list[float]:
    """Holm's step-down correction (1979) of the p values; NaN stays NaN and does not count."""
    values = numpy.array(p, dtype=float)
    there = numpy.flatnonzero(~numpy.isnan(values))  # statsmodels takes seconds to import
    order = there[numpy.argsort(values[there])]
    steps = values[order] * numpy.arange(len(order), 0, -1)
    values[order] = numpy.minimum(numpy.maximum.accumulate(steps), 1)
    return values.tolist()


def more_seeds(difference: Estimate, comparisons: int) -> float:
    """About how many more seeds would tell `difference` from zero; inf where only prompts would.

    Supposes that difference and spread are as seen, and takes the least number of seeds that
    `least_told` says finds it. NaN where the spread between seeds is unknown, or where the answer is
    beyond `MOST_SEEDS`.
    """
    if difference.seeds < 2 or numpy.isnan(difference.seed_variance):
        return numpy.nan
    effect, variances = abs(difference.mean), (difference.seed_variance, difference.prompt_variance)
    if effect <= errors_needed(comparisons=comparisons) * numpy.sqrt(difference.prompt_variance):
        return numpy.inf
    seeds = numpy.arange(difference.seeds + 1, difference.seeds + MOST_SEEDS + 1)
    enough = seeds[effect >= least_told(seeds, *variances, comparisons)]
    return float(enough[0] - difference.seeds) if len(enough) else numpy.nan


def errors_needed(freedom: Any = numpy.inf, comparisons: int = 1) -> Any:
    """How many standard errors a difference must be, to be found with a chance of 80 % at the 5 % level.

    The noncentrality at which a two-sided t test, its level divided by the number of `comparisons`,
    has that power; with unlimited degrees of freedom z.975 + z.8 = 2.80, the usual formula for the
    size of a sample (Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988, chapter 2).
    """
    freedom = numpy.minimum(freedom, 1e6)
    return special.nctdtrinc(freedom, 1 - POWER, stats.t.ppf(1 - (1 - LEVEL) / 2 / comparisons, freedom))


def least_told(seeds: Any, seed_variance: float, prompt_variance: float, comparisons: int = 1) -> Any:
    """The least true difference that `from_items` tells from zero with a chance of 80 % at the 5 % level.

    What it would be for the seeds alone and for the prompts alone, added as squares: right where
    either is the whole spread. Of 2,000 simulated experiments each, with 2, 3 and 5 seeds, 100
    prompts and spreads as above, .79 to .83 tell such a difference.
    """
    of_seeds = errors_needed(seeds - 1, comparisons) ** 2 * seed_variance / seeds
    return numpy.sqrt(of_seeds + errors_needed(comparisons=comparisons) ** 2 * prompt_variance)


def least_told_by_prompts(deviation: float, prompts: Any) -> Any:
    """The same between given models, whose prompts' paired differences have this standard deviation."""
    return errors_needed(prompts - 1) * deviation / numpy.sqrt(prompts)


def prompts_needed(difference: Estimate) -> float:
    """The least number of prompts that tells it between these models; NaN where it or its spread is none or unknown."""
    if not abs(difference.mean) * difference.deviation > 0:
        return numpy.nan
    least = numpy.ceil((errors_needed() * difference.deviation / difference.mean) ** 2)
    prompts = max(2, least) + numpy.arange(4)  # Student's t wants a few more than the normal
    return float(prompts[abs(difference.mean) >= least_told_by_prompts(difference.deviation, prompts)][0])


def _by_prompt(values: numpy.ndarray, prompts: numpy.ndarray) -> numpy.ndarray:
    """The mean of each row's known values by prompt: [rows, prompts], NaN where a row has none."""
    return numpy.asarray(pandas.DataFrame(values.T).groupby(prompts).mean()).T


def _resampled(table: numpy.ndarray) -> numpy.ndarray:
    """The means of `table` [rows, prompts] in each resample of the prompts: [RESAMPLES, rows].

    Deviations are stretched by √(prompts / (prompts − 1)), which a bootstrap of few lacks.
    """
    prompts, means = table.shape[1], numpy.nanmean(table, axis=1)
    weights = _weights(prompts)
    drawn = weights @ ~numpy.isnan(table.T)
    drawn = numpy.where(drawn > 0, weights @ numpy.nan_to_num(table.T) / numpy.maximum(drawn, 1), means)
    return means + (drawn - means) * numpy.sqrt(prompts / max(1, prompts - 1))


@lru_cache(maxsize=4)
def _weights(prompts: int) -> numpy.ndarray:
    """How often each prompt is drawn in each resample, [RESAMPLES, prompts]; always the same."""
    generator = numpy.random.default_rng(0)
    rows = (numpy.bincount(generator.integers(prompts, size=prompts), minlength=prompts) for _ in range(RESAMPLES))
    return numpy.array([row.astype(numpy.float32) for row in rows])


@lru_cache(maxsize=16)
def _student(freedom: int) -> numpy.ndarray:
    """Student's t at even probabilities, shuffled: no more noise than the prompts bring."""
    size = RESAMPLES * TILES
    return numpy.random.default_rng(2).permutation(stats.t.ppf((numpy.arange(size) + 0.5) / size, freedom))


def _prompt_variance(table: numpy.ndarray, means: numpy.ndarray) -> tuple[float, float]:
    """Of the mean over seeds: the variance from prompts that seeds share, and from all prompts.

    The former is the mean covariance of two seeds' means; with one seed the two are the same.
    """
    seeds, prompts = table.shape
    parts = numpy.nan_to_num(table - means[:, None]) / (~numpy.isnan(table)).sum(axis=1, keepdims=True)
    parts *= numpy.sqrt(prompts / max(1, prompts - 1))
    total = float((parts.sum(axis=0) ** 2).sum()) / seeds**2
    if seeds == 1:
        return total, total
    alone = float((parts**2).sum())
    return max(0.0, (seeds**2 * total - alone) / (seeds * (seeds - 1))), total


def _outside(draws: numpy.ndarray) -> float:
    """Twice the lesser share of `draws` on one side of zero, and never less than two of them."""
    least = min((draws <= 0).sum(), (draws >= 0).sum())
    return float(min(1.0, 2 * max(least, 1) / len(draws)))
