"""Training that goes on where a killed process stopped, to the same numbers.

It does so through Trainer's own checkpoints.
"""

import json
import shutil
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rose import ranks
from rose.stages.disk import vouch

EVERY = 300.0  # seconds between checkpoints; what is shorter never makes one
WHOLE = "memory.json"  # written last, when the rest is on the disk: a checkpoint without it was torn


class Remembering(TrainerCallback):
    """A callback whose `memory`, in JSON, is saved with the training, and there when it goes on."""

    def __init__(self) -> None:
        self.memory: dict[str, Any] = {}


class Save(TrainerCallback):
    """Has Trainer save itself every EVERY seconds, with the `memory` of another callback."""

    def __init__(self, memory: dict[str, Any]) -> None:
        self.memory, self.saved = memory, time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        assert state.epoch is not None
        if not state.epoch.is_integer():  # else callbacks are yet to be told that the epoch has ended
            self.on_epoch_end(args, state, control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if ranks.world_size() == 1 and time.monotonic() - self.saved >= EVERY:
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
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
        forget(out)
        (out / "dropped.jsonl").unlink(missing_ok=True)
        return None
    last = max(saved, key=lambda path: int(path.name.split("-")[1]))
    memory.update(json.loads((last / WHOLE).read_text()))
    return str(last)


def forget(out: Path) -> None:
    shutil.rmtree(folder(out), ignore_errors=True)


def folder(out: Path) -> Path:
    return out / "trainer"
