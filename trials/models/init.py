"""Initial weights and biases of the built-in models."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

# Variances of an entry, with n_in inputs and n_out outputs of a unit: Glorot 2 / (n_in + n_out) (Glorot & Bengio 2010),
# He 2 / n_in (He et al. 2015). ``torch`` leaves what the modules begin with: uniform in +-1/sqrt(n_in), biases too.
INITS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "torch": None,
    "glorot_normal": nn.init.xavier_normal_,
    "glorot_uniform": nn.init.xavier_uniform_,
    "he_normal": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    "he_uniform": partial(nn.init.kaiming_uniform_, nonlinearity="relu"),
}


def initialize(model: nn.Module, init: str, bias: float) -> nn.Module:
    """Draw the weights of ``model``'s linear and convolutional layers anew by ``init`` and set their biases to 0, or
    keep both for ``torch``; then add ``bias`` to the biases. Draws from torch's global generator."""
    draw = INITS[init]
    for layer in model.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            if draw is not None:
                draw(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
            if layer.bias is not None and bias:
                layer.bias.data.add_(bias)
    return model
