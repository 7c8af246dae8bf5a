"""The warm-up's checkpoints, one after another in one loaded model."""

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TypedDict

from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
from transformers import PreTrainedModel

from rose.config.choices import Reference
from rose.errors import RoseError
from rose.gradients.adam import Moments
from rose.gradients.per_example import PerExample
from rose.models import loading


class Checkpoint(TypedDict):
    # in a warm-up's manifest.json
    dir: str
    epoch: int
    step: int
    learning_rate: float  # the mean of its epoch


def weight(warmup: Path, number: int) -> tuple[str, float]:
    """The name and mean learning rate of checkpoint `number`, from 1; where none has a rate, all have 1."""
    entries: list[Checkpoint] = json.loads((warmup / "manifest.json").read_text())["checkpoints"]
    moved = any(entry["learning_rate"] for entry in entries)
    return entries[number - 1]["dir"], entries[number - 1]["learning_rate"] if moved else 1.0


class Trajectory:
    """A `warmup` artifact: `model` carries one checkpoint's adapter at a time, at first the first's."""

    def __init__(self, model: PreTrainedModel, warmup: Path) -> None:
        manifest = json.loads((warmup / "manifest.json").read_text())
        self.warmup = warmup
        self.optimizer: dict[str, float] = manifest["optimizer"]
        self.entries: list[Checkpoint] = manifest["checkpoints"]
        self.names = [entry["dir"] for entry in self.entries]
        self.model: PeftModel = loading.load_adapter(model, warmup / self.names[0])

    def swap_in(self, index: int) -> None:
        """Gives the model the adapter weights of checkpoint `index` (−1: the last)."""
        weights = load_peft_weights(str(self.warmup / self.names[index]), device=str(self.model.device))
        result = set_peft_model_state_dict(self.model, weights)
        if result.unexpected_keys:
            raise RoseError(f"{self.warmup / self.names[index]}: weights {result.unexpected_keys[:2]} fit no layer")

    def moments(self, index: int, engine: PerExample) -> Moments:
        """Adam's moments at checkpoint `index`, in the engine's columns."""
        file = self.warmup / self.names[index] / "moments.safetensors"
        return Moments.load(file, engine.names, self.entries[index]["step"], self.optimizer, engine.device)

    def reference(self, kind: Reference) -> AbstractContextManager[None]:
        """A context in which the model is the reference: the base, or the last checkpoint."""
        if kind == Reference.base:
            return self.model.disable_adapter()
        self.swap_in(-1)  # nothing to restore: who wants a checkpoint's gradients swaps it in
        return nullcontext()
