"""Diffusion spectral entropy of a layer, and its mutual information with labels (Liao et al. 2023, arXiv 2312.04823).

With the Gaussian kernel G_ij = exp(-||x_i - x_j||^2 / (2 sigma^2)), sigma = 10, and degrees d_i = sum_j G_ij, the
eigenvalues are those of the row-normalized diffusion matrix P = D^-1 G, taken from the symmetric D^-1/2 G D^-1/2, which
has the same. (The authors' code takes the eigenvalues of this one; the anisotropic matrix of which it speaks, made by
dividing by degrees twice, is another.) Entropy DSE = -sum p_i log2 p_i, p_i = |eigenvalue_i|^t / sum, t = 1: between 0
(all points coincide) and log2 N (all are many sigma apart). The mutual information is, as in the source,

    sum_c N_c / N (DSE(random N_c points) - DSE(points of class c)),

the random subsets being of the class's size because DSE grows with the number of points; averaged over REPETITIONS.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trials.columns import number
from trials.measurements.activations import Layer, of_layers
from trials.measurements.nulls import undefined
from trials.streams import generator

SIGMA = 10.0
SAMPLES = 512  # of the probe set at most: the cost is that of an eigensolve of this size
REPETITIONS = 5  # random subsets for each class, as in the source


def metrics(layer: Layer) -> dict[str, Tensor]:
    """Each column as a tensor without dimensions; NaN for the information where there are fewer than two classes."""
    kernel_NN = torch.exp(layer.features.squared_distances_NN[:SAMPLES, :SAMPLES] / (-2.0 * SIGMA**2))
    return {"diffusion_entropy": entropy(kernel_NN),
            "diffusion_information": undefined(kernel_NN) if layer.labels_N is None
            else information(kernel_NN, layer.labels_N[:SAMPLES])}


def entropy(kernel: Tensor) -> Tensor:
    """DSE in bit of kernels (..., N, N): (...)."""
    scale = kernel.sum(-1).rsqrt()
    eigenvalues = torch.linalg.eigvalsh(kernel * scale[..., :, None] * scale[..., None, :]).abs()
    p = eigenvalues / eigenvalues.sum(-1, keepdim=True)
    entropy: Tensor = torch.special.entr(p).sum(-1) / math.log(2.0)
    return entropy


def information(kernel_NN: Tensor, labels_N: Tensor) -> Tensor:
    """Mutual information with the labels, in bit. The subsets depend on nothing but the sizes: two layers, steps or
    trials are compared on the same."""
    total = len(labels_N)
    classes = torch.unique(labels_N)
    if len(classes) < 2:
        return undefined(kernel_NN)
    terms = []
    for number_of_class, label in enumerate(classes):
        own = (labels_N == label).nonzero().squeeze(1)
        random = generator(0, "diffusion", number_of_class)
        drawn = [torch.randperm(total, generator=random)[: len(own)].to(own.device) for _ in range(REPETITIONS)]
        subsets_SK = torch.stack([own, *drawn])
        entropies_S = entropy(kernel_NN[subsets_SK[:, :, None], subsets_SK[:, None, :]])
        terms.append((entropies_S[1:].mean() - entropies_S[0]) * (len(own) / total))
    return torch.stack(terms).sum()


MEASUREMENT = of_layers((
    number("diffusion_entropy", f"diffusion spectral entropy of at most {SAMPLES} probe samples, sigma = {SIGMA:g}, "
                                "t = 1, row-normalized diffusion matrix", "bit"),
    number("diffusion_information", "diffusion spectral mutual information with the labels; null for regression",
           "bit"),
), metrics)
