"""Win rate at equal length: what is left when neither answer gains by being the longer one."""

import logging
from collections.abc import Sequence

import numpy
from sklearn.linear_model import LogisticRegression

log = logging.getLogger(__name__)

ONE_SIDED = 0.8  # share of answers longer, or shorter, than their opponents, from which there is a warning
WEAK = 100.0  # inverse of the penalty on the slope, which stays finite where length alone decides


def length_controlled(
    wins: numpy.ndarray, lengths: numpy.ndarray, opponents: numpy.ndarray, prompts: Sequence[str]
) -> float | None:
    """σ(θ) of the logistic model P(win) = σ(θ + φ·tanh(Δ/sd(Δ))): the win rate predicted at Δ = 0.

    Δ = length − opponent's length, in characters. AlpacaEval 2's length control (arXiv 2404.04475)
    without its terms for prompt and model. `wins` [items] in [0, 1] or NaN, a tie being half a win
    and half a loss; a prompt weighs the same whatever the number of its items. Where every answer
    is longer than its opponent, or every one shorter, this extrapolates. None: no win is known.
    """
    known = ~numpy.isnan(wins)
    wins, difference = wins[known], (lengths - opponents)[known]
    if not len(wins):
        return None
    _, prompt, counts = numpy.unique(numpy.asarray(prompts)[known], return_inverse=True, return_counts=True)
    weights = 1 / counts[prompt]
    for side, what in ((difference > 0, "longer"), (difference < 0, "shorter")):
        if (share := numpy.average(side, weights=weights)) >= ONE_SIDED - 1e-12:
            log.warning("win_rate_length_controlled extrapolates: %.0f %% of answers are %s", 100 * share, what)
    spread = numpy.average((difference - numpy.average(difference, weights=weights)) ** 2, weights=weights) ** 0.5
    if spread == 0 or wins.min() == wins.max():
        return float(numpy.average(wins, weights=weights))
    feature = numpy.tanh(difference / spread)[:, None]
    model = LogisticRegression(C=WEAK, tol=1e-8, max_iter=1000)
    outcome = numpy.repeat([1, 0], len(wins))
    shares = numpy.concatenate([weights * wins, weights * (1 - wins)])
    model.fit(numpy.concatenate([feature, feature]), outcome, sample_weight=shares)
    return float(model.predict_proba([[0.0]])[0, 1])
