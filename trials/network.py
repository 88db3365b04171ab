"""A torch module as a function of its parameters and buffers, with a tap at every hidden nonlinearity."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import activation

from trials.errors import UserError
from trials.gradient import transforming
from trials.memory import Memory, hooks_of
from trials.modes import evaluation, switches
from trials.optimizers.base import Params
from trials.references import references, views

Tap = Callable[[Tensor, int], Tensor]  # (output of a nonlinearity, its number in the forward pass) -> what goes on
NONLINEARITIES = tuple(
    getattr(activation, name) for name in activation.__all__ if name not in ("MultiheadAttention", "Softmax2d"))


@dataclass(frozen=True)
class Site:
    """A hidden nonlinearity in one forward pass: its name in the module (``act1``; ``act1#2`` when the pass reaches it
    a second time), and copies of its input and its output, (B, ...) each."""

    name: str
    input_B: Tensor
    output_B: Tensor


class Network:
    """``network(params, buffers, x)`` is the module's output with these tensors in it.

    ``params`` are the parameters that are trained. ``buffers`` are all other tensors of the module: its buffers, and
    its frozen parameters (``requires_grad=False``), which the optimizer and the knobs never see. Both stay outside of
    the module, which so keeps no state of a trial, and a pack can stack them.

    In training mode what the forward pass does to a buffer happens to ``buffers``: in place, or as a new tensor of the
    same name. In evaluation mode they stay as they are.

    Where Python holds a tensor of the module beside the module's tables (a list of weights, a closure), there too, if
    the module is ``of_user``: ours are known to do nothing of the kind.

    ``backward_reads``: its backward pass reads the tensors that are in the module then, to compute parts of the forward
    pass again, say. ``differentiating`` holds them in it.

    A parameter's Python attributes and hooks are the user's too: the tensors in its place have its attributes for the
    pass, and are instances of ``nn.Parameter``; ``hooked`` gives gradients as its hooks make them.

    ``tap`` sees, and may change, the output of each hidden nonlinearity in the order in which the forward pass reaches
    it: a nonlinearity is a module of ``torch.nn``'s activation classes.
    """

    def __init__(self, module: nn.Module, of_user: bool = False) -> None:
        self.module, self.backward_reads, self._of_user = module, False, of_user
        self._places = list(_places(module))
        tensors = {name: table[key] for table, key, name in self._places}
        self._others = references(tensors, {id(table) for table, _, _ in self._places}) if of_user else []
        self._parameters = [name for name, value in tensors.items() if of_user and isinstance(value, nn.Parameter)]
        self._tables = [(child._parameters, {*child._parameters}) for child in module.modules()] if of_user else []
        self._switches, self._evaluating = switches(module), False
        self._until: ExitStack | None = None
        self.memory = Memory(module, {name for _, _, name in self._places})
        for path, name in views(tensors, self.memory.built.objects):
            raise UserError(f"trial.model: {path} lies in the memory of {name}, and what training does to that does "
                            f"not reach it here; make it of {name} in forward")
        self._hooks = {name: hooks for table, key, name in self._places if (hooks := hooks_of(table[key]))}
        self._tap: Tap | None = None
        self._reached = 0
        self._sites = {name: child for name, child in module.named_modules() if isinstance(child, NONLINEARITIES)}
        self.has_nonlinearities = bool(self._sites)
        for site in self._sites.values():
            site.register_forward_hook(self._on_output)

    def __call__(self, params: Params, buffers: Params, x: Tensor, tap: Tap | None = None) -> Tensor:
        if self._evaluating or not self.module.training:
            buffers = {name: value.clone() for name, value in buffers.items()}
        if self._evaluating:
            params = {name: value.clone() for name, value in params.items()}
        if self._of_user and not torch.is_grad_enabled() and not transforming():  # what is trained says so, as ever
            params = {name: value.detach().requires_grad_() for name, value in params.items()}
        self._tap, self._reached = tap, 0
        try:
            with ExitStack() as own:
                module = (self._until or own).enter_context(self.holding(params, buffers))
                if self._evaluating:
                    (self._until or own).enter_context(evaluation(module))
                # A copy: the first operation may work in place, and x be part of the data set, or be used again.
                trained = {name for name, value in params.items() if value.requires_grad} if self._of_user else set()
                output: Tensor = module(x.clone())
                if self._of_user:
                    self._check_parameters(params, trained)
        finally:
            self._tap = None
        return output

    def _check_parameters(self, params: Params, trained: set[str]) -> None:
        """Raise UserError where a pass has changed which tensors are parameters, or which of them are trained."""
        for table, key, name in self._places:
            if name in params and table[key] is not params[name]:
                raise UserError(f"trial.model: forward puts another tensor in the place of parameter {name}, which an "
                                "optimizer does not follow; change it in place, under torch.no_grad()")
            if name in params and params[name].requires_grad != (name in trained):
                raise UserError(f"trial.model: forward changes requires_grad of {name}; what is trained is settled "
                                "when the model is built: to hold it still for some steps, use its .detach() in these")

    @contextmanager
    def differentiating(self) -> Iterator[None]:
        """For passes and their gradients: the tensors of a pass stay in the module until the end, for what the backward
        pass computes again (``torch.utils.checkpoint``)."""
        with ExitStack() as self._until:
            try:
                yield
            finally:
                self._until = None

    @contextmanager
    def holding(self, params: Params, buffers: Params) -> Iterator[nn.Module]:
        """The module with these tensors in place of its own; ``buffers`` then has what it made of them."""
        given = {**params, **buffers}
        own = [table[key] for table, key, _ in self._places]
        others = [container[key] for container, key, _ in self._others]
        for (table, key, name), before in zip(self._places, own, strict=True):
            table[key] = given[name]
            vars(given[name]).update(vars(before))
        for name in self._parameters:
            vars(given[name])["_is_param"] = True  # which isinstance(..., nn.Parameter) asks for
        for container, key, name in self._others:
            container[key] = given[name]
        try:
            yield self.module
        finally:
            for (container, key, name), before in zip(self._others, others, strict=True):
                with suppress(LookupError):  # the pass has changed the container
                    container[key] = before if container[key] is given[name] else container[key]
            for (table, key, name), before in zip(self._places, own, strict=True):
                held = vars(given[name])
                held.pop("_is_param", None)
                if held or vars(before):
                    vars(before).clear()
                    vars(before).update(held)
                if name in buffers:
                    buffers[name] = table[key]
                table[key] = before
            for value in given.values():
                vars(value).clear()
            for parameters, keys in self._tables:  # that the pass has given a second name (self.w = self.first.weight)
                for key in parameters.keys() - keys:
                    del parameters[key]

    def strangers(self) -> list[str]:
        """The names of parameters that the module had not when it was built."""
        known = {id(table[key]) for table, key, _ in self._places}
        return [name for name, value in self.module.named_parameters() if id(value) not in known]

    def hooked(self, grads: Params) -> Params:
        """The gradients of the trained parameters as the hooks on these make them (``Tensor.register_hook``)."""
        if not self._hooks:
            return grads
        made = dict(grads)
        with torch.no_grad():
            for name in self._hooks.keys() & grads.keys():
                for hook in self._hooks[name]:
                    changed = hook(made[name])
                    made[name] = made[name] if changed is None else changed
        return made

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """The module in evaluation mode (running statistics, no dropout of its own); afterwards it is as it was before,
        each of its parts in its mode, and with what it remembers."""
        with self.forgetting():
            if not self._switches:
                with evaluation(self.module):
                    yield
                return
            before, self._evaluating = self._evaluating, True  # in each pass, for what it does to the weights
            try:
                yield
            finally:
                self._evaluating = before

    @contextmanager
    def forgetting(self) -> Iterator[None]:
        """The module, which afterwards remembers what it did before."""
        remembered = self.memory.now()
        try:
            yield
        finally:
            self.memory.put_back(remembered)

    @torch.no_grad()
    def record(self, params: Params, buffers: Params, x: Tensor) -> tuple[Tensor, list[Site]]:
        """The output in evaluation mode, and every hidden nonlinearity in the order in which the pass reaches it."""
        inputs: list[Tensor] = []
        found: list[Site] = []
        hooks = []
        for name, site in self._sites.items():
            def before(module: nn.Module, args: tuple[Tensor, ...]) -> None:
                inputs.append(args[0].clone())  # before the call: a nonlinearity may work in place

            def after(module: nn.Module, args: Any, output: Tensor, name: str = name or type(site).__name__) -> None:
                times = 1 + sum(site.name.partition("#")[0] == name for site in found)
                found.append(Site(name if times == 1 else f"{name}#{times}", inputs.pop(), output.clone()))
            hooks += [site.register_forward_pre_hook(before), site.register_forward_hook(after)]
        try:
            with self.evaluating():
                output = self(params, buffers, x)
        finally:
            for hook in hooks:
                hook.remove()
        return output, found

    def _on_output(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        if self._tap is None:
            return None
        site, self._reached = self._reached, self._reached + 1
        return self._tap(output, site)


def tensors(module: nn.Module) -> tuple[Params, Params]:
    """Copies of the module's own parameters that are trained, and of its buffers and frozen parameters, by name."""
    named = {name: value.detach().clone() for name, value in (*module.named_parameters(), *module.named_buffers())}
    trained = {name for name, value in module.named_parameters() if value.requires_grad}
    return ({name: value for name, value in named.items() if name in trained},
            {name: value for name, value in named.items() if name not in trained})


def _places(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Where each tensor of the module is kept, by the first of its names: one that is tied has several places."""
    names: dict[int, str] = {}
    for prefix, child in module.named_modules():
        for table in (child._parameters, child._buffers):
            for key, value in table.items():
                if value is not None:
                    yield table, key, names.setdefault(id(value), f"{prefix}.{key}" if prefix else key)
