"""The laws that are known by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from analysis.laws.law import Array, Law
from trials.errors import UserError, did_you_mean


def _linear(columns: Sequence[Array | float], target: Array) -> Array:
    """Coefficients of ``target`` in ``columns`` by least squares; those of a constant column may be given as 1."""
    design = np.column_stack(np.broadcast_arrays(target, *columns)[1:])
    return np.asarray(np.linalg.lstsq(design, target, rcond=None)[0])


def _power(p: Array, x: Array) -> Array:
    return np.asarray(p[0] * x[:, 0] ** p[1])


def _power_start(x: Array, y: Array) -> list[Array]:
    intercept, exponent = _linear([1.0, np.log(x[:, 0])], np.log(y))
    return [np.array([np.exp(intercept), exponent])]


def _power2(p: Array, x: Array) -> Array:
    return np.asarray(p[0] * x[:, 0] ** p[1] * x[:, 1] ** p[2])


def _power2_start(x: Array, y: Array) -> list[Array]:
    intercept, first, second = _linear([1.0, np.log(x[:, 0]), np.log(x[:, 1])], np.log(y))
    return [np.array([np.exp(intercept), first, second])]


def _power_offset(p: Array, x: Array) -> Array:
    return np.asarray(p[0] + p[1] * x[:, 0] ** p[2])


def _power_offset_start(x: Array, y: Array) -> list[Array]:
    # What is left above an offset is a power law. The best offset may lie anywhere from 0 to just below the least y.
    offsets = y.min() * np.array([0.5, 0.9, 0.99, 0.05])
    return [np.array([offset, *_power_start(x, y - offset)[0]]) for offset in offsets]


def _saturating(p: Array, x: Array) -> Array:
    return np.asarray(p[0] / (1.0 + p[1] / x[:, 0]))


def _saturating_start(x: Array, y: Array) -> list[Array]:
    # 1/y = a + b/x with relative errors. Where noise makes a or b negative, the start is far out on that side.
    size = x[:, 0]
    a, b = _linear([y, y / size], np.ones_like(y))
    a, b = max(a, 1e-2 / y.max()), max(b, 1e-2 * size.min() / y.max())
    middle = np.exp(np.log(size).mean())
    return [np.array([1.0 / a, b / a]), np.array([np.exp(np.log(y * (1.0 + middle / size)).mean()), middle])]


def _surge(p: Array, x: Array) -> Array:
    ratio = np.sqrt(x[:, 0] / p[1])
    return np.asarray(2.0 * p[0] / (1.0 / ratio + ratio))


def _surge_start(x: Array, y: Array) -> list[Array]:
    # 1/y = a/sqrt(x) + b sqrt(x) with relative errors.
    root = np.sqrt(x[:, 0])
    a, b = _linear([y / root, y * root], np.ones_like(y))
    a, b = max(a, 1e-2 * root.min() / y.max()), max(b, 1e-2 / (root.max() * y.max()))
    return [np.array([0.5 / np.sqrt(a * b), a / b])]


def _log(p: Array, x: Array) -> Array:
    return np.asarray(p[0] + p[1] * np.log(x[:, 0]))


def _line(p: Array, x: Array) -> Array:
    return np.asarray(p[0] + p[1] * x[:, 0])


def _constant(p: Array, x: Array) -> Array:
    return np.asarray(p[0] + 0.0 * x[:, 0])


_SHAPES = (
    Law("power", "y = scale x^exponent", "any scaling law over a range without a scale of its own",
        ("scale", "exponent"), _power, _power_start, (True, False)),
    Law("power_offset", "y = offset + scale x^exponent, offset >= 0", "a power law down to, or up from, a floor",
        ("offset", "scale", "exponent"), _power_offset, _power_offset_start, (True, True, False)),
    Law("saturating", "y = maximum / (1 + x_half/x)", "McCandlish et al. 2018, arXiv 1812.06162: largest useful "
        "learning rate (maximum) and noise scale (x_half) over batch size; y = maximum/2 at x_half",
        ("maximum", "x_half"), _saturating, _saturating_start, (True, True)),
    Law("surge", "y = 2 maximum / (sqrt(x_peak/x) + sqrt(x/x_peak))", "Li et al. 2024, arXiv 2405.14578: best learning "
        "rate of Adam over batch size, which rises to a maximum at x_peak and falls again",
        ("maximum", "x_peak"), _surge, _surge_start, (True, True)),
    Law("log", "y = offset + slope ln x", "ultra-slow diffusion, such as distance over time",
        ("offset", "slope"), _log, lambda x, y: [_linear([1.0, np.log(x[:, 0])], y)], (False, False), log=False),
    Law("linear", "y = offset + slope x", "proportionality with an offset",
        ("offset", "slope"), _line, lambda x, y: [_linear([1.0, x[:, 0]], y)], (False, False), log=False),
    Law("constant", "y = value", "no dependence: what every other law is to be compared with",
        ("value",), _constant, lambda x, y: [np.exp(np.log(y).mean(keepdims=True))], (True,)),
    Law("power2", "y = scale x1^exponent1 x2^exponent2", "a power law of two inputs, such as learning rate and decay",
        ("scale", "exponent1", "exponent2"), _power2, _power2_start, (True, False, False), inputs=2),
)
LAWS = {each.name: each for each in _SHAPES}


def law(name: str) -> Law:
    """The law of this name in ``LAWS``. Raises UserError for one that there is not."""
    if name not in LAWS:
        raise UserError(f"no law called {name!r}; {did_you_mean(name, LAWS)}")
    return LAWS[name]


def beside(name: str, other: Law) -> Law:
    """The law of this name with errors as ``other`` has them, relative or absolute, so that a comparison of the two is
    one of their shapes. Raises UserError for a name that there is not."""
    found = law(name)
    if found.log == other.log:
        return found
    if found.name == "constant":
        return replace(found, log=False, positive=(False,), start=lambda x, y: [y.mean(keepdims=True)])
    return replace(found, log=other.log)
