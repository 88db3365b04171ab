"""Neural collapse of the last hidden layer (Papyan, Han & Donoho 2020, arXiv 2008.08186).

On the probe set, with mu_c the mean of class c of K and mu_G the mean of these; every class has the same weight:

- NC1 = tr(Sigma_W Sigma_B^+) / K, Sigma_W and Sigma_B the covariances within and between classes; 0 when collapsed;
- NC2: coefficient of variation of ||mu_c - mu_G|| (equal norms); standard deviation of the cosines of pairs of them
  (equal angles); mean |cosine + 1 / (K - 1)| (the largest angles possible); all 0 for a simplex;
- NC3 = || W / ||W||_F - M / ||M||_F ||_F^2, W the last layer's weight and M the rows mu_c - mu_G; 0 when self-dual;
- NC4: fraction of samples which the model gives the class of the nearest mean; 1 when collapsed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trials.columns import number
from trials.measurements.activations import activations
from trials.measurements.base import Measurement, Snapshot, Values
from trials.measurements.features import RESOLUTION, ROUNDING
from trials.measurements.nulls import undefined, values

COLUMNS = (
    number("nc1", "variability within classes over that between them, tr(Sigma_W Sigma_B^+) / K; 0 when collapsed"),
    number("nc2_equinorm", "standard deviation over mean of the norms of centred class means; 0 when collapsed"),
    number("nc2_equiangular", "standard deviation of the cosines of centred class means; 0 when collapsed"),
    number("nc2_maximal_angle", "mean |cosine + 1 / (K - 1)| of centred class means; 0 when collapsed"),
    number("nc3", "squared distance of normalized last weight and centred class means; 0 when collapsed; null if the "
                  "model does not end in a linear layer on these activations"),
    number("nc4", "fraction of samples classified as the nearest class mean would; 1 when collapsed"),
)


def collapse(features_ND: Tensor, labels_N: Tensor, predicted_N: Tensor, weight_CD: Tensor | None) -> dict[str, Tensor]:
    """Each column as a tensor without dimensions; all NaN if fewer than two classes or no two means differ."""
    classes_K, labels_N, count_K = torch.unique(labels_N, return_inverse=True, return_counts=True)
    share_NK = F.one_hot(labels_N, len(classes_K)).to(features_ND.dtype) / count_K
    means_KD = share_NK.mT @ features_ND
    centred_KD = means_KD - means_KD.mean(0)
    norms_K = torch.linalg.vector_norm(centred_KD, dim=1)
    if len(classes_K) < 2 or bool(norms_K.max() <= ROUNDING * torch.linalg.vector_norm(means_KD)):
        return {column.name: undefined(features_ND) for column in COLUMNS}
    weight_of_class = 1.0 / len(classes_K)
    _, singular_R, basis_RD = torch.linalg.svd(centred_KD, full_matrices=False)
    kept = singular_R > RESOLUTION * singular_R[0]
    within_NR = (features_ND - means_KD[labels_N]) @ basis_RD[kept].mT
    within_R = share_NK.sum(1) * weight_of_class @ within_NR.square()  # of Sigma_W along each direction of Sigma_B
    between_R = singular_R[kept].square() * weight_of_class
    cosines = (centred_KD @ centred_KD.mT / torch.outer(norms_K, norms_K))[
        ~torch.eye(len(classes_K), dtype=torch.bool, device=features_ND.device)]
    dual = undefined(features_ND)
    if weight_CD is not None and weight_CD.shape == centred_KD.shape:
        dual = (weight_CD / torch.linalg.matrix_norm(weight_CD) - centred_KD / torch.linalg.matrix_norm(centred_KD)
                ).square().sum()
    return {
        "nc1": (within_R / between_R).sum() * weight_of_class,
        "nc2_equinorm": norms_K.std(correction=0) / norms_K.mean(),
        "nc2_equiangular": cosines.std(correction=0),
        "nc2_maximal_angle": (cosines + 1.0 / (len(classes_K) - 1)).abs().mean(),
        "nc3": dual,
        "nc4": (classes_K[torch.cdist(features_ND, means_KD).argmin(1)] == predicted_N).double().mean(),
    }


def last_weight(module: nn.Module) -> str | None:
    """The name of the weight of the last module with parameters of its own, if that is an ``nn.Linear``."""
    owners = [(name, child) for name, child in module.named_modules() if any(True for _ in child.parameters(False))]
    if not owners or not isinstance(owners[-1][1], nn.Linear):
        return None
    name = owners[-1][0]
    return f"{name}.weight" if name else "weight"


def function(snapshot: Snapshot) -> dict[str, Values]:
    """The columns of the last hidden layer; no layer at all for regression or a model without nonlinearities."""
    found = snapshot.shared(activations)
    if not found.layers:
        return {}
    layer = found.layers[-1]
    labels_N = layer.labels_N
    if labels_N is None:
        return {}
    if not layer.sound:
        return {layer.name: {column.name: None for column in COLUMNS}}
    name = last_weight(snapshot.network.module)
    weight_CD = None if name is None else {**snapshot.params, **snapshot.buffers}[name].to(torch.float64)
    numbers = collapse(layer.features.points_ND, labels_N, found.output_NC.argmax(-1), weight_CD)
    return {layer.name: values(numbers)}


MEASUREMENT = Measurement("activations", "layers", COLUMNS, function)
