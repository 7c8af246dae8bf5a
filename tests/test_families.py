"""The table of docs/MODELS.md: each family of models passes each check, or its cell says in words what a user sees.

`python tests/test_families.py` (`make tables`) runs the checks and writes the table anew.
"""

import re
import tempfile
from pathlib import Path

import pytest
from families import FAMILIES
from family_checks import CHECKS, Worked, work

from rose.__main__ import ROOT

DOCUMENT = ROOT / "docs" / "MODELS.md"
HEAD = "| family |"


def committed() -> dict[str, dict[str, str]]:
    """A family's title → a check → the cell."""
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("|")]
    rows = [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    (_, *checks), _, *body = rows
    return {title: dict(zip(checks, cells, strict=True)) for title, *cells in body}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("families")


@pytest.fixture(scope="module", params=FAMILIES)
def worked(request, folder) -> Worked:
    return work(request.param, folder)


@pytest.mark.parametrize("check", CHECKS)
def test_a_family_passes_or_the_table_says_what_is_not_as_expected(worked, check):
    assert CHECKS[check](worked) == committed()[worked.family.title][check]


def test_the_table_has_the_families_and_checks_there_are():
    assert [(title, list(cells)) for title, cells in committed().items()] == [
        (family.title, list(CHECKS)) for family in FAMILIES.values()
    ]


def written(cells: list[str]) -> str:
    return " | ".join(["", *(cell.replace("|", "\\|") for cell in cells), ""]).strip()


if __name__ == "__main__":
    lines = [["family", *CHECKS], ["---"] * (1 + len(CHECKS))]
    with tempfile.TemporaryDirectory() as place:
        for family_name, family in FAMILIES.items():
            done = work(family_name, Path(place))
            lines.append([family.title, *(check(done) for check in CHECKS.values())])
    before, _, rest = DOCUMENT.read_text().partition(HEAD)
    DOCUMENT.write_text(before + "\n".join(map(written, lines)) + "\n\n" + rest.partition("\n\n")[2])
