"""The weight matrices of a model, as the ``layers`` table names them.

A layer's name is that of its module (``fc1``), or of the parameter where that is not called ``weight``. What is a part
of a stored weight, or made of it, adds a colon and a word, so that no two matrices of a model share a name:
``attn.in_proj_weight:q``, ``lstm.weight_ih_l0:i``, ``conv1:operator`` (trials/convolutions.py), ``fc1:change``
(trials/weights.py).

Weights that hold several matrices one above the other are split:

- queries, keys and values: a matrix called ``in_proj_weight`` (as in ``nn.MultiheadAttention``), or the weight of a
  layer called ``c_attn``, ``qkv`` or ``Wqkv``, one side of which is three times the other. Fused weights of other names
  stay whole: many of them interleave the heads.
- gates: i, f, g, o of an LSTM and r, z, n of a GRU, in PyTorch's order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from trials.computed import Computed
from trials.optimizers.base import Params

KINDS: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.Linear, "linear"), (nn.Conv1d, "conv1d"), (nn.Conv2d, "conv2d"), (nn.Embedding, "embedding"),
    (nn.EmbeddingBag, "embedding"), (nn.MultiheadAttention, "attention"), (nn.RNNBase, "recurrent"),
    (nn.RNNCellBase, "recurrent"))
FUSED = ("in_proj_weight", "c_attn", "qkv", "Wqkv")
LSTM, GRU = "ifgo", "rzn"
EXPERTS = 4096  # of one tensor, at most
GATES: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.LSTM, LSTM), (nn.LSTMCell, LSTM), (nn.GRU, GRU), (nn.GRUCell, GRU))


@dataclass(frozen=True)
class Matrix:
    """One weight: parameter ``name`` (``fc1.weight``), its ``layer`` (``fc1``) and the ``kind`` of the layer.

    A convolution's kernel (out, in, h, w) is flattened to (out, in * h * w); weights of other modules with two or more
    dimensions count as ``parameter``, flattened likewise. ``part`` (dimension, k, n) is the k-th of n equal parts of
    the weight along a dimension; None is all of it. ``doubt`` is why it may not be the weight in use.
    """

    name: str
    layer: str
    kind: str
    part: tuple[int, int, int] | None = None
    doubt: str | None = None

    def of(self, params: Params) -> Tensor:
        """The weight as a matrix, (out, everything else)."""
        weight = params[self.name]
        if self.part is not None:
            dimension, k, n = self.part
            weight = weight.chunk(n, dimension)[k]
        if self.kind == "expert":
            weight = weight[0]
        return weight.flatten(1)


def matrices(module: nn.Module, computed: Sequence[Computed] = (), doubts: Mapping[str, str] | None = None
             ) -> list[Matrix]:
    """All weights of two or more dimensions, in the order of the module's parameters; a computed one is where the first
    of its parts would be. ``doubts`` are by the name of the weight."""
    modules = dict(module.named_modules())
    of_part = {part: each for each in computed for part in each.parts}
    weights: dict[str, Sequence[int]] = {}
    for name, value in module.named_parameters():
        if name in of_part:
            weights[of_part[name].name] = of_part[name].shape
        else:
            weights[name] = value.shape
    weights |= {each.name: each.shape for each in computed}  # those without a part of their own
    found = []
    for name, shape in weights.items():
        if len(shape) < 2:
            continue
        owner = modules.get(name.rpartition(".")[0])
        kind = next((kind for cls, kind in KINDS if isinstance(owner, cls)), "parameter")
        found += _parts(name, kind, shape, next((gates for cls, gates in GATES if isinstance(owner, cls)), ""))
    return [replace(each, doubt=(doubts or {}).get(each.name)) for each in found]


def guessed_matrices(shapes: Mapping[str, Sequence[int]]) -> list[Matrix]:
    """The same from the names and shapes of parameters alone: the kinds are guesses.

    Three dimensions of a name with ``expert`` or ``moe`` in it are a matrix for each expert, ``experts.w1:0``.
    Four dimensions make a conv2d, three and a layer called conv a conv1d; two make an embedding where the layer's name
    has embed in it or is wte or wpe, recurrent where the parameter is called weight_ih, weight_hh or weight_hr, else
    linear. Gates are split if the recurrent matrix beside them is four (LSTM) or three (GRU) times as high as wide.
    """
    found = []
    for name, shape in shapes.items():
        if len(shape) < 2:
            continue
        _, own, leaf = _names(name)
        gates, kind = "", "parameter"
        if leaf.startswith(("weight_ih", "weight_hh", "weight_hr")):
            kind = "recurrent"
            rows, cols = shapes.get(name.replace("weight_ih", "weight_hh"), shape)[:2]
            gates = {4 * cols: LSTM, 3 * cols: GRU}.get(rows, "")
        elif len(shape) == 4:
            kind = "conv2d"
        elif len(shape) == 3 and "conv" in own.lower():
            kind = "conv1d"
        elif len(shape) == 3 and 0 < shape[0] <= EXPERTS and ("expert" in name.lower() or "moe" in name.lower()):
            layer = _names(name)[0]
            found += [Matrix(name, f"{layer}:{k}", "expert", (0, k, shape[0])) for k in range(shape[0])]
            continue
        elif len(shape) == 2 and ("embed" in own.lower() or own in ("wte", "wpe")):
            kind = "embedding"
        elif len(shape) == 2 and leaf == "weight":
            kind = "linear"
        found += _parts(name, kind, shape, gates)
    return found


def _names(name: str) -> tuple[str, str, str]:
    """(layer, last word of the layer, last word of the parameter)."""
    owner, _, leaf = name.rpartition(".")
    layer = owner if owner and leaf == "weight" else name
    return layer, layer.rpartition(".")[2], leaf


def _parts(name: str, kind: str, shape: Sequence[int], gates: str) -> list[Matrix]:
    """The matrices of one parameter; ``gates`` has a letter for each gate of a recurrent layer."""
    layer, own, leaf = _names(name)
    letters, dimension = "", 0
    if leaf.startswith(("weight_ih", "weight_hh")):
        letters = gates
    elif own in FUSED and len(shape) == 2 and max(shape) == 3 * min(shape):
        letters, dimension, kind = "qkv", 0 if shape[0] > shape[1] else 1, "attention"
    if not letters:
        return [Matrix(name, layer, kind)]
    return [Matrix(name, f"{layer}:{letter}", kind, (dimension, k, len(letters))) for k, letter in enumerate(letters)]
