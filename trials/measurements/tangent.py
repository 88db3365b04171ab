"""Alignment of each layer's own tangent kernel with the labels (after Baratin et al. 2021, arXiv 2008.00938).

K_l is the part of the empirical tangent kernel that comes from the parameters of layer l: the kernel of the model is
their sum. Kernel, targets and alignment are those of the kernel of the whole model.
"""

from __future__ import annotations

from trials.columns import number
from trials.measurements.base import Measurement, Snapshot, Values
from trials.measurements.kernel import PROBE, alignment, now
from trials.measurements.nulls import values
from trials.measurements.probe import probe


def function(snapshot: Snapshot) -> dict[str, Values]:
    """The alignment of every layer with parameters (``fc1``); no layer where there is no kernel."""
    kernels = snapshot.shared(now)
    if kernels is None:
        return {}
    target_NC = snapshot.data.target(probe(snapshot.data, PROBE)[1])
    return {layer: values({"tangent_alignment": alignment(kernel_NN, target_NC)})
            for layer, kernel_NN in kernels.items()}


MEASUREMENT = Measurement("kernel", "layers", (
    number("tangent_alignment", "<K_l, Y Y^T> / (||K_l|| ||Y Y^T||), K_l the tangent kernel of the layer's parameters"),
), function)
