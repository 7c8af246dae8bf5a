"""Length-controlled win rates against a known effect, and against statsmodels on the same data."""

import math

import numpy
import pytest
import statsmodels.api

from rose.evaluation.verdicts import length_controlled


def simulated(count: int, skill: float, bias: float, longer: float) -> tuple[numpy.ndarray, ...]:
    """Wins drawn from P = σ(skill + bias · tanh(Δ/sd)) for answers that are `longer` characters longer on average."""
    rng = numpy.random.default_rng(0)
    opponents = rng.integers(200, 400, count).astype(float)
    lengths = opponents + rng.normal(longer, 100, count).round()
    difference = lengths - opponents
    chance = 1 / (1 + numpy.exp(-(skill + bias * numpy.tanh(difference / difference.std()))))
    return (rng.random(count) < chance).astype(float), lengths, opponents


def test_a_win_rate_bought_by_length_is_a_tie_at_equal_length():
    wins, lengths, opponents = simulated(20_000, skill=0.0, bias=2.0, longer=80)
    assert wins.mean() > 0.65
    assert length_controlled(wins, lengths, opponents, range(len(wins))) == pytest.approx(0.5, abs=0.015)


def test_skill_is_found_under_a_length_effect_that_hides_it():
    wins, lengths, opponents = simulated(20_000, skill=math.log(3), bias=2.0, longer=-80)
    assert wins.mean() < 0.6
    assert length_controlled(wins, lengths, opponents, range(len(wins))) == pytest.approx(0.75, abs=0.015)


def test_it_is_the_logit_of_statsmodels():
    wins, lengths, opponents = simulated(500, skill=0.4, bias=1.0, longer=30)
    difference = lengths - opponents
    features = statsmodels.api.add_constant(numpy.tanh(difference / difference.std()))
    fit = statsmodels.api.Logit(wins, features).fit(disp=False)
    expected = 1 / (1 + math.exp(-fit.params[0]))
    assert length_controlled(wins, lengths, opponents, range(len(wins))) == pytest.approx(expected, abs=1e-3)


def test_ties_weigh_as_half_a_win_and_half_a_loss():
    """statsmodels' binomial family takes shares of wins as they are."""
    wins, lengths, opponents = simulated(300, skill=0.4, bias=1.0, longer=30)
    wins[::5] = 0.5
    difference = lengths - opponents
    features = statsmodels.api.add_constant(numpy.tanh(difference / difference.std()))
    fit = statsmodels.api.GLM(wins, features, family=statsmodels.api.families.Binomial()).fit()
    expected = 1 / (1 + math.exp(-fit.params[0]))
    assert length_controlled(wins, lengths, opponents, range(len(wins))) == pytest.approx(expected, abs=1e-3)


def test_separated_and_single_outcomes_stay_finite():
    lengths, opponents = numpy.array([10.0, 20, 30, 40]), numpy.full(4, 25.0)
    assert length_controlled(numpy.array([0.0, 0, 1, 1]), lengths, opponents, range(4)) == pytest.approx(0.5, abs=0.01)
    assert length_controlled(numpy.ones(4), lengths, opponents, range(4)) == 1
    assert length_controlled(numpy.array([1.0, 0, 0.5, 1]), opponents, opponents, range(4)) == 0.625


@pytest.mark.parametrize(("longer", "warned"), [(7, False), (8, True), (2, True), (3, False)])
def test_a_rate_that_is_extrapolated_says_so(caplog, longer, warned):
    """Ten prompts, the rest shorter: warned of from 80 % on one side."""
    lengths = numpy.where(numpy.arange(10) < longer, 30.0, 10.0)
    length_controlled(numpy.arange(10) % 2 / 1.0, lengths, numpy.full(10, 20.0), range(10))
    assert ("extrapolates" in caplog.text) == warned


def test_what_has_no_verdict_is_left_out():
    wins = numpy.array([1.0, 0, numpy.nan, 0.5])
    lengths = numpy.array([5.0, 5, 900, 5])
    assert length_controlled(wins, lengths, numpy.full(4, 5.0), range(4)) == 0.5
    assert length_controlled(numpy.full(2, numpy.nan), lengths[:2], lengths[:2], range(2)) is None


def test_a_prompt_weighs_the_same_whatever_the_number_of_its_pairs():
    wins, lengths, opponents = simulated(60, skill=0.4, bias=1.0, longer=30)
    often = numpy.repeat(numpy.arange(60), numpy.where(wins == 1, 5, 1))
    alone = length_controlled(wins, lengths, opponents, range(60))
    assert length_controlled(wins[often], lengths[often], opponents[often], often) == pytest.approx(alone, abs=1e-6)
    assert length_controlled(wins[often], opponents[often], opponents[often], often) == pytest.approx(wins.mean())
