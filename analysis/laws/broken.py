"""The broken power law: a power law whose exponent changes, smoothly, at one place.

Caballero et al. 2022 (arXiv 2210.14891) with one break. Six parameters bend to almost any short curve, so it is fitted
only where the data are wide enough to tell both exponents, and compared with the plain power by ``compare``.
"""

from __future__ import annotations

from itertools import product
from typing import Literal

import numpy as np
import pandas as pd

from analysis.estimates import LEVEL
from analysis.laws.fit import fit_law, numbers
from analysis.laws.law import Array, Law, LawFit
from trials.errors import UserError

DECADES = 3.0
DISTINCT = 12
STARTS = 4


def _bend(x: Array, place: Array | float, sharpness: Array | float) -> Array:
    """ln (1 + (x/place)^(1/sharpness))^sharpness, which no sharpness overflows."""
    return np.asarray(sharpness * np.logaddexp(0.0, np.log(x / place) / sharpness))


def _predict(p: Array, x: Array) -> Array:
    offset, scale, exponent, change, place, sharpness = p
    size = np.asarray(x, float)[:, 0]
    return np.asarray(offset + scale * np.exp(-exponent * np.log(size) - change * _bend(size, place, sharpness)))


def _start(x: Array, y: Array) -> list[Array]:
    """Scale and exponents by least squares of ln (y - offset), for offsets, places and sharpnesses on a grid."""
    size = x[:, 0]
    places = np.exp(np.linspace(np.log(size.min()), np.log(size.max()), 13)[2:-2])
    found = []
    for offset, place, sharpness in product(y.min() * np.array([1e-6, 0.5, 0.9, 0.99]), places, (0.1, 0.5)):
        columns = np.column_stack([np.ones(len(size)), -np.log(size), -_bend(size, place, sharpness)])
        scale, exponent, change = np.linalg.lstsq(columns, np.log(y - offset), rcond=None)[0]
        start = np.array([offset, np.exp(scale), exponent, change, place, sharpness])
        found.append((float(((np.log(y) - np.log(_predict(start, x))) ** 2).sum()), start))
    return [start for _, start in sorted(found, key=lambda pair: pair[0])[:STARTS]]


BROKEN_POWER = Law("broken_power", "y = offset + scale x^-exponent (1 + (x/break)^(1/sharpness))^(-change sharpness)",
                   "Caballero et al. 2022, arXiv 2210.14891, with one break: the exponent changes by ``change``",
                   ("offset", "scale", "exponent", "change", "break", "sharpness"), _predict, _start,
                   (True, True, False, False, True, True))


def fit_broken(data: pd.DataFrame, x: str, y: str, *, cluster: str | None = None,
               method: Literal["profile", "bootstrap"] = "profile", level: float = LEVEL, seed: int = 0) -> LawFit:
    """``fit_law`` with the broken power law: y falls as x^-exponent below ``break`` and x^-(exponent + change) above,
    turning over about ``sharpness`` e-foldings of x.

    Raises UserError, beside the causes of ``fit_law``, unless x spans three decades with 12 different values.
    """
    rows, _ = numbers(data, (x, y), BROKEN_POWER.name, cluster)
    low, high, distinct = rows[x].min(), rows[x].max(), rows[x].nunique()
    if low <= 0 or high < 10**DECADES * low * (1 - 1e-9) or distinct < DISTINCT:
        raise UserError(f"{BROKEN_POWER.name}: {x} has {distinct} different values from {low:g} to {high:g}; a break "
                        f"takes {DISTINCT} over {DECADES:g} decades above 0, else fit a plain power")
    return fit_law(data, BROKEN_POWER, x, y, cluster=cluster, method=method, level=level, seed=seed)
