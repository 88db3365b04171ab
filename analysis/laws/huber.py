"""Huber's loss of residuals of ln y for sums of power laws: its minima, its profiles, and how it varies with the rows.

A profile's rise has its own scale (Ronchetti's tau test): at a small delta the loss is nearly the absolute deviation,
of which a Gaussian likelihood would say too much. That takes the errors for alike; where some regions are noisier than
others the bootstrap says by how much more the answer varies, and the wider of the two wins.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from analysis.laws.intervals import chance
from analysis.laws.law import Array

EXPONENTS = (0.01, 5.0)  # searched; a profile that reaches an end leaves the exponent open
DRAWS = 400
RESAMPLES = 1000
FAR = 3.0  # of residuals, in standard deviations


class Huber:
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

    def loss(self, residuals: Array, weights: Array | float = 1.0) -> Array:
        """(K,), where rows count by ``weights`` (K, n)."""
        psi = np.clip(residuals, -self.delta, self.delta)
        return np.asarray((weights * psi * (residuals - psi / 2)).sum(1))

    def minimize(self, theta: Array, free: Array, weights: Array | None = None) -> tuple[Array, Array]:
        """The local minima over the parameters that are ``free`` (K, P): theta (K, P) and the loss (K,).

        Rows count by ``weights`` (K, n). Newton steps, damped towards those of iteratively reweighted least squares,
        which always descend: Newton's alone see only the residuals below delta.
        """
        theta = np.clip(theta, self.low, self.high)
        weights = np.ones((len(theta), 1)) if weights is None else weights
        loss, damping = self.loss(self.residuals(theta), weights), np.full(len(theta), 0.1)
        live = np.arange(len(theta))
        for _ in range(100):
            residuals, jacobian = self.residuals(theta[live]), self.jacobian(theta[live]) * free[live, None, :]
            size = np.maximum(np.abs(residuals), 1e-300)
            weight = (size < self.delta) + damping[live, None] * np.minimum(1, self.delta / size)
            weight *= weights[live]
            hessian = np.swapaxes(jacobian * weight[:, :, None], 1, 2) @ jacobian
            ridge = 1e-10 * np.trace(hessian, axis1=1, axis2=2)[:, None] + 1e-300
            hessian += np.where(free[live], ridge, 1.0)[:, :, None] * np.eye(theta.shape[1])
            psi = weights[live] * np.clip(residuals, -self.delta, self.delta)
            gradient = np.swapaxes(jacobian, 1, 2) @ psi[:, :, None]
            step = np.clip(np.linalg.solve(hessian, gradient)[:, :, 0], -2, 2)
            trial = np.clip(theta[live] + step, self.low, self.high)
            trial_loss = self.loss(self.residuals(trial), weights[live])
            better, settled = trial_loss < loss[live], trial_loss > (1 - 1e-7) * loss[live]
            damping[live] = np.maximum(damping[live] * np.where(better, 0.2, 6.0), 1e-6)
            theta[live[better]], loss[live[better]] = trial[better], trial_loss[better]
            live = live[~(better & settled | (damping[live] > 1e6))]
            if not len(live):
                break
        return theta, loss


class Profile:
    """How the Huber loss rises about its minimum theta (P,): what intervals and draws follow."""

    def __init__(self, huber: Huber, theta: Array, loss: float, clusters: npt.NDArray[np.intp] | None) -> None:
        self.huber, self.theta, self.loss, self.clusters = huber, theta, loss, clusters
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

    def bootstrap(self, rng: np.random.Generator, level: float) -> Array:
        """The intervals' ends (2, P) by the Bayesian bootstrap of clusters (Rubin 1981), infinite where open.

        Each cluster counts by an exponential number: nothing is taken for granted of how large errors are where. Of few
        clusters it says too little, which is why it never makes an interval narrower.
        """
        codes = np.arange(len(self.residuals)) if self.clusters is None else self.clusters
        weights = rng.exponential(size=(RESAMPLES, codes.max() + 1))[:, codes]
        starts = np.tile(self.theta, (RESAMPLES, 1))
        found = self.huber.minimize(starts, np.ones_like(starts, dtype=bool), weights)[0]
        tails = np.quantile(found, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return np.where(tails <= self.huber.low, -math.inf, np.where(tails >= self.huber.high, math.inf, tails))

    def without_outliers(self) -> tuple[Array, int]:
        """theta (P,) without the few rows that lie farthest from the law, and how many they are: one in fifty, if it is
        beyond ``FAR`` standard deviations, which the middle residual gives (1.4826 times its size)."""
        size = np.abs(self.residuals)
        few = np.sort(size)[-math.ceil(0.02 * len(size))]
        far = size >= max(few, FAR * 1.4826 * np.median(size))
        start = self.theta[None]
        found, _ = self.huber.minimize(start, np.ones_like(start, dtype=bool), (~far)[None].astype(float))
        return np.asarray(found[0]), int(far.sum())

    def draws(self, rng: np.random.Generator, stretch: float) -> Array:
        """(R, P) thetas as likely as the rise of the loss leaves them, by importance sampling from a wider t; they
        reach ``stretch`` times as far."""
        size, huber = len(self.theta), self.huber
        wide, freedom = self.widening.max() * stretch**2, self.known.dof.min()
        t = rng.normal(size=(10 * DRAWS, size)) / np.sqrt(rng.chisquare(5, (10 * DRAWS, 1)) / 5)
        theta = self.theta + t @ np.linalg.cholesky(self.covariance * wide).T
        proposal = -(5 + size) / 2 * np.log1p((t**2).sum(1) / 5)
        rise = self.rise(huber.loss(huber.residuals(theta))) / wide
        weight = -(freedom + size) / 2 * np.log1p(rise / freedom) - proposal
        weight[((theta < huber.low) | (theta > huber.high)).any(1)] = -math.inf
        weight = np.exp(weight - weight.max())
        return np.asarray(theta[rng.choice(len(theta), DRAWS, p=weight / weight.sum())])


