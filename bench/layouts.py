"""What a layout costs: `python -m bench.layouts` reads and tokenises 100,000 made rows as ShareGPT and as messages.

Each is a process of its own, and each order is run once; CPU seconds, and how memory's peak grows with the rows.
"""

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy

from rose.config.choices import OnBadRow
from rose.config.data import Dataset
from rose.data import chat, pool, world
from rose.data.world_language import WORDS

ROWS, FEW, TURNS, LENGTH = 100_000, 10_000, 4, 24  # rows, for memory's growth, messages a row, words a message
WORDS_OF = {"messages": ("messages", "role", "content"), "sharegpt": ("conversations", "from", "value")}
ROLES = {"messages": ("user", "assistant"), "sharegpt": ("human", "gpt")}


def make(layout: str, rows: int, path: Path) -> None:
    """The same conversations in either layout's words."""
    column, who, what = WORDS_OF[layout]
    words = numpy.array(" ".join(WORDS.values()).split())
    draws = numpy.random.default_rng(0)
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(rows):
            texts = map(" ".join, words[draws.integers(len(words), size=(TURNS, LENGTH))])
            turns = [{who: ROLES[layout][turn % 2], what: text} for turn, text in enumerate(texts)]
            file.write(json.dumps({column: turns}) + "\n")


def read(layout: str, rows: int) -> dict[str, float]:
    """Runs the stages pool and tokens; what this process took for them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("base", "pool", "tokens"):
            (folder / part).mkdir()
        world.tokenizer().save_pretrained(folder / "base")
        make(layout, rows, folder / "rows.jsonl")
        where = {"path": str(folder / "rows.jsonl"), "revision": None, "files": [], "per_source": None}
        dataset = Dataset(name="made", **where, on_bad_row=OnBadRow.stop, seed=0, world=None)
        before = resource.getrusage(resource.RUSAGE_SELF)
        pool.read_pool(folder / "pool", dataset, "")
        chat.tokenize(folder / "tokens", 512, folder / "base", folder / "pool")
        after = resource.getrusage(resource.RUSAGE_SELF)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "peak_mib": after.ru_maxrss / 1024}


def main() -> None:
    found = []
    for layout, rows in (
        ("messages", ROWS),
        ("sharegpt", ROWS),
        ("sharegpt", ROWS),
        ("messages", ROWS),
        ("sharegpt", FEW),
    ):
        command = [sys.executable, "-m", "bench.layouts", layout, str(rows)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found.append((layout, rows, json.loads(done.stdout.splitlines()[-1])))
        print(layout, rows, found[-1][2], flush=True)
    total = {
        name: sum(each["seconds"] for layout, rows, each in found if (layout, rows) == (name, ROWS)) for name in ROLES
    }
    print(f"sharegpt / messages: {total['sharegpt'] / total['messages']:.2f}")


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(read(sys.argv[1], int(sys.argv[2]))))
    else:
        main()
