"""Training that was killed goes on, by Trainer's own checkpoints, to the same numbers."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl

from rose import ranks
from rose.stages.disk import vouch

EVERY = 300.0  # seconds between checkpoints; what is shorter never makes one
WHOLE = "memory.json"  # written last, when the rest is on disk: without it a checkpoint was torn


class Save(TrainerCallback):
    """Has Trainer save itself every EVERY seconds, with `memory`, what it must know besides."""

    def __init__(self) -> None:
        self.memory: dict[str, Any] = {}
        self.saved = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs: Any) -> None:
        if not float(state.epoch or 0).is_integer():  # else the end of the epoch is yet to be told
            self.save_when_due(control)

    def on_epoch_end(self, args, state, control, **kwargs: Any) -> None:
        self.save_when_due(control)

    def save_when_due(self, control: TrainerControl) -> None:
        if ranks.world_size() == 1 and time.monotonic() - self.saved >= EVERY:
            control.should_save = True

    def on_save(self, args, state, control, **kwargs: Any) -> None:
        vouch(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / WHOLE, self.memory)
        self.saved = time.monotonic()


def begin(out: Path, memory: dict[str, Any]) -> str | None:
    """The checkpoint to go on from, if a killed process left one in `out`; else cleans `out`.

    What was remembered with it goes into `memory`. Where rows were dropped, training began again
    without them and its checkpoints know nothing of that: it is repeated from the start. So is what
    several processes train together.
    """
    saved = [path.parent for path in folder(out).glob(f"checkpoint-*/{WHOLE}")]
    if not saved or (out / "dropped.jsonl").exists() or ranks.world_size() > 1:
        ranks.alone(lambda: _clean(out))  # another process may be making the folder anew already
        return None
    last = max(saved, key=lambda path: int(path.name.split("-")[1]))
    memory.update(json.loads((last / WHOLE).read_text()))
    return str(last)


def _clean(out: Path) -> None:
    forget(out)
    (out / "dropped.jsonl").unlink(missing_ok=True)


def forget(out: Path) -> None:
    shutil.rmtree(folder(out), ignore_errors=True)


def folder(out: Path) -> Path:
    return out / "trainer"
