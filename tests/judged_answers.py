"""What the stage `answers` leaves, written by hand."""

import json
from collections.abc import Iterable
from pathlib import Path


def write_answers(folder: Path, contests: Iterable[tuple[str, str]]) -> Path:
    """One pair a contest, (answer, reference)."""
    folder.mkdir()
    rows = [
        {"id": f"pair-{i}", "subtask": "s", "prompt": [{"role": "user", "content": f"question {i}?"}]}
        | {"answer": answer, "reference": reference}
        for i, (answer, reference) in enumerate(contests)
    ]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
