"""`python compare.py FIRST OTHER …`: folders of one job each; how far the others' scores are from the first's.

And from one another, whether they have the same bytes, and what each stage took.
"""

import json
import sys
from itertools import combinations
from pathlib import Path

import pandas


def main(folders: list[Path]) -> None:
    jobs = {folder.name: _job(folder) for folder in folders}
    scores = {name: pandas.read_parquet(job / "scores.parquet").set_index("id")["score"] for name, job in jobs.items()}
    for one, other in combinations(scores, 2):
        a, b = scores[one], scores[other].reindex(scores[one].index)
        count = max(1, len(a) // 10)
        shared = len(set(a.nlargest(count).index) & set(b.nlargest(count).index))
        print(
            f"{other} beside {one}: rank correlation {a.corr(b, method='spearman'):.5f}, of the best tenth "
            f"{shared} of {count} shared, largest difference {(a - b).abs().max():.2e}, same bytes {a.equals(b)}"
        )
    for name, job in jobs.items():
        stages = json.loads((job / "stages.json").read_text())
        print(name, {kind: round(stage.get("seconds") or 0, 1) for kind, stage in stages.items()})


def _job(folder: Path) -> Path:
    found = sorted(folder.glob("runs/*/scores.parquet"))
    if not found:
        sys.exit(f"{folder}: no job has scores; see the text beside it")
    return found[0].parent


if __name__ == "__main__":
    main([Path(each) for each in sys.argv[1:]])
