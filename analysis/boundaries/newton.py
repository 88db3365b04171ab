"""Newton's method for a logistic likelihood with Firth's penalty, from many starts at once and along given planes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
STEPS, HALVINGS = 100, 30  # at most


def state(design: Array, ones: Array, trials: Array, coefficients: Array, penalty: Array
           ) -> tuple[Array, Array, Array]:
    """l + penalty (l* - l) (B,), p (B, n) and the Fisher information (B, C, C) at each row of coefficients (B, C)."""
    eta = coefficients @ design.T
    small = np.exp(-np.abs(eta))
    value = eta @ ones - (np.maximum(eta, 0.0) + np.log1p(small)) @ trials
    information = gram(design, trials * small / (1.0 + small) ** 2)
    with np.errstate(divide="ignore"):
        sign, logarithm = np.linalg.slogdet(information)
    value += np.where(penalty == 0.0, 0.0, 0.5 * np.where(sign > 0, logarithm, -np.inf))
    return value, np.where(eta >= 0, 1.0, small) / (1.0 + small), information


def gram(design: Array, weights: Array) -> Array:
    """X' diag(weights) X for each row of weights (B, n): (B, C, C), kept from being singular."""
    columns = design.shape[1]
    outer = design[:, :, None] * design[:, None, :]
    product = (weights @ outer.reshape(len(design), -1)).reshape(-1, columns, columns)
    least = 1e-13 * np.trace(product, axis1=1, axis2=2) + 1e-200
    return np.asarray(product + least[:, None, None] * np.eye(columns))


def maximize(design: Array, ones: Array, trials: Array, start: Array, basis: Array, penalty: Array,
              tolerance: float) -> tuple[Array, Array, Array]:
    """Newton's method with step halving from each start (B, C) along its basis (B, C, F), all at once.

    Returns coefficients (B, C), the value (B,) of l* where the penalty (B,) is 1 and of l where it is 0, and whether
    each has converged. The matrix is that of a likelihood whose trials count (1 + leverage) times: its score is that of
    l*, and under separation it needs half the steps that the Fisher information does.
    """
    coefficients = start.copy()
    value, p, information = state(design, ones, trials, coefficients, penalty)
    active = np.arange(len(start))
    converged = np.isfinite(value)
    for _ in range(STEPS):
        weights = trials * p[active] * (1.0 - p[active])
        leverage = weights * np.einsum("nc,bcn->bn", design, np.linalg.inv(information[active]) @ design.T)
        leverage *= penalty[active, None]
        score = (ones - trials * p[active] + leverage * (0.5 - p[active])) @ design
        across = basis[active].transpose(0, 2, 1)
        along = across @ score[:, :, None]
        step = np.linalg.solve(across @ gram(design, weights * (1.0 + leverage / trials)) @ basis[active], along)
        move = (basis[active] @ step)[:, :, 0]
        open_ = 0.5 * (step * along).sum(axis=(1, 2)) > tolerance
        active, move = active[open_], move[open_]
        waiting = np.arange(len(active))
        for halving in range(HALVINGS):
            if not len(waiting):
                break
            rows = active[waiting]
            tried = coefficients[rows] + 0.5**halving * move[waiting]
            new = state(design, ones, trials, tried, penalty[rows])
            better = new[0] > value[rows]
            coefficients[rows[better]], waiting = tried[better], waiting[~better]
            value[rows[better]], p[rows[better]], information[rows[better]] = (item[better] for item in new)
        active = np.delete(active, waiting)  # rounding keeps these from what was promised
        if not len(active):
            break
    converged[active] = False
    return coefficients, value, converged
