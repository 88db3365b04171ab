"""A list of torch operations on tensors, and the Python function that replays it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

# Batch normalization: arguments 3 and 4 are the running mean and variance.
_STATISTICS = (torch.ops.aten.native_batch_norm.default, torch.ops.aten.cudnn_batch_norm.default,
               torch.ops.aten.miopen_batch_norm.default)


@dataclass(frozen=True)
class Value:
    """A tensor of a recording: its number, what it looked like, and the number of the first tensor in its memory."""

    number: int
    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    memory: int


@dataclass(frozen=True)
class Call:
    """One operation; in ``args`` and ``kwargs`` Values stand for tensors. ``out`` is what it returned."""

    op: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any

    @property
    def reads(self) -> list[Value]:
        """The values it is given."""
        return values((self.args, self.kwargs))

    @property
    def writes(self) -> list[Value]:
        """Those of them that it changes in place."""
        if self.op in _STATISTICS:  # whose schema does not say so
            return values(self.args[3:5])
        named = [*zip(self.op._schema.arguments, self.args, strict=False),
                 *((argument, self.kwargs[argument.name]) for argument in self.op._schema.arguments
                   if argument.name in self.kwargs)]
        return values([value for argument, value in named
                        if argument.alias_info is not None and argument.alias_info.is_write])

    @property
    def is_view(self) -> bool:
        """Whether the result is another look at the memory of what it is given."""
        memory = {value.memory for value in self.reads}
        return not self.writes and any(value.memory in memory for value in values(self.out))


@dataclass(frozen=True)
class Recording:
    """``calls`` from ``inputs`` to ``outputs``; ``constants`` are tensors from elsewhere, by number."""

    inputs: list[Value]
    calls: list[Call]
    outputs: list[Value]
    constants: dict[int, Tensor]

    def bind(self, fixed: Sequence[Tensor]) -> Callable[..., list[Tensor]]:
        """The function of the other inputs, those after ``fixed``, which may be changed in place between replays by
        this recording only."""
        changed = self.changed()
        names = {value.number: tensor for value, tensor in zip(self.inputs, fixed, strict=False)} | self.constants
        known, once, each = set(names), [], []
        for call in self.calls:
            still = all(value.number in known and (call.is_view or value.memory not in changed)
                        for value in call.reads)
            new = not call.is_view and any(value.memory in changed for value in values(call.out))
            if still and not (new or call.writes or torch.Tag.nondeterministic_seeded in call.op.tags):
                once.append(call)
                known |= {value.number for value in values(call.out)}
            else:
                each.append(call)
        kept = values([call.out for call in once])
        before = _compile([], once, kept, names)
        names |= {value.number: tensor for value, tensor in zip(kept, before(), strict=True)}
        return _compile(self.inputs[len(fixed):], each, self.outputs, names)

    def changed(self) -> set[int]:
        """The memory that is changed in place."""
        return {value.memory for call in self.calls for value in call.writes}


def _compile(inputs: Sequence[Value], calls: Sequence[Call], outputs: Sequence[Value], known: dict[int, Tensor],
             ) -> Callable[..., list[Tensor]]:
    """Python code that makes the calls; what is no longer needed is let go at once."""
    last = {value.number: place for place, call in enumerate(calls) for value in (*call.reads, *values(call.out))}
    kept = {value.number for value in outputs} | set(known)
    space: dict[str, Any] = {f"v{number}": tensor for number, tensor in known.items()}
    lines = [f"def replay({', '.join(f'v{value.number}' for value in inputs)}):"]
    for place, call in enumerate(calls):
        space[f"op{place}"] = call.op
        arguments = [_text(each, space) for each in call.args]
        arguments += [f"{name}={_text(each, space)}" for name, each in call.kwargs.items()]
        # An operation in place returns what it was given: that has its name already, maybe outside of the function.
        out = "_" if set(values(call.out)) <= set(call.writes) else _text(call.out, space)
        lines.append(f"    {out} = op{place}({', '.join(arguments)})")
        gone = [n for n in {value.number for value in (*call.reads, *values(call.out))}
                if last[n] == place and n not in kept]
        if gone:
            lines.append(f"    del {', '.join(f'v{number}' for number in gone)}")
    lines.append(f"    return [{', '.join(f'v{value.number}' for value in outputs)}]")
    exec("\n".join(lines), space)  # of numbered names alone
    replay: Callable[..., list[Tensor]] = space["replay"]
    return replay


def _text(value: Any, space: dict[str, Any]) -> str:
    if isinstance(value, Value):
        return f"v{value.number}"
    if isinstance(value, (list, tuple)):
        inside = ", ".join(_text(each, space) for each in value)
        return f"[{inside}]" if isinstance(value, list) else f"({inside},)"
    space[f"c{len(space)}"] = value
    return f"c{len(space) - 1}"


def values(tree: Any) -> list[Value]:
    """The Values in nested lists, tuples and mappings."""
    return [leaf for leaf in pytree.tree_leaves(tree, is_leaf=lambda each: isinstance(each, Value))
            if isinstance(leaf, Value)]
