"""Calibration of lack of fit: how often a law that is right, or one curve, is said not to be, and one that is wrong.

Asked: at most 5% of the right ones. Beside the chance of a row, settings scatter about the law by a chance of their
own, seeds shift all settings alike, and some settings lack a seed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.laws.adequacy import lack_of_fit
from analysis.laws.collapse import collapse
from analysis.laws.fit import fit_law

Array = npt.NDArray[np.float64]
REPEATS = 500
CURVES = 200
# Shares: noise of a row, of a setting, of a seed; which seed the largest settings lack.
CHANCE: dict[str, tuple[float, float, float, str]] = {
    "noise 10%": (0.1, 0.0, 0.0, ""), "noise 5% and 15% per setting": (0.05, 0.15, 0.0, ""),
    "noise 5% and 30% per seed": (0.05, 0.0, 0.3, ""), "the same, the highest seed lost": (0.05, 0.0, 0.3, "highest"),
    "the same, a fifth lost": (0.05, 0.0, 0.3, "some")}


def noisy(rng: np.random.Generator, rows: pd.DataFrame, y: Array, chance: str) -> pd.DataFrame:
    """Rows with ``setting`` and ``seed`` and what is measured there; some may be lost."""
    noise, by_setting, by_seed, lost = CHANCE[chance]
    setting, seed = rows["setting"].to_numpy(), rows["seed"].to_numpy()
    error = (noise * rng.normal(size=len(rows)) + by_setting * rng.normal(size=setting.max() + 1)[setting]
             + by_seed * rng.normal(size=seed.max() + 1)[seed])
    rows = rows.assign(y=y * np.exp(error))
    if lost == "highest":
        highest = rows.groupby("seed")["y"].mean().idxmax()
        rows = rows[(rows["x"] < rows["x"].max() / 5) | (rows["seed"] != highest)]
    elif lost:
        rows = rows[rng.random(len(rows)) > 0.2]
    return rows.reset_index(drop=True)


def line(name: str, setting: str, repeats: int, told: Callable[[np.random.Generator], float]) -> None:
    """Print how often p is below 5%."""
    rng = np.random.default_rng(1)
    share = np.mean([told(rng) < 0.05 for _ in range(repeats)])
    print(f"{name:<34}{setting:<52}{repeats:>8}{share:>10.1%}", flush=True)


def law(name: str, truth: Callable[[Array], Array], what: str, xs: int, seeds: int, chance: str = "noise 10%") -> None:
    """A law fitted to a truth over x from 1 to 1024."""
    rows = pd.MultiIndex.from_product([np.geomspace(1, 1024, xs), range(seeds)], names=["x", "seed"])
    frame = rows.to_frame(index=False).assign(setting=np.arange(xs * seeds) // seeds)
    y = truth(frame["x"].to_numpy())

    def p(rng: np.random.Generator) -> float:
        data = noisy(rng, frame, y, chance)
        fit = fit_law(data, name, "x", "y", cluster="setting" if seeds > 1 else None)
        return lack_of_fit(fit, data["seed"]).p

    line(f"{name} of {what}", f"{xs} x, {seeds} seeds, {chance}", REPEATS, p)


def curves(what: str, truth: Callable[[Array, Array], Array], chance: str = "noise 10%") -> None:
    """A collapse of 5 curves of 7 values, with 3 seeds."""
    rows = pd.MultiIndex.from_product([4.0 ** np.arange(1, 6), np.geomspace(0.01, 1, 7), range(3)],
                                      names=["b", "x", "seed"])
    frame = rows.to_frame(index=False).assign(setting=np.arange(105) // 3)
    y = truth(frame["x"].to_numpy(), frame["b"].to_numpy())

    def p(rng: np.random.Generator) -> float:
        data = noisy(rng, frame, y, chance)
        return collapse(data, "x", "y", "b", cluster="setting", crossed="seed").p_collapse

    line(f"collapse of {what}", f"5 curves of 7, 3 seeds, {chance}", CURVES, p)


def broken(x: Array) -> Array:
    """Exponent 0.2 below 32 and 0.7 above."""
    return np.where(x < 32, x**0.2, 32**0.2 * (x / 32) ** 0.7)


def sigmoid(x: Array, b: Array, exponent: float = 1.0, steepness: float | Array = 2.0) -> Array:
    """A step in x / b^exponent."""
    return np.asarray(0.1 + 1 / (1 + np.exp(-steepness * (np.log(x) - exponent * np.log(b) + 4.5))))


def main() -> None:
    """Print the table."""
    print(f"{'':<34}{'':<52}{'repeats':>8}{'p < 5%':>10}")
    for xs, seeds in ((5, 3), (11, 1), (11, 3), (20, 3)):
        law("power", np.sqrt, "a power", xs, seeds)
    for chance in list(CHANCE)[1:]:
        law("power", np.sqrt, "a power", 11, 3, chance)
    law("saturating", lambda x: 1 / (1 + 30 / x), "what saturates", 11, 3)
    law("power_offset", lambda x: 0.5 + x**-0.5, "power and offset", 11, 3)
    for xs, seeds in ((5, 3), (6, 3), (11, 1), (11, 3)):
        law("power", broken, "a broken power", xs, seeds)
    law("power", broken, "a broken power", 11, 3, "noise 5% and 15% per setting")
    law("power", lambda x: 1 / (1 + 30 / x), "what saturates", 11, 3)
    law("constant", lambda x: x**0.05, "exponent 0.05", 11, 3)
    for chance in CHANCE:
        curves("one curve", sigmoid, chance)
    curves("b^0.1 f(x / b^0.7)", lambda x, b: b**0.1 * sigmoid(x, b, 0.7))
    curves("steeper with b", lambda x, b: sigmoid(x, b, steepness=0.5 + 0.4 * np.log(b)))


if __name__ == "__main__":
    main()
