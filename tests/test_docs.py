"""The documents hold no word that was to be replaced by a number or a table."""

import re

import pytest

from rose.__main__ import ROOT

DOCUMENTS = ["README.md", "bench/README.md", "experiments/README.md"]
DOCUMENTS += [f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))]
CODE = re.compile(r"^```.*?^```|^(?: {4}|\t).*?$|`[^`\n]*`", re.S | re.M)  # may name environment variables
PLACEHOLDER = re.compile(r"(?<!\$)\b(?:[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+|TODO|TBD|FIXME|XXX)\b")


def placeholders(text: str) -> list[str]:
    return PLACEHOLDER.findall(CODE.sub("", text))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_nothing_is_left_to_be_filled_in(name: str):
    assert not placeholders((ROOT / name).read_text())


def test_placeholders_are_found_and_variables_are_not():
    text = "It takes INODES_JOB inodes, TBD.\n\nSCALE_TABLE\n\n| a | MODEL_2 |\n"
    assert placeholders(text) == ["INODES_JOB", "TBD", "SCALE_TABLE", "MODEL_2"]
    assert not placeholders(
        "`ROSE_DATA` and\n\n```\nexport WANDB_API_KEY=…\n```\n\n    HF_TOKEN=… make\n\nHH-RLHF, SHP, README"
    )


LINK = re.compile(r"\]\(([^)#\s]+)?(#[^)\s]+)?\)")


def anchors(text: str) -> set[str]:
    """The names by which a page's headings are linked to: lower case, words joined, no punctuation."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", text), re.M)
    return {"#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", [*DOCUMENTS, "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(name: str):
    page = ROOT / name
    for path, anchor in LINK.findall(re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)):
        if "://" in path:
            continue
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target.read_text()), anchor


def test_the_index_names_every_page():
    linked = {path for path, _ in LINK.findall((ROOT / "docs" / "README.md").read_text())}
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"} <= linked
