"""Training that goes on where a killed process stopped, through Trainer's own checkpoints, to the same numbers."""

import json
import shutil
import time
from pathlib import Path

from transformers import TrainerCallback

from rose import ranks
from rose.stages.disk import vouch

EVERY = 300.0  # seconds between checkpoints; what is shorter never makes one
WHOLE = "memory.json"  # written last, when the rest is on the disk: a checkpoint without it was torn


class Save(TrainerCallback):
    """Has Trainer save itself every EVERY seconds, with `memory`, what callbacks must know besides."""

    def __init__(self, memory: dict):
        self.memory, self.saved = memory, time.monotonic()

    def on_step_end(self, args, state, control, **_):
        if not float(state.epoch).is_integer():  # else the end of the epoch is yet to be told to the callbacks
            self.on_epoch_end(args, state, control)

    def on_epoch_end(self, args, state, control, **_):
        if ranks.world_size() == 1 and time.monotonic() - self.saved >= EVERY:
            control.should_save = True

    def on_save(self, args, state, control, **_):
        vouch(Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE, self.memory)
        self.saved = time.monotonic()


def begin(out: Path, memory: dict) -> str | None:
    """The checkpoint to go on from, if a killed process left one in `out`, with its `memory`; else a clean `out`.

    Where rows were dropped, training began again without them and its checkpoints know nothing of that: it is
    repeated from the start. So is what several processes train together.
    """
    found = [path.parent for path in folder(out).glob(f"checkpoint-*/{WHOLE}")]
    if not found or (out / "dropped.jsonl").exists() or ranks.world_size() > 1:
        forget(out)
        (out / "dropped.jsonl").unlink(missing_ok=True)
        return None
    last = max(found, key=lambda path: int(path.name.split("-")[1]))
    memory.update(json.loads((last / WHOLE).read_text()))
    return str(last)


def forget(out: Path) -> None:
    shutil.rmtree(folder(out), ignore_errors=True)


def folder(out: Path) -> Path:
    return out / "trainer"
