"""A share of a number as it was written: .58 of 100 is 58, which floats make 57.99…"""

import math
from fractions import Fraction

FINEST = 10**9  # what a share is told apart by; a float's own error is far below


def part(share: float, total: int) -> Fraction:
    return Fraction(share).limit_denominator(FINEST) * total


def rounded(share: float, total: int) -> int:
    """A share of `total` rows, at least one."""
    return max(1, math.floor(part(share, total) + Fraction(1, 2)))
