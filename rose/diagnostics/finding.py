"""What a check says: a number, whether it looks suspicious, and a sentence for a person."""

import math
from typing import Any, NamedTuple


class Finding(NamedTuple):
    """value None: there is nothing to measure, and the sentence says why."""

    name: str
    value: float | None
    suspicious: bool
    sentence: str
    details: Any = None

    def as_json(self) -> dict[str, Any]:
        state = "warn" if self.suspicious else "pass"
        said = {"name": self.name, "value": self.value, "state": state, "sentence": self.sentence}
        return said if self.details is None else said | {"details": self.details}


LOW_IS_BAD = ("stability", "projection", "fidelity", "fidelity_matched", "planted")


def severity(name: str, value: float | None) -> float:
    """Orders the values of one check, the worst last: one that could not be measured is no better than any."""
    if value is None:
        return math.inf
    if name == "length_ratio":
        return abs(math.log(value)) if value > 0 else math.inf
    return -value if name in LOW_IS_BAD else abs(value)


def not_applicable(name: str, reason: str) -> Finding:
    return Finding(name, None, False, reason)


def constant_score(name: str) -> Finding:
    """A check that has nothing to measure because the method told no row from another."""
    return Finding(name, None, True, "All rows have the same score: the selection is no better than the order of ids.")


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"
