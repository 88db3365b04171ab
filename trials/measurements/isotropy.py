"""How many directions of its space a layer uses: from the covariance of its activations.

With Sigma the covariance over N probe samples of a layer's D activations, flattened, and p_i its eigenvalues over their
sum:

- participation ratio PR = (tr Sigma)^2 / ||Sigma||_F^2 = 1 / sum p_i^2;
- IsoScore* = (PR - 1) / (D - 1), 1 when isotropic and 0 for a single direction (Rudman & Eickhoff 2023,
  arXiv 2305.19358; their steps of normalizing the eigenvalues and rescaling the distance reduce to this form). Without
  their shrinkage of Sigma, which is for batches smaller than D: with N <= D samples it cannot exceed (N - 2) / (D - 1),
  and of isotropic activations it is near 1 / (1 + D / N), so that layers of different D cannot be compared;
- the same without this bias: ||Sigma||_F^2 of the whole distribution is estimated from the covariance S of N = n + 1
  samples by n^2 / ((n - 1)(n + 2)) (||S||_F^2 - (tr S)^2 / n), unbiased for normal activations (Srivastava 2005, J.
  Japan Statist. Soc. 35). It scatters about 1 when isotropic, and can be above;
- von Neumann entropy S = -sum p_i ln p_i of Sigma / tr Sigma, and the effective rank e^S (Roy & Vetterli 2007 on the
  eigenvalues, as for weight matrices).
"""

from __future__ import annotations

import torch
from torch import Tensor

from trials.columns import number
from trials.measurements.activations import Layer, of_layers


def metrics(layer: Layer) -> dict[str, Tensor]:
    """Each column as a tensor without dimensions; NaN for constant activations or (IsoScore*) a single one."""
    variances, dimensions = layer.features.principal.variances, layer.features.points_ND.shape[1]
    p = variances / variances.sum()
    concentration = p.square().sum()
    participation = 1.0 / concentration
    n = float(len(layer.features.points_ND) - 1)
    corrected = n**2 * (concentration - 1.0 / n) / ((n - 1.0) * (n + 2.0)) if n > 1 else p.new_tensor(torch.nan)
    entropy = torch.special.entr(p).sum()
    return {
        "activation_isoscore": (participation - 1.0) / (dimensions - 1) if dimensions > 1 else p.new_tensor(torch.nan),
        "activation_isoscore_unbiased": torch.where(corrected > 0, (1.0 / corrected - 1.0) / max(dimensions - 1, 1),
                                                    torch.nan) if dimensions > 1 else p.new_tensor(torch.nan),
        "activation_participation_ratio": participation,
        "activation_entropy": entropy,
        "activation_effective_rank": entropy.exp(),
        "probe_samples": p.new_tensor(len(layer.features.points_ND)),
    }


MEASUREMENT = of_layers((
    number("activation_isoscore", "IsoScore* of a layer's activations: (participation ratio - 1) / (D - 1)"),
    number("activation_isoscore_unbiased", "IsoScore* without the bias of few samples: for layers of different width"),
    number("activation_participation_ratio", "(tr Sigma)^2 / ||Sigma||_F^2, Sigma the covariance of activations"),
    number("activation_entropy", "von Neumann entropy of the covariance over its trace", "nat"),
    number("activation_effective_rank", "e^(von Neumann entropy of the covariance over its trace)"),
    number("probe_samples", "training samples on which activations were measured"),
), metrics)
