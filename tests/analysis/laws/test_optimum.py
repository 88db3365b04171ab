"""Planted optima and edges of stability, textbook intervals, and laws through both."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.laws.adequacy import lack_of_fit
from analysis.laws.optimum import fit_optimum, largest_stable, optimum
from trials.errors import UserError

SIZES = 2.0 ** np.arange(4, 12)
RATES = np.geomspace(0.004, 4, 12)
BEST = 0.0055 * SIZES**0.5


def trials(loss, noise=0.0, seeds=1, seed=0, rates=RATES, sizes=SIZES, best=BEST):
    """A row for each batch size, learning rate and seed; ``loss`` of ln lr - ln best."""
    b, r, s = (each.ravel() for each in np.meshgrid(np.arange(len(sizes)), rates, np.arange(seeds), indexing="ij"))
    y = loss(np.log(r / best[b])) * np.exp(noise * np.random.default_rng(seed).normal(size=len(b)))
    return pd.DataFrame({"batch": sizes[b], "lr": r, "seed": s, "loss": y})


def parabola(u):
    return np.exp(-1 + 0.1 * u**2)


def skewed(u):
    return 0.5 + 0.1 * (np.exp(u) - 1 - u)


def test_the_vertex_of_a_parabola_is_exact():
    table = optimum(trials(parabola), "lr", "loss", "batch")
    assert table["batch"].tolist() == SIZES.tolist() and not table["at_edge"].any() and (table["rows"] == 5).all()
    np.testing.assert_allclose(table["lr"], BEST, rtol=0.003)  # 2001 places in a window of four steps
    flipped = optimum(trials(parabola).assign(loss=lambda rows: 1 / rows["loss"]), "lr", "loss", "batch", mode="max")
    np.testing.assert_allclose(flipped["lr"], table["lr"], rtol=1e-9)
    fit = fit_optimum(trials(parabola), "power", "lr", "loss", "batch")
    assert fit.estimates["exponent"].value == pytest.approx(0.5, abs=2e-3) and fit.x == ("batch",) and fit.y == "lr"


def test_the_interval_is_that_of_fieller():
    """In closed form, from the coefficients and covariance that numpy finds for each window."""
    data = trials(parabola, noise=0.01, seeds=3, seed=1)
    for row in optimum(data, "lr", "loss", "batch").itertuples():
        rows = data[data["batch"] == row.batch].assign(goal=lambda each: np.log(each["loss"]))
        smooth = np.convolve(rows.groupby("lr")["goal"].mean(), [1, 2, 1], mode="valid")
        near = rows[rows["lr"].isin(RATES[smooth.argmin() - 1: smooth.argmin() + 4])]
        u, goal = np.log(near["lr"]), near["goal"]
        assert row.rows == 15 and row.dof == 12
        (c, b, _), cov = np.polyfit(u, goal, 2, cov=True)
        t2 = stats.t.ppf(0.975, 12) ** 2
        # v with (b + 2 c v)^2 = t^2 var(b + 2 c v)
        roots = np.roots([4 * c**2 - 4 * t2 * cov[0, 0], 4 * b * c - 4 * t2 * cov[0, 1], b**2 - t2 * cov[1, 1]])
        np.testing.assert_allclose(np.log([row.low, row.high]), np.sort(roots), atol=0.002)
        assert np.log(row.lr) == pytest.approx(-b / (2 * c), abs=0.002)


def test_intervals_hold_the_optimum_whether_the_loss_is_skewed_or_not():
    """95 in 100, of 160 optima each: fewer than 140 is less than one case in a thousand."""
    for loss in (parabola, skewed):
        held = []
        for seed in range(20):
            table = optimum(trials(loss, 0.005, seeds=3, seed=seed), "lr", "loss", "batch")
            held += list((table["low"] <= BEST) & (table["high"] >= BEST))
        assert 140 <= sum(held) < len(held)


@pytest.mark.parametrize("loss, seeds", [(parabola, 1), (parabola, 4), (skewed, 2)])
def test_the_exponent_of_the_law_is_held(loss, seeds):
    """95 in 100, of 40: fewer than 33 is one case in a thousand."""
    fits = [fit_optimum(trials(loss, 0.02, seeds, seed), "power", "lr", "loss", "batch") for seed in range(40)]
    assert sum(fit.estimates["exponent"].covers(0.5) for fit in fits) >= 33


def test_optima_at_the_end_of_the_grid_are_censored_and_left_out():
    data = trials(parabola, rates=RATES[:7], noise=1e-4)
    table = optimum(data, "lr", "loss", "batch")
    assert table["at_edge"].tolist() == (RATES[5] * 1.37 < BEST).tolist() and 0 < table["at_edge"].sum() < 5
    at = table[table["at_edge"]]
    assert (at["lr"] == RATES[6]).all() and np.isinf(at["high"]).all() and np.isinf(at["se"]).all()
    fit = fit_optimum(data, "power", "lr", "loss", "batch")
    assert fit.n == 8 - len(at) and f"left out: {len(at)} at an edge of the grid, 0 not found" in fit.method
    assert fit.estimates["exponent"].covers(0.5)
    with pytest.raises(UserError, match=r"found at 0 of 2 values of batch.* at 2; it takes 3: widen"):
        fit_optimum(data[data["batch"] >= 1024], "power", "lr", "loss", "batch")


def test_diverged_trials_bound_the_optimum_and_do_not_censor_it():
    """The rates above twice the best diverge for one seed: the optimum is at their border, and known to the grid."""
    data = trials(parabola, noise=0.001, seeds=2)
    data.loc[(data["lr"] > 2 * np.repeat(BEST, 24)) & (data["seed"] == 1), "loss"] = np.nan
    table = optimum(data, "lr", "loss", "batch")
    assert not table["at_edge"].any() and (table["low"] <= BEST).all() and (table["high"] >= BEST).all()
    step = np.log(RATES[1] / RATES[0])
    border = table[np.isclose(table["se"], 2 * step / np.sqrt(12))]
    assert border["lr"].isin(RATES).all() and 2 <= len(border) < 8
    np.testing.assert_allclose(np.log(border["high"] / border["low"]), 2 * step)
    fit = fit_optimum(data, "power", "lr", "loss", "batch")
    assert fit.n == 8 and fit.estimates["exponent"].covers(0.5)


def test_seeds_that_differ_are_clusters():
    """Each seed with its own optimum: the interval is that of their mean, from as many numbers as there are seeds."""
    shift = np.array([-0.5, -0.1, 0.2, 0.5])
    data = trials(parabola, seeds=4)
    data["loss"] = parabola(np.log(data["lr"] / np.repeat(BEST, 48)) - shift[data["seed"]])
    table = optimum(data, "lr", "loss", "batch", cluster="seed")
    half = stats.t.ppf(0.975, 3) * shift.std(ddof=1) / 2
    np.testing.assert_allclose(np.log(table["lr"] / BEST), shift.mean(), atol=0.003)
    np.testing.assert_allclose(np.log(table["high"] / table["lr"]), half, atol=0.01)
    np.testing.assert_allclose(table["dof"], 3)


def stable(edges, rates=RATES, sizes=SIZES):
    """A row for each size, rate and replicate: whether the rate is below that replicate's edge (sizes, replicates)."""
    places = np.meshgrid(np.arange(len(sizes)), rates, np.arange(edges.shape[1]), indexing="ij")
    b, r, s = (each.ravel() for each in places)
    return pd.DataFrame({"batch": sizes[b], "lr": r, "ok": r < edges[b, s]})


def test_the_largest_stable_value_is_the_mean_of_the_replicates_midpoints():
    rng = np.random.default_rng(0)
    edges = BEST[:, None] * np.exp(0.6 * rng.normal(size=(8, 3)))
    table = largest_stable(stable(edges), "lr", "ok", "batch")
    step = np.log(RATES[1] / RATES[0])
    above = np.searchsorted(RATES, edges)
    middles = (np.log(RATES[above]) + np.log(RATES[above - 1])) / 2
    np.testing.assert_allclose(np.log(table["lr"]), middles.mean(1), rtol=1e-9)
    spread = middles.var(1, ddof=1).mean()
    dither = np.exp(-((2 * np.pi / step) ** 2) * max(spread - step**2 / 12, 0))
    np.testing.assert_allclose(table["se"], np.sqrt(spread / 3 + step**2 / 12 * dither), rtol=1e-9)
    assert (table["dof"] == 16).all() and table["rows"].tolist() == [36] * 8


def test_one_replicate_is_known_to_the_grid_step():
    table = largest_stable(stable(BEST[:, None]), "lr", "ok", "batch")
    step = np.log(RATES[1] / RATES[0])
    np.testing.assert_allclose(table["se"], step / np.sqrt(12), rtol=1e-9)
    assert ((table["low"] < BEST) & (table["high"] > BEST)).all()


def test_an_accident_does_not_make_an_edge_but_the_end_of_the_grid_does():
    data = stable(np.repeat(BEST[:, None], 5, axis=1))
    alone = data.index[(data["batch"] == 64) & (data["lr"] < 0.02)][7]
    table = largest_stable(data.assign(ok=data["ok"] & (data.index != alone)), "lr", "ok", "batch").set_index("batch")
    plain = largest_stable(data, "lr", "ok", "batch").set_index("batch")
    assert table.loc[64, "lr"] < plain.loc[64, "lr"] < 1.6 * table.loc[64, "lr"]
    low = largest_stable(stable(BEST[:, None], rates=RATES[4:]), "lr", "ok", "batch")
    assert low["at_edge"].tolist() == (RATES[4] > BEST).tolist() and low["at_edge"].any()
    assert np.isinf(low.loc[low["at_edge"], "high"]).all() and (low.loc[low["at_edge"], "low"] == 0).all()


def test_a_grid_that_puts_edges_on_a_line_does_not_make_them_certain():
    """Rates by factors of 2 over sizes by factors of 4: any exponent near 0.5 gives the same trials."""
    sizes, rates = 4.0 ** np.arange(6), 2.0 ** np.arange(-6, 8)
    data = stable(0.9 * sizes[:, None] ** 0.47, rates, sizes)
    fit = fit_optimum(data, "power", "lr", "ok", "batch", mode="largest_stable")
    exponent = fit.estimates["exponent"]
    assert exponent.value == pytest.approx(0.5, abs=1e-9) and exponent.covers(0.47) and not exponent.covers(0.3)
    assert (exponent.low, exponent.high) == pytest.approx((0.4, 0.6), abs=1e-5)  # a step more or less over five factors
    assert "more than their scatter" in fit.method and "6 largest stable values" in fit.method
    assert np.quantile(fit.draws[:, 1], [0.025, 0.975]) == pytest.approx([exponent.low, exponent.high], abs=0.02)


def test_the_exponent_of_stability_is_held():
    """95 in 100 or more, of 40: fewer than 33 is one case in a thousand."""
    held = 0
    for seed in range(40):
        edges = BEST[:, None] * np.exp(np.random.default_rng(seed).normal(0, 0.3, (8, 3)))
        fit = fit_optimum(stable(edges), "power", "lr", "ok", "batch", mode="largest_stable")
        held += fit.estimates["exponent"].covers(0.5)
    assert held >= 33


@pytest.mark.parametrize("change, message", [
    (lambda data: data.drop(columns="lr"), "optimum: no column called 'lr'"),
    (lambda data: data.assign(lr=data["lr"] - 1), "optimum: lr = -0.996 on an axis of logarithms"),
    (lambda data: data[data["lr"] < 0.02], "optimum: 3 values of lr at batch = 16 with a finite loss"),
    (lambda data: data.assign(loss=np.nan), "no row has numbers")])
def test_bad_input_is_named(change, message):
    with pytest.raises(UserError, match=message):
        fit_optimum(change(trials(parabola)), "power", "lr", "loss", "batch")


def test_stability_is_0_or_1():
    with pytest.raises(UserError, match="give a column of 0 and 1"):
        largest_stable(trials(parabola), "lr", "loss", "batch")
    with pytest.raises(UserError, match="no law called 'powr'; did you mean 'power'"):
        fit_optimum(trials(parabola), "powr", "lr", "loss", "batch")


def by_seed(rng, seeds=3, shift=0.5, noise=0.01, limit=np.inf):
    """Seeds shift the best rate of all sizes alike, and the level of the loss; rates above ``limit`` times a seed's own
    best diverge."""
    data = trials(parabola, noise, seeds, seed=int(rng.integers(1 << 30)))
    away = np.log(data["lr"] / np.repeat(BEST, len(RATES) * seeds)) - shift * rng.normal(size=seeds)[data["seed"]]
    level = np.exp(0.1 * rng.normal(size=seeds))[data["seed"]]
    return data.assign(loss=(data["loss"] / parabola(np.log(data["lr"] / np.repeat(BEST, len(RATES) * seeds)))
                             * parabola(away) * level).where(away < np.log(limit)), ok=away < 0)


@pytest.mark.parametrize(("seeds", "shift", "limit"), [(2, 0.5, np.inf), (3, 0.5, 3.0), (3, 0.0, np.inf)])
def test_seeds_that_shift_the_optimum_are_carried_by_the_scale_and_not_by_the_exponent(seeds, shift, limit):
    """95 in 100, of 30: fewer than 24 is less than one case in a thousand."""
    rng, held, widths = np.random.default_rng(1), np.zeros(2), []
    for _ in range(30):
        fit = fit_optimum(by_seed(rng, seeds, shift, limit=limit), "power", "lr", "loss", "batch", crossed="seed")
        held += [fit.estimates[name].covers(truth) for name, truth in (("scale", 0.0055), ("exponent", 0.5))]
        widths.append(fit.estimates["exponent"].high - fit.estimates["exponent"].low)
    assert held.min() >= 24 and np.median(widths) < 0.05


def test_seeds_that_shift_the_largest_stable_value_are_carried():
    """As above; the exponent holds what the grid leaves open, less than for one seed."""
    rng, held = np.random.default_rng(2), np.zeros(2)
    for _ in range(30):
        fit = fit_optimum(by_seed(rng), "power", "lr", "ok", "batch", mode="largest_stable", crossed="seed")
        held += [fit.estimates[name].covers(truth) for name, truth in (("scale", 0.0055), ("exponent", 0.5))]
    assert held.min() >= 24
    assert "crossed with settings" in fit.method and "every law through what the grid leaves open" in fit.method
    assert lack_of_fit(fit, fit.data["seed"]).p == 1.0


def test_one_seed_gives_what_no_seed_does_and_says_so():
    data = trials(parabola, 0.01)
    crossed, alone = (fit_optimum(data, "power", "lr", "loss", "batch", crossed=each) for each in ("seed", None))
    assert crossed.estimates == alone.estimates and "of one seed alone" in crossed.method


def test_a_seed_lacks_what_it_lacks_alone():
    """Few rates of one seed leave the optima of others as they are."""
    data = trials(parabola, seeds=3)
    few = data[(data["batch"] > 16) | (data["seed"] != 1) | (data["lr"] < RATES[3])]
    table = optimum(few, "lr", "loss", "batch", crossed="seed")
    assert len(table) == 24 and table["lr"].isna().sum() == 1
    np.testing.assert_allclose(table["lr"].dropna(), np.delete(np.repeat(BEST, 3), 1), rtol=0.003)
    assert "0 at an edge of the grid, 1 not found" in fit_optimum(few, "power", "lr", "loss", "batch",
                                                                 crossed="seed").method
    for change, message in ((data.drop(columns="seed"), "no column called 'seed'"),
                            (data.assign(seed=np.nan), "column 'seed' has missing values")):
        with pytest.raises(UserError, match=message):
            fit_optimum(change, "power", "lr", "loss", "batch", crossed="seed")
