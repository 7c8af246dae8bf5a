"""A GPU for tests on machines without one: tensors that were moved there know it, and meet no others."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

# what two devices may both have a part in
MOVES = ("to", "cpu", "copy_", "__setitem__", "__set__", "_has_compatible_shallow_copy_type")
# what the CPU knows only when the GPU is idle
READS = ("item", "tolist", "numpy", "nonzero", "masked_select", "__bool__", "__int__", "__float__", "__index__")


class PretendedGpu(TorchFunctionMode):
    """Inside, "cuda" is the CPU under another name: the arithmetic is the same, only mixtures are errors.

    Autograd makes tensors of its own, so that within a backward pass any may meet.
    """

    def __init__(self, moved: list[torch.Size], waited: list[str] | None = None) -> None:
        super().__init__()
        self.moved = moved  # shapes of what was brought there
        self.waited = waited if waited is not None else []  # functions that a GPU would have been waited for

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        tensors = [each for each in _flat((args, kwargs)) if isinstance(each, torch.Tensor)]
        there = [_is_there(each) for each in tensors if each.dim() or _is_there(each)]
        if func == torch.Tensor.device.__get__:  # pyright: ignore[reportAttributeAccessIssue]
            return torch.device("cuda") if there and there[0] else func(*args)
        if name not in MOVES and any(there) and not all(there) and torch._C._current_graph_task_id() == -1:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device")
        goes, place = any(there) and name not in ("copy_", "__setitem__"), _named(args, kwargs, name)
        was, to = goes, place is not None and torch.device(place).type == "cuda"
        if name in ("to", "cpu") and (place is not None or name == "cpu"):
            goes, args = to, (args[0].clone(), *args[1:])  # a move is a copy
            if goes and not was:
                self.moved.append(args[0].shape)
        elif place is not None:
            goes = to
        if was and (name in READS or (name in ("to", "cpu") and not goes) or _picks(name, args)):
            self.waited.append(name)
        if to:  # "meta" stays what it is
            args, kwargs = _on_the_cpu(args, kwargs, name)
        result = func(*args, **kwargs)
        changed = [args[0]] if name == "__set__" else _flat(result)  # a module's weights are given other data
        for each in changed:
            if isinstance(each, torch.Tensor) and (goes or name == "__set__"):
                each.is_there = goes  # pyright: ignore[reportAttributeAccessIssue]
        return result


def _flat(values: Any) -> list[Any]:
    values = list(values.values()) if isinstance(values, dict) else values
    return [leaf for each in values for leaf in _flat(each)] if isinstance(values, (tuple, list)) else [values]


def _is_there(tensor: torch.Tensor) -> bool:
    return getattr(tensor, "is_there", False)


def _named(args: Any, kwargs: dict[str, Any], name: str) -> Any:
    """The device that a call names, if it does."""
    return kwargs.get("device", args[1] if name == "to" and len(args) > 1 and _names_a_device(args[1]) else None)


def _on_the_cpu(args: Any, kwargs: dict[str, Any], name: str) -> tuple[Any, dict[str, Any]]:
    if "device" in kwargs:
        return args, kwargs | {"device": "cpu"}
    return ((args[0], "cpu", *args[2:]) if name == "to" else args), kwargs


def _names_a_device(value: Any) -> bool:
    return isinstance(value, torch.device) or (isinstance(value, str) and value.partition(":")[0] in ("cpu", "cuda"))


def _picks(name: str, args: Any) -> bool:
    """Whether it is taken from a tensor by truth, of which there may be any number."""
    taken = _flat(args[1:2]) if name == "__getitem__" else []
    return any(isinstance(each, torch.Tensor) and each.dtype == torch.bool for each in taken)
