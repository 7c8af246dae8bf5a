"""What a check says: a number, whether it looks suspicious, and a sentence for a person."""

from typing import Any, NamedTuple


class Finding(NamedTuple):
    """value None: the check does not apply, and the sentence says why."""

    name: str
    value: float | None
    suspicious: bool
    sentence: str
    details: Any = None

    def as_json(self) -> dict[str, Any]:
        state = "warn" if self.suspicious else "pass"
        said = {"name": self.name, "value": self.value, "state": state, "sentence": self.sentence}
        return said if self.details is None else said | {"details": self.details}


def not_applicable(name: str, reason: str) -> Finding:
    return Finding(name, None, False, reason)


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"
