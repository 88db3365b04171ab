"""Least squares of a law, and how far its parameters may lie from the best ones: profiles, clusters, bootstrap.

All of it in coordinates: logarithms of positive parameters, the others as they are. There laws are nearly linear, and
the limits of a law (a parameter at 0 or at infinity) are far away, where a profile that stays low is an open end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import stdtrit

from analysis.laws.law import Array, Law, without

# An interval of a log law that reaches a factor e^50 (21 decades), or an exponent of 50 more, is open.
FAR = 50.0
NO_NUMBER = 1e100  # a prediction that is none: no sum of squares that holds one is less


@dataclass(frozen=True)
class Problem:
    """A law on n rows: inputs ``x`` (n, inputs) and ``target`` (n,), which is ln y for log laws and y for others.

    ``absorbed`` (n, q), orthonormal, is what is fitted beside the law: target and law are without it (Frisch & Waugh
    1933), and the least squares in the coordinates of the law are those of both.
    """

    law: Law
    x: Array
    target: Array
    absorbed: Array | None = None

    @property
    def positive(self) -> npt.NDArray[np.bool_]:
        """Which coordinates are logarithms, (P,)."""
        return np.array(self.law.positive or (False,) * len(self.law.parameters))

    def coordinates(self, parameters: Array) -> Array:
        """The coordinates (..., P) of parameters (..., P)."""
        return np.where(self.positive, np.log(np.where(self.positive, parameters, 1.0)), parameters)

    def parameters(self, coordinates: Array) -> Array:
        """The parameters (..., P) at coordinates (..., P)."""
        with np.errstate(over="ignore"):
            return np.where(self.positive, np.exp(np.where(self.positive, coordinates, 0.0)), coordinates)

    def fitted(self, points: Array) -> Array:
        """The law at coordinates (R, P): (R, n), on the scale of the target; ``NO_NUMBER`` where it is none."""
        with np.errstate(all="ignore"):
            rows = np.array([self.law.predict(each, self.x) for each in self.parameters(points)])
            rows = np.log(rows) if self.law.log else rows
        rows = np.asarray(np.nan_to_num(rows, nan=NO_NUMBER, posinf=NO_NUMBER, neginf=-NO_NUMBER))
        return rows if self.absorbed is None else without(rows, self.absorbed)

    def jacobian(self, points: Array) -> Array:
        """Derivatives of ``fitted``, (R, n, P), by central differences."""
        steps = 1e-5 * np.maximum(1.0, np.abs(points))
        columns = []
        for each in range(points.shape[1]):
            shift = np.zeros_like(points)
            shift[:, each] = steps[:, each]
            columns.append((self.fitted(points + shift) - self.fitted(points - shift)) / (2 * steps[:, each, None]))
        return np.stack(columns, axis=2)

    def minimum(self, starts: Array, targets: Array, fixed: int | None = None, tolerance: float = 1e-13
                ) -> tuple[Array, Array]:
        """Least squares of R problems at once, from one start each: coordinates (R, P) and sums of squares (R,).

        Levenberg-Marquardt (Marquardt 1963) on ``targets`` (R, n), until a step promises to lower the sum of squares by
        less than ``tolerance`` of it; the coordinate ``fixed`` stays where it starts.
        """
        points = starts.copy()
        residuals = targets - self.fitted(points)
        squares = (residuals**2).sum(1)
        free = [each for each in range(points.shape[1]) if each != fixed]
        active = np.arange(len(points)) if free else np.array([], int)
        damping = np.full(len(points), 1e-9)
        least = 1e-26 * (targets**2).sum(1)  # of rounding
        for _ in range(100):
            if not len(active):
                break
            slopes = self.jacobian(points[active])[:, :, free]
            size = np.linalg.norm(slopes, axis=1)
            size = np.where(size > 0, size, 1.0)
            slopes = slopes / size[:, None, :]
            gradient = np.einsum("rnp,rn->rp", slopes, residuals[active])
            curvature = np.einsum("rnp,rnq->rpq", slopes, slopes) + damping[active, None, None] * np.eye(len(free))
            step = np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
            gain = (gradient * step).sum(1)
            farthest = np.where(self.positive[free], 3.0, np.inf)
            trial = points[active]
            trial[:, free] += np.clip(step / size, -farthest, farthest)
            found = targets[active] - self.fitted(trial)
            new = (found**2).sum(1)
            better = new < squares[active]
            chosen = active[better]
            points[chosen], residuals[chosen], squares[chosen] = trial[better], found[better], new[better]
            damping[active] = np.maximum(damping[active] * np.where(better, 0.1, 100.0), 1e-12)
            done = (gain <= tolerance * squares[active] + least[active]) | (damping[active] > 1e9)
            active = active[~done]
        return points, squares


@dataclass(frozen=True)
class Chance:
    """What is known of the chance in P coordinates: ``sigma`` (P,), the standard deviation of rows as it matters to
    each; standard errors ``se`` (P,), infinite where a coordinate is not identified; degrees of freedom ``dof``
    (P,); how coordinates follow the target, ``influence`` (P, n), and each row's ``leverage`` (n,). ``shock`` (n,) is a
    residual freed of what the fit has taken from it, for the bootstrap."""

    sigma: Array
    se: Array
    dof: Array
    influence: Array
    leverage: Array
    shock: Array

    def critical(self, level: float) -> Array:
        """How many standard errors an interval reaches to either side, (P,)."""
        return np.asarray(stdtrit(self.dof, (1 + level) / 2))


def chance(jacobian: Array, residual: Array, cluster: npt.NDArray[np.intp] | None,
           absorbed: Array | None = None) -> Chance:
    """The chance in a fit with this jacobian (n, P) and residual (n,), where rows of one cluster (codes) share theirs;
    both are without what was fitted beside it, ``absorbed`` (n, q).

    Without clusters: the variance of residuals, with n - P degrees of freedom. With clusters: the bias-reduced
    sandwich (CR2) with Satterthwaite's degrees of freedom (Bell & McCaffrey 2002; Pustejovsky & Tipton 2018), for each
    coordinate, which holds for few clusters and whether the inputs vary within them or between. It is divided by
    what it is for independent rows, which is 1 unless the fit takes all the freedom from some cluster.
    """
    n, count = jacobian.shape
    scale = np.maximum(np.linalg.norm(jacobian, axis=0), 1e-100)
    u, singular, vt = np.linalg.svd(jacobian / scale, full_matrices=False)
    kept = singular > 1e-7 * singular[0]
    u = u[:, kept]
    influence = (vt[kept].T / singular[kept]) @ u.T / scale[:, None]
    size = np.maximum(np.linalg.norm(influence, axis=1), 1e-100)
    free = ((vt[~kept] ** 2).sum(0) < 1e-9) & (scale > 1e-100)  # no part in a direction that changes nothing
    taken = u if absorbed is None else np.column_stack([u, absorbed])
    leverage, left_free = (taken**2).sum(1), max(n - count - taken.shape[1] + u.shape[1], 1)
    # A residual of less than rounding is one of rounding.
    floor = (1e-14 * np.abs(residual + 1.0).max()) ** 2
    if cluster is None:
        left = 1.0 - leverage
        shock = residual * np.where(left > 1e-8, 1.0 / np.sqrt(np.maximum(left, 1e-8)), 0.0)
        sigma = np.full(count, np.sqrt(max((residual**2).sum() / left_free, floor)))
        dof = np.full(count, float(left_free))
        return Chance(sigma, np.where(free, sigma * size, np.inf), dof, influence, leverage, shock)
    shock, weights = np.empty(n), np.empty((count, n))
    groups = np.split(np.argsort(cluster, kind="stable"), np.cumsum(np.bincount(cluster))[:-1])
    for group in groups:
        values, vectors = np.linalg.eigh(np.eye(len(group)) - taken[group] @ taken[group].T)
        root = np.where(values > 1e-8, 1.0 / np.sqrt(np.maximum(values, 1e-8)), 0.0)
        shock[group] = vectors @ (root * (vectors.T @ residual[group]))
        weights[:, group] = ((influence[:, group] / size[:, None]) @ vectors * root) @ vectors.T
    variance, dof = np.full(count, np.inf), np.ones(count)
    for each in range(count):
        w = np.array([taken[group].T @ weights[each, group] for group in groups])
        kernel = np.diag([float((weights[each, group] ** 2).sum()) for group in groups]) - w @ w.T
        if (expected := np.trace(kernel)) > 1e-8:
            seen = sum(float(weights[each, group] @ residual[group]) ** 2 for group in groups)
            variance[each] = max(seen / expected, floor)
            dof[each] = expected**2 / (kernel**2).sum()
    sigma = np.sqrt(variance)
    return Chance(sigma, np.where(free, sigma * size, np.inf), dof, influence, leverage, shock)


def reach(root: Callable[[float], float], step: float, critical: float, far: float) -> float:
    """The distance at which ``root(distance)``, which is 0 at 0, rises to ``critical``; infinite beyond ``far``.

    ``step`` is the first guess, and right where ``root`` is a straight line. ``root`` may be NaN far out.
    """
    inside, known = 0.0, {0.0: 0.0}
    while far > 1.001 * inside:
        step = min(step, far)
        value = known[step] = root(step)
        if abs(value - critical) <= 1e-6 * critical:
            return step
        if value > critical:
            return float(brentq(lambda at: (known[at] if at in known else root(at)) - critical, inside, step,
                                xtol=1e-3 * min(step, 0.1)))
        if np.isnan(value):
            far = step = (inside + step) / 2
        else:
            inside, step = step, step * min(max(1.1 * critical / max(value, 1e-100), 1.2), 4.0)
    return np.inf


def profile(problem: Problem, best: Array, squares: float, known: Chance, level: float) -> Array:
    """Ends of the interval of each coordinate, (P, 2): where the least sum of squares with that coordinate held there
    is t^2 variances above the best (Bates & Watts 1988, chapter 6; t, not normal, for the variance is estimated too).

    With clusters the variance is that along the coordinate (``Chance.sigma``), so that this is the independence
    likelihood on a scale that is right for clusters (Chandler & Bate 2007).
    """
    ends = np.column_stack([np.full(len(best), -np.inf), np.full(len(best), np.inf)])
    critical, farthest = known.critical(level), FAR / 4 if problem.law.log else np.inf
    for each in range(len(best)):
        step, along = critical[each] * known.se[each], np.zeros(len(best))
        if np.isfinite(step):  # how the others follow this one
            along = known.influence @ known.influence[each] / (known.influence[each] @ known.influence[each])
        elif not problem.law.log:
            continue
        for side, sign in enumerate((-1, 1)):
            found = {0.0: best}

            def root(distance: float, each: int = each, sign: int = sign, along: Array = along,
                     found: dict[float, Array] = found) -> float:
                near = min(found, key=lambda other: abs(other - distance))
                change = sign * (distance - near) * along
                start = found[near] + np.where(np.abs(change) < farthest, change, 0.0)
                start[each] = best[each] + sign * distance
                points, least = problem.minimum(start[None], problem.target[None], each, 1e-9)
                if least[0] >= NO_NUMBER:
                    return np.nan
                found[distance] = points[0]
                return float(np.sqrt(max(least[0] - squares, 0.0)) / known.sigma[each])

            distance = reach(root, min(step, farthest), critical[each],
                             FAR if problem.law.log else 1e6 * step)
            ends[each, side] = best[each] + sign * distance
    return ends


def draws(problem: Problem, best: Array, known: Chance, cluster: npt.NDArray[np.intp] | None, linear: bool,
          number: int, seed: int, shared: Callable[[np.random.Generator, int], Array] | None = None) -> Array:
    """Coordinates as likely as the data leave them, (number, P): fits to the fitted law plus new noise, and what
    ``shared`` draws beside it, (number, n).

    The noise of rows on their own is normal; that of clusters is the wild bootstrap's (Cameron, Gelbach & Miller 2008):
    each cluster's ``shock`` times one normal number. Either is spread as Student's t, for the variance is estimated.
    """
    rng = np.random.default_rng(seed)
    dof = float(np.maximum(known.dof.min(), 1.0))
    n = len(problem.target)
    spread = np.sqrt(dof / rng.chisquare(dof, (number, 1)))
    if linear and cluster is None and shared is None:  # the same chance, without a number for each row
        values, vectors = np.linalg.eigh(known.influence @ known.influence.T)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        return np.asarray(best + known.sigma[0] * spread * (rng.normal(size=(number, len(best))) @ root.T))
    if cluster is None:
        noise = rng.normal(size=(number, n)) * known.sigma[0]
    else:
        noise = rng.normal(size=(number, cluster.max() + 1))[:, cluster] * known.shock
    noise = noise * spread
    if shared is not None:
        noise = noise + shared(rng, number)
        if problem.absorbed is not None:
            noise = without(noise, problem.absorbed)
    near = np.asarray(best + noise @ known.influence.T)
    if linear:
        return near
    starts = np.where(np.abs(near - best) < FAR / 4, near, best)
    return problem.minimum(starts, problem.fitted(best[None]) + noise, tolerance=1e-4)[0]
