"""Everything a trial needs before its first step."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from trials import generators, shared, usercode
from trials.batches import total_steps
from trials.checks import check_network
from trials.errors import UserError
from trials.guest import guest
from trials.knobs.base import Knob
from trials.memory import Memory
from trials.modes import evaluation
from trials.network import Network, tensors
from trials.optimizers.base import Optimizer, Params
from trials.packs.unfit import Unfit, plain
from trials.prehooks import lagging
from trials.schedules.base import Schedule
from trials.spec import TrialSpec, make
from trials.streams import Stream, torch_seeded
from trials.tasks import own
from trials.tasks.base import Data


@dataclass(frozen=True, eq=False)
class Trial:
    """A trial ready for its first step. ``initial`` and ``buffers`` are what it starts from (see ``Network``);
    ``streams`` those of the knobs; ``total`` the steps of its budget; ``epoch_steps`` those of an epoch, None where
    data are fresh. ``given`` (n,) are the classes that training samples have where a knob relabels them, None where
    none does."""

    spec: TrialSpec
    device: str
    data: Data
    network: Network
    initial: Params
    buffers: Params
    optimizer: Optimizer
    schedule: Schedule
    knobs: dict[str, Knob]
    streams: dict[str, Stream]
    total: int
    epoch_steps: float | None
    given: Tensor | None


def prepare(spec: TrialSpec, device: str, like: Trial | None = None) -> Trial:
    """Build a trial. ``like``, a trial with the same task and model, lends its data and its network, which is a
    function of its tensors and keeps none. Raises UserError, what user code raises, or, for a user's model that differs
    from ``like``'s in more than its tensors, Unfit."""
    if like is None:
        data = load_data(spec, device)
        network = build_network(spec, data)
        initial, buffers = tensors(network.module)
    else:
        data, network = like.data, like.network
        module = build_module(spec, data).to(data.x_train.device, data.dtype)
        initial, buffers = tensors(module)
        if usercode.is_usercode(spec.model["name"]):
            _check_same(network, initial, buffers, module, data, spec.batch_size)
    knobs = {name: make("knob", {"name": name, **params}) for name, params in spec.knobs.items()}
    for knob in knobs.values():
        initial = knob.initial(initial)
    train_size = None if data.fresh is not None else len(data.x_train)
    streams = {name: Stream.of(spec.seed, f"knob.{name}", device) for name in knobs}
    return Trial(spec, device, data, network, initial, buffers, make("optimizer", spec.optimizer),
                 make("schedule", spec.schedule), knobs,
                 streams, total_steps(spec, train_size),
                 None if train_size is None else train_size / spec.batch_size, _given(data, knobs, streams))


def _given(data: Data, knobs: Mapping[str, Knob], streams: Mapping[str, Stream]) -> Tensor | None:
    relabelling = [name for name, knob in knobs.items() if type(knob).relabel is not Knob.relabel]
    if not relabelling or data.classes is None or data.fresh is not None:
        return None
    given = data.y_train
    for name in relabelling:
        given = knobs[name].relabel(given, data.classes, streams[name])
    return given


@torch.no_grad()
def _check_same(network: Network, initial: Params, buffers: Params, module: torch.nn.Module, data: Data,
                batch_size: int) -> None:
    """The network of a pack is that of its first trial. What another trial's module holds beside its tensors must be as
    in that one, and what it gives too, in the mode of training and in that of evaluation."""
    if differs := network.memory.differs(Memory(module, {*initial, *buffers})):
        raise Unfit(f"{plain(differs)} of the model is another one at another seed, and is no parameter or buffer")
    drawn = generators.states()

    def same(ours: Tensor, x_B: Tensor) -> bool:
        generators.restore(drawn)
        return torch.allclose(ours, module(x_B.clone()), equal_nan=True)
    with network.evaluating(), evaluation(module):
        evaluated = same(network(initial, buffers, data.x_train[:2]), data.x_train[:2])
    x_B = data.x_train[:batch_size]
    generators.restore(drawn)
    with network.forgetting():
        trained = same(network(initial, {name: value.clone() for name, value in buffers.items()}, x_B), x_B)
    generators.restore(drawn)
    if not (evaluated and trained):
        raise Unfit("the model of another seed differs in more than its parameters and buffers")


def load_data(spec: TrialSpec, device: str = "cpu") -> Data:
    """The trial's data on ``device``, in its precision; kept for the next trial of the same task."""
    return _load_data(json.dumps(dict(spec.task), sort_keys=True), device, spec.precision, own.age())


@lru_cache(maxsize=4)
def _load_data(task: str, device: str, precision: str, age: int) -> Data:
    component = json.loads(task)
    data: Data = own.load(component) if usercode.is_usercode(component["name"]) else make("task", component).data()
    return data.to(device, getattr(torch, precision))


def build_module(spec: TrialSpec, data: Data) -> torch.nn.Module:
    """The trial's model on the CPU, initialized from its seed's ``init`` stream."""
    name, params = spec.model["name"], {key: value for key, value in spec.model.items() if key != "name"}
    if not usercode.is_usercode(name):
        with torch_seeded(spec.seed, "init"):
            built: torch.nn.Module = make("model", spec.model).build(data.input_shape, data.outputs)
            return built
    build = usercode.load(name, "trial.model.name")
    with guest(spec.seed, "init", whose=f"trial.model.name: {name}"):
        shared.begin()
        module = build(data.input_shape, data.outputs, **params)
        if not isinstance(module, torch.nn.Module):
            raise UserError(f"trial.model.name: {name} must return a torch.nn.Module, got {type(module).__name__}")
        if any(cls.__module__.startswith("torch.jit.") for child in module.modules() for cls in type(child).__mro__):
            raise UserError(f"trial.model.name: {name} gives a module of torch.jit, in which a trial's tensors cannot "
                            "stand in for its own; give the module that it was made of")
        if any(map(is_lazy, (*module.parameters(), *module.buffers()))):
            _materialize(module, data)
    _check_tensors(module)
    if not module.training:  # as every training loop begins; parts that are in evaluation mode by themselves stay so
        module.train()
    for child in module.modules():
        if type(child).train is not torch.nn.Module.train:  # its own says what stays as it is, such as batch norms
            child.train(child.training)
    return module


@torch.no_grad()
def _materialize(module: torch.nn.Module, data: Data) -> None:
    """Give lazy modules (nn.LazyLinear ...) their parameters, whose shapes and numbers come with the first input."""
    with evaluation(module):
        module(data.x_train[:2].to("cpu", torch.get_default_dtype(), copy=True))


def _check_tensors(module: torch.nn.Module) -> None:
    for what, named in (("parameter", module.named_parameters()), ("buffer", module.named_buffers())):
        for name, value in named:
            if value.is_complex():
                raise UserError(f"trial.model: {what} {name} is complex, and trials are trained in real numbers; hold "
                                "its real and imaginary parts as two, and make it of them by torch.complex in forward")
    for name, value in module.named_parameters():
        if getattr(value, "_post_accumulate_grad_hooks", None):
            raise UserError(f"trial.model: parameter {name} has a hook that waits for its .grad, which trials do not "
                            "fill; give what changes the gradient to register_hook")
    for name, part in lagging(module):
        raise UserError(f"trial.model: {name} is made of {part} before the hook that makes {part} has run, so that "
                        "each forward pass uses that of the pass before; of parametrizations.weight_norm, prune "
                        "original1 of parametrizations.weight")
    for name, other in _sharing(module):
        raise UserError(f"trial.model: {name} lies in the memory of {other}, and what training does to one does not "
                        f"reach the other here; hold a copy (.clone()), or make it of {other} in forward")
    if not any(value.requires_grad for value in module.parameters()):
        raise UserError("trial.model: has no parameter to train: none at all, or requires_grad=False on each")


def _sharing(module: torch.nn.Module) -> Iterator[tuple[str, str]]:
    """The names of tensors whose memory overlaps, one of them a view of the other, say. One tensor under several names
    is one."""
    reach: list[tuple[int, int, str]] = []
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        if value.numel() and value.layout == torch.strided:
            last = sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True))
            reach.append((value.data_ptr(), value.data_ptr() + (last + 1) * value.element_size(), name))
    end, of = 0, ""
    for start, stop, name in sorted(reach):
        if start < end:
            yield name, of
        if stop > end:
            end, of = stop, name


def build_network(spec: TrialSpec, data: Data) -> Network:
    """The trial's model as a function of its parameters, where the data are; its output is checked."""
    def made() -> Network:
        return Network(build_module(spec, data).to(data.x_train.device, data.dtype), of_user)
    of_user = usercode.is_usercode(spec.model["name"])
    network = made()
    if of_user:
        with guest(spec.seed, "check", str(data.x_train.device), f"trial: {spec.model['name']}"):
            reads = check_network(network, data, spec.batch_size)
            if network.memory.changed(network.memory.built):  # what cannot be put back, such as an iterator
                network = made()
            network.backward_reads = reads
    return network
