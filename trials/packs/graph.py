"""A function of tensors, recorded once as a list of torch operations and replayed without Python's and autograd's work.

What vmap and grad do has come down to plain operations where they are recorded. What the function decides in Python is
decided then and there, so whoever records a function compares the replay with the function itself (lanes.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from trials.packs.recording import Call, Recording, Value
from trials.packs.simplify import simplified

aten = torch.ops.aten


def record(function: Callable[..., Any], example: Sequence[Tensor]) -> Recording:
    """What ``function`` does to tensors like ``example``, copies of which it is tried on.

    Raises whatever the function raises (where it looks at values under vmap, for one).
    """
    copies = [tensor.detach().clone() for tensor in example]
    with _Recorder(copies) as recorder:
        outputs = function(*copies)
    given = [recorder.value(tensor) for tensor in outputs]
    return simplified(Recording(recorder.inputs, recorder.calls, given, recorder.constants))


class _Recorder(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing here is compiled; to say so to the compiler, torch would import it, which takes a second."""
        return False

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []
        self.constants: dict[int, Tensor] = {}
        self._seen: dict[int, Value] = {}
        self._memory: dict[int, int] = {}
        self._held: list[Tensor] = []  # so that no other tensor gets the identity of one that is gone
        self.inputs = [self.value(tensor) for tensor in inputs]
        self.constants.clear()

    def value(self, tensor: Tensor) -> Value:
        """The Value of a tensor; one not seen before is a constant, until it turns out to be a result."""
        number = len(self._held)
        memory = self._memory.setdefault(tensor.untyped_storage()._cdata, number)
        new = Value(number, tensor.shape, tensor.stride(), tensor.dtype, memory)
        value = self._seen.setdefault(id(tensor), new)
        if value is new:
            self._held.append(tensor)
            self.constants[number] = tensor
        elif value != replace(new, number=value.number):
            raise NotImplementedError("a tensor whose shape or memory is changed in place")
        return value

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if op is aten.lift_fresh.default:  # a number made a tensor: new at every replay, for it may be changed
            op = aten.clone.default
        given = pytree.tree_map_only(Tensor, self.value, (args, kwargs))
        before = len(self._held)
        result = op(*args, **kwargs)
        out = pytree.tree_map_only(Tensor, self.value, result)
        for number in range(before, len(self._held)):
            del self.constants[number]
        self.calls.append(Call(op, given[0], given[1], out))
        return result
