"""Lengths: tokens that a row's answers are made of."""

import pandas

from rose.config.schema import Method
from rose.methods.influence import Influence


def influence(method: Method, rows: pandas.DataFrame) -> Influence:
    """Answer tokens of each row: "long is more", the baseline of Zhao et al. (arXiv 2402.04833)."""
    return Influence(rows[["answer_tokens"]].to_numpy(dtype=float), ["answer_tokens"])
