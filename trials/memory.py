"""What a model remembers in Python: attributes of its modules, of their classes, and global names beside these.

Parameters and buffers stay outside of a module (trials/network.py). Whatever else its forward pass changes (a counter,
a temperature, a list, a tensor that is no buffer) stays in it, and is read, compared and put back here: all that can be
reached from its modules, the user's files and their classes, by attributes, items, closures and hooks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from types import FunctionType, MethodType
from typing import Any

from torch import Tensor, nn

from trials import shared
from trials.made import Making, can_make
from trials.shared import GONE, Table
from trials.told import Telling, is_users, same

Values = dict[str, Any]  # by name: ``fc1.calls`` of a module, ``Net.calls`` of a class, ``zoo.CALLS`` of a file

_NOT_STATE = {*nn.Module().__dict__, "_flat_weights", "_flat_weight_refs"} - {"training"}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass
class Remembered:
    """At one moment: ``values`` as plain data (trials/told.py), and the ``objects`` they were told of, by path."""

    values: Values = field(default_factory=dict)
    objects: dict[str, Any] = field(default_factory=dict)


class Memory:
    """Of ``module``, whose tensors are called ``tensors``. Nothing where all of its classes are torch's or ours, and no
    function in it is a user's: these change nothing. ``built`` is what it remembered when this was made."""

    def __init__(self, module: nn.Module, tensors: set[str]) -> None:
        children = list(module.modules())
        classes = {cls: None for child in children for cls in type(child).__mro__ if is_users(cls.__module__)}
        self._module, self._tensors, self._classes = module, tensors, list(classes)
        self._looks = bool(classes) or any(
            _is_users_call(value) for child in children
            for value in (*vars(child).values(), *_hooks(child)))
        if self._looks:
            shared.keep_first(self._classes)
        self.built = self.now()

    def now(self) -> Remembered:
        """Everything, by name."""
        found = Remembered()
        if self._looks:
            telling = Telling(self._known())
            found.values = {prefix + key: telling.tell(value, prefix + key)
                            for prefix, table in self._own() for key, value in table.items()}
            found.objects = telling.objects
            for prefix, owner in shared.owners(self._classes).items():
                values, objects = shared.read(owner, prefix)
                found.values.update(values)
                found.objects.update(objects)
        return found

    def changed(self, before: Remembered) -> list[str]:
        """The names of what is otherwise now, or may be."""
        return _differing(before.values, self.now().values)

    def differs(self, other: Memory) -> list[str]:
        """The names of what was otherwise when ``other`` was made."""
        return _differing(self.built.values, other.built.values, unseen=True)

    def since(self, before: Remembered) -> Values | None:
        """What is otherwise now; None where it is more than can be told by plain data."""
        now = self.now().values
        changes = {name: now.get(name, GONE) for name in _differing(before.values, now)}
        told = all(value == GONE or can_make(value, name, before.objects) for name, value in changes.items())
        return changes if told else None

    def put(self, values: Values) -> None:
        """Make these as they are given; other names stay."""
        if values:
            self._put(values, self.now().objects)

    def put_back(self, before: Remembered) -> None:
        """Everything as it was ``before``."""
        if changed := self.changed(before) if self._looks else []:
            self._put({name: before.values.get(name, GONE) for name in changed}, before.objects)

    def _put(self, values: Values, objects: Mapping[str, Any]) -> None:
        making, tables = Making(objects), dict[str, list[MutableMapping[str, Any]]]()
        for prefix, table in [*self._own(), *((name, shared.table(owner)) for name, owner in
                                              shared.owners(self._classes).items())]:
            tables.setdefault(prefix, []).append(table)
        for name, told in values.items():
            key = name.rpartition(".")[2]
            there = tables.get(name[: len(name) - len(key)], [])
            for table in [table for table in there if key in table] or there[:1]:
                if told == GONE:
                    table.pop(key, None)
                else:
                    table[key] = making.make(told, name)

    def _known(self) -> set[int]:
        """What a network keeps outside of the module, and the modules in it, each of which is read by itself."""
        held = [value for prefix, child in self._module.named_modules() for key, value in
                (*child._parameters.items(), *child._buffers.items())
                if (f"{prefix}.{key}" if prefix else key) in self._tensors]
        return {id(each) for each in (*self._module.modules(), *held)}

    def _own(self) -> Iterator[tuple[str, MutableMapping[str, Any]]]:
        for prefix, child in self._module.named_modules():
            prefix = f"{prefix}." if prefix else ""
            made = {getattr(hook, "name", getattr(hook, "_tensor_name", None))  # by torch's hooks at each pass
                    for hook in child._forward_pre_hooks.values() if not is_users(type(hook).__module__)}
            yield prefix, Table(vars(child), _NOT_STATE | made)
            yield prefix, Table(child._buffers, {key for key in child._buffers if prefix + key in self._tensors})
            for key, value in child._parameters.items():
                if value is not None and vars(value):  # what a user's code holds beside the numbers
                    yield f"{prefix}{key}.", Table(vars(value))
            yield prefix, _Hooks({f"a hook {place}": hook for place, hook in enumerate(
                hook for hook in _hooks(child) if _is_users_call(hook))})


class _Hooks(Table):
    """Hooks of a module. What they hold is changed in place, and they themselves stay."""

    def __setitem__(self, key: str, value: Any) -> None:
        pass

    def __delitem__(self, key: str) -> None:
        pass


def hooks_of(tensor: Tensor | None) -> list[Callable[[Tensor], Tensor | None]]:
    """What a user has registered on it (``Tensor.register_hook``), in order: functions of its gradient."""
    return list((getattr(tensor, "_backward_hooks", None) or {}).values())


def _hooks(child: nn.Module) -> Iterator[Any]:
    """All hooks of a module and of its own parameters."""
    for key in _HOOKS:
        yield from vars(child)[key].values()
    for parameter in child._parameters.values():
        yield from hooks_of(parameter)


def _differing(left: Values, right: Values, unseen: bool = False) -> list[str]:
    return [name for name in {**left, **right} if not same(left.get(name, GONE), right.get(name, GONE), unseen)]


def _is_users_call(value: Any) -> bool:
    while isinstance(value, (functools.partial, MethodType)):
        value = value.func if isinstance(value, functools.partial) else value.__func__
    return is_users(value.__module__ if isinstance(value, FunctionType) else type(value).__module__)
