"""Convolutions as the linear maps they are: singular values of the operator, beside those of its flattened kernel.

On an input of h x w pixels with circular padding the operator of a kernel (out, in, kh, kw) is an (out h w) x (in h w)
matrix that the Fourier transform makes block-diagonal: its singular values are those of the h w matrices (out, in) that
the transformed kernel has at each frequency (Sedghi, Gupta & Long 2019, arXiv 1805.10408). With a stride s the
frequencies that the sampling folds together make one matrix (out, s^2 in) / s; the groups of a grouped convolution
stand beside each other; dilation only moves the taps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trials.computed import Computed
from trials.modes import evaluation
from trials.optimizers.base import Params

_CHUNK = 2**22  # complex entries of blocks in work at a time


@dataclass(frozen=True)
class Operator:
    """The operator of the kernel ``name`` on inputs of ``size`` pixels, with circular padding.

    ``layer`` is the convolution's with ``:operator``, ``kind`` conv1d_operator or conv2d_operator. ``size`` is that of
    the layer's input, rounded up to a multiple of the stride, or of the kernel (``known`` is False) where the input's
    was not given.
    """

    name: str
    layer: str
    kind: str
    channels: tuple[int, int]
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    known: bool

    @property
    def shape(self) -> tuple[int, int]:
        """(N, M) of the operator's matrix, N >= M."""
        (out, into), pixels = self.channels, math.prod(self.size)
        sides = out * pixels // math.prod(self.stride), into * pixels
        return max(sides), min(sides)

    @property
    def said(self) -> str:
        """What was done, in words."""
        what = "" if self.known else " (the kernel's own size; the input's is not known)"
        return f"circular convolution on {' x '.join(map(str, self.size))} pixels{what}"

    def singular_values(self, params: Params) -> Tensor:
        """[M] float64, descending; NaN if the kernel is not finite."""
        kernel = params[self.name].detach().to(torch.float64)
        out, into = kernel.shape[:2]
        if not bool(kernel.isfinite().all()):
            return kernel.new_full((self.shape[1],), torch.nan)
        taps = _grid(kernel.shape[2:], kernel.device) * torch.tensor(self.dilation, device=kernel.device)
        size, stride = (torch.tensor(values, device=kernel.device) for values in (self.size, self.stride))
        kept = [n // s for n, s in zip(self.size, self.stride, strict=True)]
        # Frequencies f + j n / s, j = 0 ... s - 1, look the same to a sampling of every s-th pixel: [blocks, s^d, d]
        folded = _grid(kept, kernel.device)[:, None] + _grid(self.stride, kernel.device) * (size // stride)
        values = []
        for some in torch.split(folded, max(1, _CHUNK // (out * into * folded.shape[1]))):
            turns = (taps[:, None, None] * some % size).double() / size
            angles = -2.0 * math.pi * turns.sum(-1)  # [taps, blocks, s^d]
            phases = torch.polar(torch.ones_like(angles), angles).flatten(1)
            transform = kernel.flatten(2).to(phases.dtype) @ phases
            blocks = transform.reshape(self.groups, out // self.groups, into, *some.shape[:2])
            blocks = blocks.permute(3, 0, 1, 2, 4).flatten(3)
            values.append(torch.linalg.svdvals(blocks / math.prod(self.stride) ** 0.5).flatten())
        return torch.cat(values).sort(descending=True).values


def _grid(sizes: Sequence[int], device: torch.device) -> Tensor:
    """All integer vectors below ``sizes``, [prod(sizes), d]."""
    axes = [torch.arange(n, device=device) for n in sizes]
    return torch.cartesian_prod(*axes).reshape(-1, len(sizes))


def operators(module: nn.Module, example: Tensor | None = None, computed: Sequence[Computed] = ()) -> list[Operator]:
    """The operators of all Conv1d and Conv2d of ``module`` whose weight is a parameter or one of the ``computed``;
    ``example`` (B, *input shape) tells their input sizes.

    A module that has any is evaluated on it once, in evaluation mode and without gradients.
    """
    convolutions = [(layer, child) for layer, child in module.named_modules()
                    if isinstance(child, (nn.Conv1d, nn.Conv2d))]
    gone = {part for each in computed for part in each.parts} - {each.name for each in computed}
    sizes = _input_sizes(module, example) if convolutions and example is not None else {}
    found = []
    for layer, child in convolutions:
        extent = tuple(d * (k - 1) + 1 for k, d in zip(child.kernel_size, child.dilation, strict=True))
        size = tuple(-(-n // s) * s for n, s in zip(sizes.get(layer, extent), child.stride, strict=True))
        name = f"{layer}.weight" if layer else "weight"
        if name in gone:
            continue
        found.append(Operator(name, f"{layer or name}:operator", f"conv{len(extent)}d_operator",
                              (child.out_channels, child.in_channels), size, tuple(child.stride),
                              tuple(child.dilation), child.groups, known=layer in sizes))
    return found


def _input_sizes(module: nn.Module, example: Tensor) -> dict[str, tuple[int, ...]]:
    """Pixels of the (first) input of each convolution."""
    sizes: dict[str, tuple[int, ...]] = {}
    children = {child: layer for layer, child in module.named_modules() if isinstance(child, (nn.Conv1d, nn.Conv2d))}

    def note(child: nn.Module, inputs: Any) -> None:
        assert isinstance(child, (nn.Conv1d, nn.Conv2d))
        sizes.setdefault(children[child], tuple(inputs[0].shape[-len(child.kernel_size):]))

    hooks = [child.register_forward_pre_hook(note) for child in children]
    try:
        with evaluation(module), torch.no_grad():
            module(example.clone())
    finally:
        for hook in hooks:
            hook.remove()
    return sizes
