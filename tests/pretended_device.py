"""A GPU for tests on machines without one: tensors that were moved there know it, and meet no others."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

MOVES = ("to", "cpu", "copy_", "__setitem__", "__set__")  # what two devices may both have a part in


class PretendedGpu(TorchFunctionMode):
    """Inside, "cuda" is the CPU under another name: the arithmetic is the same, only mixtures are errors."""

    def __init__(self, moved: list[torch.Size]) -> None:
        super().__init__()
        self.moved = moved  # shapes of what was brought there

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        tensors = [each for each in _flat((args, kwargs)) if isinstance(each, torch.Tensor)]
        there = [_is_there(each) for each in tensors if each.dim() or _is_there(each)]
        if func == torch.Tensor.device.__get__:  # pyright: ignore[reportAttributeAccessIssue]
            return torch.device("cuda" if there and there[0] else "cpu")
        if name not in MOVES and any(there) and not all(there):
            raise RuntimeError(f"{name}: expected all tensors to be on the same device")
        goes = any(there) and name not in ("copy_", "__setitem__")
        if name == "to" and (place := kwargs.get("device", args[1])) is not None and _names_a_device(place):
            goes, args = _type(place) == "cuda", (args[0], "cpu", *args[2:])
            args = (args[0].clone(), *args[1:])  # a move is a copy
            if goes:
                self.moved.append(args[0].shape)
        elif name == "cpu":
            goes, args = False, (args[0].clone(),)
        elif (place := kwargs.get("device")) is not None:
            goes, kwargs["device"] = _type(place) == "cuda", "cpu"
        result = func(*args, **kwargs)
        for each in _flat(result):
            if isinstance(each, torch.Tensor) and goes:
                each.is_there = True  # pyright: ignore[reportAttributeAccessIssue]
        return result


def _flat(values: Any) -> list[Any]:
    values = list(values.values()) if isinstance(values, dict) else values
    return [leaf for each in values for leaf in _flat(each)] if isinstance(values, (tuple, list)) else [values]


def _is_there(tensor: torch.Tensor) -> bool:
    return getattr(tensor, "is_there", False)


def _names_a_device(value: Any) -> bool:
    return isinstance(value, torch.device) or value in ("cpu", "cuda")


def _type(place: Any) -> str:
    return torch.device(place).type
