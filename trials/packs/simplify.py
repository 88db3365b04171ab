"""Leave out of a recording what does nothing, and let one operation do the work of two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.utils import _pytree as pytree

from trials.packs.recording import Call, Recording, Value, values

aten = torch.ops.aten
_REPEATS = (aten.view.default, aten.expand.default, aten._unsafe_view.default, aten.detach.default,
            aten.alias.default)


def simplified(recording: Recording) -> Recording:
    """The same with fewer operations; results differ by rounding alone."""
    for rule in (_leave_out_repetitions, _leave_out_unused, _scale_and_add, _fuse, _make_once, _leave_out_unused):
        recording = replace(recording, calls=rule(recording))
    return recording


def _leave_out_repetitions(recording: Recording) -> list[Call]:
    """Views that are no other view than their source, copies of it where neither is changed, and transposes turned
    back."""
    changed = recording.changed()
    same: dict[int, Value] = {}
    turned: dict[int, tuple[Value, set[int]]] = {}
    kept = []

    def current(value: Any) -> Any:
        return same.get(value.number, value) if isinstance(value, Value) else value

    for call in recording.calls:
        call = Call(call.op, *_map(current, (call.args, call.kwargs, call.out)))
        source = call.args[0] if call.args else None
        if isinstance(source, Value) and isinstance(call.out, Value) and call.out.number != source.number:
            out = call.out
            looks_the_same = (out.shape, out.stride, out.dtype) == (source.shape, source.stride, source.dtype)
            copied = call.op is aten.clone.default and not {source.memory, out.memory} & changed
            if looks_the_same and (call.op in _REPEATS or copied):
                same[out.number] = source
                continue
            if call.op is aten.transpose.int:
                dims = {dim % max(1, len(out.shape)) for dim in call.args[1:]}
                before = turned.get(source.number)
                if before is not None and before[1] == dims:
                    same[out.number] = before[0]
                    continue
                turned[out.number] = (source, dims)
        kept.append(call)
    recording.outputs[:] = [current(value) for value in recording.outputs]
    return kept


def _make_once(recording: Recording) -> list[Call]:
    """What has been made already from the same tensors, unchanged since: such as lr in single precision, for each
    parameter."""
    changed = recording.changed()
    same: dict[int, Value] = {}
    made: dict[str, Value] = {}
    kept = []
    for call in recording.calls:
        call = Call(call.op, *_map(lambda value: same.get(value.number, value) if isinstance(value, Value) else value,
                                   (call.args, call.kwargs, call.out)))
        memory = {value.memory for value in (*call.reads, *values(call.out))}
        random = torch.Tag.nondeterministic_seeded in call.op.tags
        if isinstance(call.out, Value) and not memory & changed and not random:
            what = f"{call.op} {call.args} {call.kwargs}"
            if what in made:
                same[call.out.number] = made[what]
                continue
            made[what] = call.out
        kept.append(call)
    recording.outputs[:] = [same.get(value.number, value) for value in recording.outputs]
    return kept


def _scale_and_add(recording: Recording) -> list[Call]:
    """What is scaled by a number in place and next added to, is so in one call."""
    calls = list(recording.calls)
    for place in range(len(calls) - 1):
        first, then = calls[place], calls[place + 1]
        if (first.op is aten.mul_.Tensor and then.op is aten.add_.Tensor and not then.kwargs
                and isinstance(first.args[1], float) and first.args[0] == then.args[0]
                and isinstance(then.args[1], Value) and then.args[1].memory != then.args[0].memory
                and (then.args[1].shape, then.args[1].dtype) == (then.args[0].shape, then.args[0].dtype)):
            calls[place + 1] = Call(aten.add.out, (then.args[1], then.args[0]),
                                    {"alpha": first.args[1], "out": then.args[0]}, then.out)
            calls[place] = None  # type: ignore[call-overload]
    return [call for call in calls if call is not None]


def _fuse(recording: Recording) -> list[Call]:
    """A matrix product and a sum are one call, and so are a product and a sum: of large weights a step is as fast as it
    passes over them."""
    uses = Counter(value.number for call in recording.calls for value in call.reads)
    uses.update(value.number for value in recording.outputs)
    made = {call.out.number: (place, call) for place, call in enumerate(recording.calls)
            if isinstance(call.out, Value) and not call.writes}
    writes = [(place, value.memory) for place, call in enumerate(recording.calls) for value in call.writes]
    calls: list[Call | None] = list(recording.calls)
    for place, call in enumerate(recording.calls):
        fused = _fused(call, made, uses)
        if fused is None:
            continue
        product, better = fused
        began, first = made[product.number]
        between = recording.calls[began + 1 : place]
        # What the product is made of is read later now: it must be the same then, and be no other view of the result.
        changed = {memory for at, memory in writes if began < at < place}
        written = {value.memory: value for value in better.writes}
        if any(value.memory in changed or written.get(value.memory, value) != value for value in first.reads):
            continue
        if any(product in each.reads for each in between):
            continue
        calls[began], calls[place] = None, better
    return [call for call in calls if call is not None]


def _fused(call: Call, made: dict[int, tuple[int, Call]], uses: Counter[int]) -> tuple[Value, Call] | None:
    """For a sum with a product that nothing else uses: the product, and the call that does both. The result is to lie
    in memory as it did, for later views of it."""
    if len(call.args) != 2:
        return None
    left, right = call.args
    if call.op is aten.add.out:  # as _scale_and_add leaves it: the right one is scaled and added to in place
        _, source = made.get(left.number, (0, None))
        if source is None or source.op is not aten.bmm.default or uses[left.number] != 1:
            return None
        if any(factor.memory == right.memory for factor in source.args):  # of what it has just become
            return None
        return left, Call(aten.baddbmm_.default, (right, *source.args), {"beta": call.kwargs["alpha"]}, call.out)
    if call.kwargs or call.op not in (aten.add.Tensor, aten.add_.Tensor, aten.sub_.Tensor):
        return None
    if not (isinstance(left, Value) and isinstance(right, Value)) or left.dtype != right.dtype:
        return None
    if left.dtype == torch.bool:  # whose sum is another
        return None
    out: Value = call.out
    for product, other in ((right, left), (left, right)):
        _, source = made.get(product.number, (0, None))
        # The product is used here, and where a sum in place gives it a new meaning, under the same number, after.
        if source is None or (uses[product.number] != 1 and not (call.op is aten.add_.Tensor and product is left)):
            continue
        if (call.op is aten.add.Tensor and source.op is aten.bmm.default and len(other.shape) == 3
                and (out.shape, out.stride) == (product.shape, product.stride)):
            return product, Call(aten.baddbmm.default, (other, *source.args), {}, out)
        if source.op is not aten.mul.Tensor or not _of(source.args, left.dtype):
            continue
        if product is left and call.op is aten.add_.Tensor:  # of the product itself, which is a new tensor
            if (other.shape, other.stride) == (out.shape, out.stride) and other.number != product.number:
                return product, _sum(other, source.args, 1, out)
        elif product is right and call.op is not aten.add.Tensor:
            return product, _sum(left, source.args, -1 if call.op is aten.sub_.Tensor else 1, out, in_place=True)
        elif call.op is aten.add.Tensor and (other.shape, other.stride) == (out.shape, out.stride):
            return product, _sum(other, source.args, 1, out)
    return None


def _of(factors: Sequence[Any], dtype: torch.dtype) -> bool:
    """Whether these are two tensors of the type, or one and a number. What has no dimensions may be on another device,
    which a sum allows, but not all versions of addcmul do."""
    first, second = factors
    tensors = [each for each in factors if isinstance(each, Value)]
    return (all(each.dtype == dtype and len(each.shape) for each in tensors) and isinstance(first, Value)
            and (isinstance(second, Value) or (isinstance(second, float) and dtype.is_floating_point)))


def _sum(other: Value, factors: Sequence[Any], sign: int, out: Value, in_place: bool = False) -> Call:
    """``other`` and ``sign`` times the product of the two factors, in one call."""
    first, second = factors
    if isinstance(second, float):
        return Call(aten.add_.Tensor if in_place else aten.add.Tensor, (other, first), {"alpha": sign * second}, out)
    return Call(aten.addcmul_.default if in_place else aten.addcmul.default, (other, *factors), {"value": sign}, out)


def _leave_out_unused(recording: Recording) -> list[Call]:
    wanted = {value.number for value in recording.outputs}
    kept = []
    for call in reversed(recording.calls):
        if call.writes or any(value.number in wanted for value in values(call.out)):
            wanted |= {value.number for value in call.reads}
            kept.append(call)
    return kept[::-1]


def _map(function: Any, tree: Any) -> Any:
    return pytree.tree_map(function, tree, is_leaf=lambda each: isinstance(each, Value))
