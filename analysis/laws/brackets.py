"""All laws that go through brackets: how far each parameter may go while the law stays between bounds at every input.

A largest stable value without spread lies somewhere between two values of the grid, and all that is known of the law is
that it goes through all of these brackets. Errors from their middles are no chance: where the law is slow against the
grid they are a sawtooth that neighbours share, and no variance says how far it leads.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from analysis.laws.crossed import Seeds
from analysis.laws.fit import pose
from analysis.laws.intervals import FAR, Problem
from analysis.laws.law import Array, LawFit

INSIDE = 1e-6  # of a bracket's width: as good as inside
STEPS = 200


def through(fit: LawFit, bracket: Array, crossed: pd.Series | None = None) -> LawFit:
    """``fit`` to values of y known to brackets of these widths in ln y (n,), about them: its intervals hold every law
    that goes through all of them too, with a shift for each seed that is ``crossed``, and ``data`` has their ends,
    ``lower`` and ``upper``."""
    problem = pose(fit.data, fit.law, fit.x, fit.y)
    middle = problem.target if fit.law.log else np.log(problem.target)
    ends = np.array([middle - bracket / 2, middle + bracket / 2])
    lower, upper = ends if fit.law.log else np.exp(ends)
    fit = replace(fit, data=fit.data.assign(lower=lower, upper=upper))
    best = problem.coordinates(fit.parameters)
    found = allowed(problem, best, lower, upper, _shifts(fit, crossed))
    if found is None:
        return fit
    with np.errstate(divide="ignore"):
        before = problem.coordinates(np.array([[each.low, each.high] for each in fit.estimates.values()]).T)
    ends = np.array([np.fmin(found[:, 0], before[0]), np.fmax(found[:, 1], before[1])])
    with np.errstate(invalid="ignore"):  # the band is as much wider as the parameter whose interval is most so
        wider = np.ptp(ends, axis=0) / np.ptp(before, axis=0)
    near = best + float(max(wider[np.isfinite(wider)], default=1.0)) * (problem.coordinates(fit.draws) - best)
    return replace(fit.between(*problem.parameters(ends)), draws=problem.parameters(near),
                   method=f"{fit.method}; and every law through what the grid leaves open")


def passes(fit: LawFit, crossed: pd.Series | None = None) -> bool:
    """Whether the law of a fit by ``through`` can go through all brackets."""
    problem = pose(fit.data, fit.law, fit.x, fit.y)
    lower, upper = fit.data[["lower", "upper"]].to_numpy().T
    return allowed(problem, problem.coordinates(fit.parameters), lower, upper, _shifts(fit, crossed)) is not None


def _shifts(fit: LawFit, crossed: pd.Series | None) -> Array | None:
    """A basis (n, S - 1) of what seeds may shift, where they can be told from the law."""
    if crossed is None:
        return None
    seeds = Seeds.of(pd.factorize(crossed[fit.data.index])[0], fit.data.groupby(list(fit.x)).ngroup().to_numpy())
    return seeds.basis if seeds else None


def allowed(problem: Problem, start: Array, low: Array, high: Array, beside: Array | None = None) -> Array | None:
    """Ends (P, 2) of each coordinate over the laws between ``low`` and ``high`` (n,), on the scale of the target; None
    where no law goes through all of them. Infinite where they leave an end open. Any multiple of the columns
    ``beside`` (n, q) may be added to a law.

    By sequential quadratic programming (Kraft 1988) from ``start`` (P,); exact for a law linear in coordinates.
    """
    width = np.maximum(high - low, 1e-12)
    own = len(start)
    beside = np.empty((len(width), 0)) if beside is None else beside
    start = np.append(start, np.zeros(beside.shape[1]))
    count = len(start)

    def inside(point: Array, margin: float) -> Array:
        fitted = problem.fitted(point[None, :own])[0] + beside @ point[own:]
        return np.concatenate([(fitted - low) / width, (high - fitted) / width]) + margin

    def slopes(point: Array) -> Array:
        each = np.column_stack([problem.jacobian(point[None, :own])[0], beside]) / width[:, None]
        return np.vstack([each, -each])

    farthest = [(each - FAR, each + FAR) for each in start]
    most = -min(float(inside(start, 0.0).min()), 0.0)
    found = minimize(  # the least margin by which brackets have to grow
        lambda at: at[-1], np.append(start, most), jac=lambda at: np.append(np.zeros(count), 1.0), method="SLSQP",
        bounds=[*farthest, (-1.0, None)], options={"maxiter": STEPS, "ftol": 1e-9},
        constraints={"type": "ineq", "fun": lambda at: inside(at[:-1], at[-1]),
                     "jac": lambda at: np.column_stack([slopes(at[:-1]), np.ones(2 * len(low))])})
    center = found.x[:-1]
    if inside(center, INSIDE).min() < 0:
        return None
    ends = np.column_stack([center, center])[:own]
    for each in range(own):
        for side, sign in enumerate((-1.0, 1.0)):
            direction = np.zeros(count)
            direction[each] = -sign
            found = minimize(lambda at, way=direction: at @ way, center, jac=lambda at, way=direction: way,
                             method="SLSQP", bounds=farthest, options={"maxiter": STEPS, "ftol": 1e-9},
                             constraints={"type": "ineq", "fun": lambda at: inside(at, INSIDE), "jac": slopes})
            at_end = float(found.x[each])
            ends[each, side] = sign * np.inf if abs(at_end - start[each]) > FAR - 1.0 else at_end
    return ends
