"""Win rate at equal length: what is left of it when neither answer gains by being the longer one."""

import numpy
from sklearn.linear_model import LogisticRegression

WEAK = 100.0  # inverse of the penalty on the slope: keeps it finite where length alone decides, else not felt


def length_controlled(wins: numpy.ndarray, lengths: numpy.ndarray, opponents: numpy.ndarray) -> float | None:
    """σ(θ) of the logistic model P(win) = σ(θ + φ·tanh(Δ/sd(Δ))), Δ = length − opponent's length: Δ = 0, predicted.

    The simplest form of AlpacaEval 2's length control (arXiv 2404.04475), without its terms for prompt and model.
    `wins` [items] in [0, 1] or NaN, a tie being half a win and half a loss; lengths in characters. Where every answer
    is longer than its opponent, or every one shorter, the prediction extrapolates. None where no win is known.
    """
    known = ~numpy.isnan(wins)
    wins, difference = wins[known], (lengths - opponents)[known]
    if not len(wins):
        return None
    spread = difference.std()
    if spread == 0 or wins.min() == wins.max():
        return float(wins.mean())
    feature = numpy.tanh(difference / spread)[:, None]
    model = LogisticRegression(C=WEAK, tol=1e-8, max_iter=1000)
    outcome = numpy.repeat([1, 0], len(wins))
    model.fit(numpy.concatenate([feature, feature]), outcome, sample_weight=numpy.concatenate([wins, 1 - wins]))
    return float(model.predict_proba([[0.0]])[0, 1])
