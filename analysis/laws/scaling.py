"""Loss as a function of model size and data, L(N, D) = E + A N^-a + B D^-b, and where two such laws cross.

Hoffmann et al. 2022 (arXiv 2203.15556), whose fit Besiroglu et al. 2024 (arXiv 2404.10102) corrected: a Huber loss of
residuals of ln L (laws/huber.py).
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from analysis.estimates import LEVEL, Estimate
from analysis.laws.fit import aicc, numbers, pose
from analysis.laws.huber import Huber, Profile
from analysis.laws.law import Array, Law, LawFit
from trials.errors import UserError

STARTS = 4
SWAY = 0.2  # of an interval: rows that move an estimate so far are named


def _predict(parameters: Array, x: Array) -> Array:
    return np.asarray(parameters[0] + (parameters[1::2] * np.asarray(x, float) ** -parameters[2::2]).sum(1))


def _start(x: Array, y: Array) -> list[Array]:
    """Variable projection: for exponents on a grid, E, A and B >= 0 of least relative squares; the best few."""
    middle = np.exp(np.log(x).mean(0))
    found = []
    for exponents in product(np.geomspace(0.03, 2.0, 24 if x.shape[1] == 1 else 10), repeat=x.shape[1]):
        columns = np.column_stack([np.ones(len(x)), (x / middle) ** -np.array(exponents)]) / y[:, None]
        amounts, misfit = nnls(columns, np.ones(len(x)))
        amounts = np.maximum(amounts, 1e-3 * y.min())  # 0 has no logarithm
        scales = amounts[1:] * middle ** np.array(exponents)
        found.append((misfit, np.array([amounts[0], *np.column_stack([scales, exponents]).ravel()])))
    return [start for _, start in sorted(found, key=lambda pair: pair[0])[:STARTS]]


_SOURCE = "Hoffmann et al. 2022, arXiv 2203.15556"
SIZE_SCALING = Law("size_scaling", "L = E + A N^-a", _SOURCE, ("irreducible", "n_scale", "n_exponent"),
                   _predict, _start, (True, True, False))
LOSS_SCALING = Law("loss_scaling", "L = E + A N^-a + B D^-b", _SOURCE, (*SIZE_SCALING.parameters, "d_scale",
                   "d_exponent"), _predict, _start, (True, True, False, True, False), inputs=2)


def fit_scaling(data: pd.DataFrame, y: str, n: str, d: str | None = None, *, cluster: str | None = None,
                delta: float = 1e-3, level: float = LEVEL, seed: int = 0) -> LawFit:
    """The loss ``y`` as E + A n^-a + B d^-b, or as E + A n^-a without ``d``.

    ``delta`` is where the Huber loss of residuals of ln y turns from squares to absolute values: 0.001 as in the paper;
    math.inf gives least squares. Rows with the same value in ``cluster`` share their chance; rows without numbers are
    left out. Where the data do not hold an exponent its interval is open (0 or infinite) and ``method`` names it.
    Raises UserError for a column that is not there, values that are not positive, too few rows or distinct values.
    """
    law = SIZE_SCALING if d is None else LOSS_SCALING
    inputs = (n,) if d is None else (n, d)
    rows, codes = numbers(data, (*inputs, y), law.name, cluster)
    for name in inputs:
        if rows[name].min() <= 0 or rows[name].nunique() < 4:
            raise UserError(f"{law.name}: {name} has {rows[name].nunique()} different values, the least "
                            f"{rows[name].min():g}; it takes 4, all above 0")
    problem = pose(rows, law, inputs, y)
    huber = Huber(problem.x, problem.target, delta)
    starts = problem.coordinates(np.array(_start(problem.x, np.exp(problem.target))))
    while True:
        found, losses = huber.minimize(starts, np.ones_like(starts, dtype=bool))
        profile = Profile(huber, found[losses.argmin()], float(losses.min()), codes)
        ends, lowest = profile.ends(level)
        if huber.loss(huber.residuals(lowest[None]))[0] >= profile.loss * (1 - 1e-6):
            break
        starts = lowest[None]  # the profile has met a lower minimum
    rng = np.random.default_rng(seed)
    resampled = profile.bootstrap(rng, level)
    with np.errstate(invalid="ignore"):  # of two open intervals
        wider = np.ptp(resampled, axis=0) / np.ptp(ends, axis=0)
    draws = problem.parameters(profile.draws(rng, max(wider[np.isfinite(wider)].max(initial=1.0), 1.0)))
    low, high = np.where(wider > 1, resampled, ends)
    estimates = {name: Estimate(float(value), max(float(below), 0.0), float(above), level)
                 for name, value, below, above in zip(law.parameters, *problem.parameters(
                     np.vstack([profile.theta, low, high])), strict=True)}
    used = rows.assign(fitted=np.exp(problem.target - profile.residuals), residual=profile.residuals,
                       leverage=profile.known.leverage, cluster=np.arange(len(rows)) if codes is None else codes)
    method = [f"profile of the Huber loss, delta {delta:g}, or the bootstrap where it is wider"]
    if len(rows) < len(data):
        method.append(f"{len(data) - len(rows)} of {len(data)} rows without numbers left out")
    if unknown := [name for name, each in estimates.items()
                   if name.endswith("exponent") and (each.low == 0 or math.isinf(each.high))]:
        method.append(f"not identified: {', '.join(unknown)}")
    other, far = profile.without_outliers()
    moved = np.abs(other - profile.theta) > SWAY * (high - low)
    if moved.any():
        without = [f"{name} {value:.3g}" for name, value, each in
                   zip(law.parameters, problem.parameters(other[None])[0], moved, strict=True) if each]
        method.append(f"swayed by {far} of {len(rows)} rows, far from the law: without, {', '.join(without)}")
    return LawFit(law, inputs, y, estimates, used, profile.sigma,
                  aicc(problem, profile.residuals, len(profile.theta), codes), draws, "; ".join(method))


def crossover(first: LawFit, second: LawFit, level: float = LEVEL) -> Estimate:
    """The size at which two fitted laws of one input cross, within the sizes that the data of both span.

    The interval has the crossings of pairs of draws. A pair that does not cross there has its crossing beyond: above
    (infinite) if the laws stand as they do at the least size, below (-infinite) if as at the largest. The value is NaN
    where the fitted laws themselves do not cross, or cross back: no winner is named outside the data. Raises UserError
    if a law has more than one input, the inputs or outcomes differ, or the data have no sizes in common.
    """
    if first.law.inputs != 1 or (first.x, first.y) != (second.x, second.y):
        raise UserError(f"crossover: expected two laws of one and the same input and outcome, got {first.y} of "
                        f"{', '.join(first.x)} and {second.y} of {', '.join(second.x)}")
    spans = [fit.data[fit.x[0]] for fit in (first, second)]
    low, high = max(span.min() for span in spans), min(span.max() for span in spans)
    if low >= high:
        raise UserError(f"crossover: the data of the two laws share no range of {first.x[0]}; add sizes that both have")
    sizes = np.geomspace(low, high, 512)
    one, two = ([fit.law.predict(each, sizes[:, None]) for each in (fit.parameters, *fit.draws)]
                for fit in (first, second))
    gap = np.array([a - b for a, b in zip(one, two, strict=False)])
    gap *= np.sign(gap[0, -1] - gap[0, 0])  # it rises, for the fitted laws
    if np.count_nonzero(np.diff(np.sign(gap[0]))) > 1:
        return Estimate(math.nan, -math.inf, math.inf, level)
    beyond = np.where(gap[:, -1] < 0, math.inf, -math.inf)
    value, *each = np.where((gap[:, 0] < 0) & (gap[:, -1] > 0), sizes[np.argmax(gap > 0, axis=1)], beyond)
    return Estimate(float(value) if math.isfinite(value) else math.nan,
                    float(np.quantile(each, (1 - level) / 2, method="lower")),
                    float(np.quantile(each, (1 + level) / 2, method="higher")), level)
