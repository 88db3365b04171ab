"""Loss as a function of model size and data, L(N, D) = E + A N^-a + B D^-b, and where two such laws cross.

Hoffmann et al. 2022 (arXiv 2203.15556), whose fit Besiroglu et al. 2024 (arXiv 2404.10102) corrected: a Huber loss of
residuals of ln L. Its intervals are profiles of that loss, whose rise has its own scale (Ronchetti's tau test): at the
usual delta it is nearly the absolute deviation, of which a Gaussian likelihood would say too much.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import nnls
from scipy.special import ndtr

from analysis.estimates import LEVEL, Estimate
from analysis.laws.fit import aicc, numbers, pose
from analysis.laws.intervals import chance
from analysis.laws.law import Array, Law, LawFit
from trials.errors import UserError

EXPONENTS = (0.01, 5.0)  # searched; a profile that reaches an end leaves the exponent open
STARTS = 4
DRAWS = 400


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


class _Huber:
    """The Huber loss of residuals of ln y as a function of theta = (ln E, ln A, a, ln B, b), K at a time."""

    def __init__(self, x: Array, target: Array, delta: float) -> None:
        self.logs, self.target, self.delta = np.log(x), target, delta
        reach = self.target.max() + EXPONENTS[1] * np.abs(self.logs).max(0)
        self.low = np.array([self.target.min() + math.log(1e-4), *np.ravel([[-each, EXPONENTS[0]] for each in reach])])
        self.high = np.array([self.target.max(), *np.ravel([[each, EXPONENTS[1]] for each in reach])])

    def terms(self, theta: Array) -> Array:
        """E, A N^-a, B D^-b: (K, n, 1 + inputs)."""
        powers = theta[:, None, 1::2] - theta[:, None, 2::2] * self.logs
        level = np.broadcast_to(theta[:, None, :1], (*powers.shape[:2], 1))
        return np.asarray(np.exp(np.concatenate([level, powers], axis=2)))

    def residuals(self, theta: Array) -> Array:
        """(K, n)."""
        return np.asarray(self.target - np.log(self.terms(theta).sum(2)))

    def jacobian(self, theta: Array) -> Array:
        """Of the fitted ln y: (K, n, P)."""
        share = self.terms(theta)
        share /= share.sum(2, keepdims=True)
        steep = -share[:, :, 1:] * self.logs
        pairs = np.stack([share[:, :, 1:], steep], axis=3).reshape(*share.shape[:2], -1)
        return np.concatenate([share[:, :, :1], pairs], axis=2)

    def loss(self, residuals: Array) -> Array:
        """(K,)."""
        psi = np.clip(residuals, -self.delta, self.delta)
        return np.asarray((psi * (residuals - psi / 2)).sum(1))

    def minimize(self, theta: Array, free: Array) -> tuple[Array, Array]:
        """The local minima over the parameters that are ``free`` (K, P): theta (K, P) and the loss (K,).

        Newton steps, damped towards those of iteratively reweighted least squares, which always descend: Newton's alone
        see only the residuals below delta.
        """
        theta = np.clip(theta, self.low, self.high)
        loss, damping, live = self.loss(self.residuals(theta)), np.full(len(theta), 0.1), np.arange(len(theta))
        for _ in range(100):
            residuals, jacobian = self.residuals(theta[live]), self.jacobian(theta[live]) * free[live, None, :]
            size = np.maximum(np.abs(residuals), 1e-300)
            weight = (size < self.delta) + damping[live, None] * np.minimum(1, self.delta / size)
            hessian = np.swapaxes(jacobian * weight[:, :, None], 1, 2) @ jacobian
            ridge = 1e-10 * np.trace(hessian, axis1=1, axis2=2)[:, None] + 1e-300
            hessian += np.where(free[live], ridge, 1.0)[:, :, None] * np.eye(theta.shape[1])
            gradient = np.swapaxes(jacobian, 1, 2) @ np.clip(residuals, -self.delta, self.delta)[:, :, None]
            step = np.clip(np.linalg.solve(hessian, gradient)[:, :, 0], -2, 2)
            trial = np.clip(theta[live] + step, self.low, self.high)
            trial_loss = self.loss(self.residuals(trial))
            better, settled = trial_loss < loss[live], trial_loss > (1 - 1e-7) * loss[live]
            damping[live] = np.maximum(damping[live] * np.where(better, 0.2, 6.0), 1e-6)
            theta[live[better]], loss[live[better]] = trial[better], trial_loss[better]
            live = live[~(better & settled | (damping[live] > 1e6))]
            if not len(live):
                break
        return theta, loss


class _Profile:
    """How the Huber loss rises about its minimum theta (P,): what intervals and draws follow."""

    def __init__(self, huber: _Huber, theta: Array, loss: float, clusters: npt.NDArray[np.intp] | None) -> None:
        self.huber, self.theta, self.loss = huber, theta, loss
        self.residuals, jacobian = huber.residuals(theta[None])[0], huber.jacobian(theta[None])[0]
        n, size = jacobian.shape
        psi = np.clip(self.residuals, -huber.delta, huber.delta)
        self.sigma = math.sqrt((self.residuals**2).sum() / (n - size))
        # E psi', the share of errors below delta, by a kernel of Silverman's width: few of them may be that small.
        width = max(1.06 * self.sigma * n**-0.2, 1e-15)
        slope = np.mean(ndtr((huber.delta - self.residuals) / width) - ndtr((-huber.delta - self.residuals) / width))
        variance = max((psi**2).sum() / (n - size), 1e-30)
        self.scale = 2 * slope / variance
        # One in a hundred: a logarithm that nothing holds is unknown by 10.
        self.covariance = np.linalg.inv(slope**2 / variance * jacobian.T @ jacobian + np.eye(size) / 100)
        self.known = chance(jacobian, psi, clusters)
        self.widening = np.where(np.isfinite(self.known.se), self.known.sigma**2 / variance, 1.0)  # by clusters

    def rise(self, loss: Array) -> Array:
        """T, which is t squared where one parameter is held at its truth and rows are independent."""
        return np.asarray(np.maximum(loss - self.loss, 0.0) * self.scale)

    def ends(self, level: float) -> tuple[Array, Array]:
        """The intervals' ends (2, P), infinite where open, and the theta (P,) of the lowest loss met on the way.

        Every parameter goes outwards in growing steps, the others following, until T is beyond its quantile.
        """
        size, huber = len(self.theta), self.huber
        held, side = np.tile(np.arange(size), 2), np.repeat([-1.0, 1.0], size)
        free = ~np.eye(size, dtype=bool)[held]
        goal = (self.known.critical(level) * np.sqrt(self.widening))[held]
        slope = (self.covariance / np.diag(self.covariance)).T[held]  # of the others along the profile
        stride = side * 0.3 * goal * np.sqrt(np.diag(self.covariance))[held]
        bound = np.where(side < 0, huber.low[held], huber.high[held])
        theta, root, ends = np.tile(self.theta, (2 * size, 1)), np.zeros(2 * size), side * math.inf
        lowest, best, live = self.theta, self.loss, np.arange(2 * size)
        while len(live):
            at = theta[live, held[live]]
            last = np.abs(stride[live]) >= np.abs(bound[live] - at)
            step = np.where(last, bound[live] - at, stride[live])
            start = theta[live] + slope[live] * step[:, None]
            found, loss = huber.minimize(start, free[live])
            if loss.min() < best:
                lowest, best = found[loss.argmin()], float(loss.min())
            there = np.sqrt(self.rise(loss))
            # Beyond what is searched of an exponent its scale is open too.
            stuck = (((found == huber.low) | (found == huber.high)) & free[live])[:, 2::2].any(1)
            over = there >= goal[live]
            share = (goal[live] - root[live]) / np.where(over, there - root[live], 1.0)
            ends[live[over & ~stuck]] = (at + step * share)[over & ~stuck]
            slope[live] = (found - theta[live]) / np.where(step == 0, 1.0, step)[:, None]
            theta[live], root[live], stride[live] = found, there, stride[live] * 1.25
            live = live[~(over | last | stuck)]
        return ends.reshape(2, size), lowest

    def draws(self, rng: np.random.Generator) -> Array:
        """(R, P) thetas as likely as the rise of the loss leaves them, by importance sampling from a wider t."""
        size, huber = len(self.theta), self.huber
        wide, freedom = self.widening.max(), self.known.dof.min()
        t = rng.normal(size=(10 * DRAWS, size)) / np.sqrt(rng.chisquare(5, (10 * DRAWS, 1)) / 5)
        theta = self.theta + t @ np.linalg.cholesky(self.covariance * wide).T
        proposal = -(5 + size) / 2 * np.log1p((t**2).sum(1) / 5)
        rise = self.rise(huber.loss(huber.residuals(theta))) / wide
        weight = -(freedom + size) / 2 * np.log1p(rise / freedom) - proposal
        weight[((theta < huber.low) | (theta > huber.high)).any(1)] = -math.inf
        weight = np.exp(weight - weight.max())
        return np.asarray(theta[rng.choice(len(theta), DRAWS, p=weight / weight.sum())])


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
    huber = _Huber(problem.x, problem.target, delta)
    starts = problem.coordinates(np.array(_start(problem.x, np.exp(problem.target))))
    while True:
        found, losses = huber.minimize(starts, np.ones_like(starts, dtype=bool))
        profile = _Profile(huber, found[losses.argmin()], float(losses.min()), codes)
        ends, lowest = profile.ends(level)
        if huber.loss(huber.residuals(lowest[None]))[0] >= profile.loss * (1 - 1e-6):
            break
        starts = lowest[None]  # the profile has met a lower minimum
    draws = problem.parameters(profile.draws(np.random.default_rng(seed)))
    values, low, high = problem.parameters(np.vstack([profile.theta, ends]))
    estimates = {name: Estimate(float(value), max(float(below), 0.0), float(above), level)
                 for name, value, below, above in zip(law.parameters, values, low, high, strict=True)}
    used = rows.assign(fitted=np.exp(problem.target - profile.residuals), residual=profile.residuals,
                       leverage=profile.known.leverage, cluster=np.arange(len(rows)) if codes is None else codes)
    unknown = [name for name, each in estimates.items()
               if name.endswith("exponent") and (each.low == 0 or math.isinf(each.high))]
    method = f"profile of the Huber loss, delta {delta:g}" + (
        f"; {len(data) - len(rows)} of {len(data)} rows without numbers left out" if len(rows) < len(data) else "") + (
        f"; not identified: {', '.join(unknown)}" if unknown else "")
    return LawFit(law, inputs, y, estimates, used, profile.sigma,
                  aicc(problem, profile.residuals, len(values), codes), draws, method)


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
