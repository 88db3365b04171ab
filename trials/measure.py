"""What is measured when: a study's ``measure:`` block."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property, lru_cache

from trials.fields import choice, count

WHEN = ("none", "last", "ends", "log")


@dataclass(frozen=True)
class Measure:
    """When each group of metrics is measured: never, after the last step, before the first and after the last, or at
    log-spaced steps between these two as well."""

    training: str = choice("log", WHEN[1:], help="losses, accuracies and norms (table steps)")
    weights: str = choice("log", WHEN, help="spectral metrics of the weight matrices (table layers)")
    changes: str = choice("last", WHEN, help="the same metrics of W - W0, layer fc1:change (table layers)")
    eigenvalues: str = choice("last", WHEN, help="the eigenvalues of what is measured then (table spectra)")
    predictions: str = choice("none", WHEN, help="calibration on the test set (table steps)")
    activations: str = choice("none", WHEN, help="isotropy, dimension, collapse ... of hidden layers (table layers)")
    gradients: str = choice("none", WHEN, help="noise scale, coherence, tails of the gradient (table steps)")
    curvature: str = choice("none", WHEN, help="eigenvalues, trace and sharpness of the Hessian (table steps)")
    kernel: str = choice("none", WHEN, help="empirical tangent kernel (tables steps and layers)")
    density: str = choice("none", WHEN, help="spectral density of the Hessian, 512 products with it (table spectra)")
    per_decade: int = count(4, low=1, high=100, help="log-spaced steps per factor of ten")

    @cached_property
    def json(self) -> str:
        """All settings as JSON, for provenance and comparison."""
        return json.dumps(asdict(self), sort_keys=True)


GROUPS = tuple(field.name for field in fields(Measure) if field.metadata["kind"] is str)


@lru_cache(maxsize=1024)
def steps(when: str, total: int, per_decade: int) -> frozenset[int]:
    """The steps, of 0 ... ``total``, at which a group with this ``when`` is measured."""
    if when == "none":
        return frozenset()
    if when == "last":
        return frozenset({total})
    chosen = {0, total}
    if when == "log":
        exponent, step = 0, 1
        while step < total:
            chosen.add(step)
            exponent += 1
            step = round(10 ** (exponent / per_decade))
    return frozenset(chosen)
