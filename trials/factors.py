"""The matrices that a torch function multiplies by: the factors of the matrix products that it is made of.

All of PyTorch's functions come down to operations of aten: ``torch.inner``, ``torch.tensordot`` and ``F.linear`` to
``aten::mm``, an attention to several. Those that multiply matrices are told by their names, so that there is no list of
functions to keep, and an extension's operation (``torchvision::deform_conv2d``) counts as well. A table that rows are
looked up in is a factor: the other is one-hot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_PRODUCT = re.compile(r"mm(?!a|i|on|y)|mv(?!l)|dot|matmul|einsum|inner|linear|conv|embedding|attention|rnn|lstm|gru"
                      r"|^index(_select)?$")
# What a product has beside its factors: what is added, what it is written to, the states of a recurrent layer.
_BESIDE = frozenset(["bias", "out", "hx", "cx", "hx_", "cx_", "attn_bias", "attn_mask"])


class Factors(TorchDispatchMode):
    """``found`` has the ids of those of the ``weights`` that are multiplied with what is not made of them alone, as
    they are or after operations on them alone. ``flowing`` tensors are known not to be."""

    supports_higher_order_operators = True

    def __init__(self, weights: Iterable[Tensor], flowing: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._made = {id(value): (value, frozenset([id(value)])) for value in weights}
        self._flowing = {id(value): value for value in flowing}  # tensors are kept, so that their ids stay theirs
        self.found: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first call imports torch._dynamo, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = frozenset[int]().union(*(self._of(value) for value in tensors((args, kwargs))))
        factors = [self._of(value) for value in _factors(func, args, kwargs or {})]
        if not all(factors):
            self.found |= frozenset[int]().union(*factors)
        if any(id(value) in self._flowing for value in tensors((args, kwargs))):
            self._flowing |= {id(value): value for value in tensors(result)}
        elif made:
            self._made |= {id(value): (value, made) for value in tensors(result)}
        return result

    def _of(self, value: Tensor) -> frozenset[int]:
        return frozenset() if id(value) in self._flowing else self._made.get(id(value), (value, frozenset[int]()))[1]


def _factors(func: Any, args: Any, kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
    """The tensors that an operation multiplies; none if it is no product."""
    schema: Any = getattr(func, "_schema", None)
    if schema is None or not _PRODUCT.search(name := schema.name.rpartition("::")[2]):
        return
    named = {argument.name: value for argument, value in zip(schema.arguments, args, strict=False)} | dict(kwargs)
    beside = _BESIDE | {"self"} if "add" in name else _BESIDE  # addmm(self, mat1, mat2)
    yield from tensors({name: value for name, value in named.items() if name not in beside})


def tensors(values: Any) -> Iterator[Tensor]:
    """All tensors in nested arguments."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Mapping):
        yield from tensors(tuple(values.values()))
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from tensors(value)
