"""How linear the map from one layer's activations to the next one's is (Razzhigaev et al. 2024, arXiv 2405.12250).

With X and Y the activations of the layer before and of this one, (N, D), centred and divided by their Frobenius norms,
the score is 1 - min_A ||X A - Y||_F^2: the fraction of Y's variance that a linear map of X explains, on the samples
that fit the map. Unrelated X and Y of N samples score rank(X) / (N - 1) by chance; the adjusted score takes that off,

    1 - (1 - score) (N - 1) / (N - 1 - rank X),

which is the adjusted R^2. The first layer is compared with the model's input.
"""

from __future__ import annotations

from torch import Tensor

from trials.columns import number
from trials.measurements.activations import Layer, of_layers
from trials.measurements.nulls import undefined


def metrics(layer: Layer) -> dict[str, Tensor]:
    """Each column as a tensor without dimensions; NaN if either side is constant, or X fits any Y: rank N - 1."""
    basis_NR, y_ND = layer.previous.principal.basis_NR, layer.features.centred_ND
    samples, rank = basis_NR.shape
    if rank == 0 or rank >= samples - 1:
        nothing = undefined(y_ND)
        return {"linearity": nothing, "linearity_adjusted": nothing}
    score = (basis_NR.mT @ y_ND).square().sum() / y_ND.square().sum()
    return {"linearity": score, "linearity_adjusted": 1.0 - (1.0 - score) * (samples - 1) / (samples - 1 - rank)}


MEASUREMENT = of_layers((
    number("linearity", "fraction of the activations' variance that a linear map of the layer before explains; null if "
                        "there are too few probe samples to tell"),
    number("linearity_adjusted", "the same less what unrelated activations would score: 0 by chance, 1 if linear"),
), metrics)
