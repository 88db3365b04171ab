"""Fit a law to rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize_scalar

from analysis.estimates import LEVEL, Estimate
from analysis.laws import forms
from analysis.laws.crossed import Carried, Seeds, carry
from analysis.laws.intervals import Chance, Problem, chance, draws, profile
from analysis.laws.law import Array, Law, LawFit
from analysis.observe import unmeasured
from trials.errors import UserError, no_column

DRAWS = 400  # for bands
REFITS = 1000  # for the bootstrap's intervals


def fit_law(data: pd.DataFrame, law: str | Law, x: str | Sequence[str], y: str, *, cluster: str | None = None,
            crossed: str | None = None, errors: tuple[str, str] | None = None,
            method: Literal["profile", "bootstrap"] = "profile", level: float = LEVEL, seed: int = 0) -> LawFit:
    """The law of ``y`` over the columns ``x`` by least squares: of ln y for log laws, of y for others.

    Rows where x or y is missing or infinite are left out (``method`` says how many). Rows with the same value in
    ``cluster`` share their chance, such as the layers of a trial or the trials at one x; by default each has its own.
    The values of ``crossed`` stand at many x, as seeds do, and shift their rows at all of them alike: the shifts are
    fitted beside the law, and its parameters carry what other seeds would change in them (``crossed.py``). They are
    those of a mean over seeds (of ln y in log laws). ``errors`` are columns of what is known of each row: the standard
    error of y (of ln y in log laws) and its degrees of freedom. Clusters then scatter alike; where errors make more of
    the variance of a parameter than that scatter does, it is theirs.

    ``profile`` intervals are those of the profile likelihood, by Student's t: they are exact for normal errors where
    the law is linear in its coordinates (a power law is), follow a law that bends, and are infinite (or 0) at an end
    that the data leave open. With clusters they rest on a cluster-robust variance (see ``intervals.chance``), so at
    least 5 clusters are advisable. ``bootstrap`` intervals, the percentiles of a wild bootstrap of clusters
    (``intervals.draws``), need no equal variances; ends that the profile leaves open stay so.

    Raises UserError for an unknown law or column, columns without numbers, y not above 0 for a log law, x where the law
    is not defined, and fewer rows, different inputs or clusters than it takes.
    """
    chosen = forms.law(law) if isinstance(law, str) else law
    inputs = (x,) if isinstance(x, str) else tuple(x)
    if len(inputs) != chosen.inputs:
        raise UserError(f"{chosen.name}: expected {chosen.inputs} columns for x, got {len(inputs)}")
    index, data = data.index, data.reset_index(drop=True)  # it may repeat itself, as that of tables put together
    rows, codes = numbers(data, (*inputs, y), chosen.name, cluster)
    problem = alone = pose(rows, chosen, inputs, y)  # with the shifts of seeds in it
    best, squares = solve(problem)
    seeds = _seeds(data, rows, inputs, codes, crossed, chosen.name)
    if seeds is not None:
        problem = replace(alone, target=seeds.free(alone.target), absorbed=seeds.basis)
        points, sums = problem.minimum(best[None], problem.target[None])
        best, squares = points[0], float(sums[0])
    shifted, slopes = alone.target - alone.fitted(best[None])[0], alone.jacobian(best[None])[0]
    residual, jacobian = (seeds.free(shifted), seeds.free(slopes.T).T) if seeds else (shifted, slopes)
    own = chance(jacobian, residual, codes, problem.absorbed)
    raised = False
    if errors is not None:
        own, raised = _at_least(_alike(own, residual, codes), *data.loc[rows.index, list(errors)].to_numpy(float).T)
    carried = carry(own, slopes, shifted, seeds) if seeds else None
    known = carried.known if carried else own
    shared = carried.noise if carried else None
    ends = profile(problem, best, squares, known, level)
    wald = best[:, None] + np.outer(known.critical(level) * known.se, (-1, 1))
    linear = bool(np.isfinite(ends).all() and np.allclose(ends - best[:, None], wald - best[:, None], rtol=1e-6))
    if method == "bootstrap":
        codes = np.arange(len(rows)) if codes is None else codes
        own = chance(jacobian, residual, codes, problem.absorbed)
        near = draws(problem, best, own, codes, linear, REFITS, seed, shared)
        quantiles = np.quantile(near, [(1 - level) / 2, (1 + level) / 2], axis=0).T
        ends = np.where(np.isfinite(ends), quantiles, ends)
    else:
        near = draws(problem, best, own, None if raised else codes, linear, DRAWS, seed, shared)
    low, high = problem.parameters(ends.T)
    estimates = {name: Estimate(float(value), float(below), float(above), level) for name, value, below, above
                 in zip(chosen.parameters, problem.parameters(best), low, high, strict=True)}
    fitted = np.exp(alone.target - residual) if chosen.log else alone.target - residual
    used = rows.assign(fitted=fitted, residual=residual, leverage=known.leverage,
                       cluster=np.arange(len(rows)) if codes is None else codes).set_axis(index[rows.index])
    said = "; from their own errors, which are more than their scatter about the law" if raised else ""
    taken = len(best) + (seeds.count - 1 if seeds else 0)
    how = _how(method, known, cluster, codes, len(data) - len(rows))
    return LawFit(chosen, inputs, y, estimates, used, float(np.sqrt(squares / (len(rows) - taken))),
                  aicc(alone, residual, taken, codes if cluster else None),
                  problem.parameters(near), how + said + (_of_seeds(data, crossed, carried, chosen) if crossed else ""))


def _alike(known: Chance, residual: Array, cluster: npt.NDArray[np.intp] | None) -> Chance:
    """``known`` where all clusters have one variance: that of their means, with a degree of freedom for each cluster
    beyond the coordinates (a one-way layout; Searle, Casella & McCulloch 1992, chapter 3)."""
    if cluster is None or (dof := int(cluster.max()) + 1 - len(known.se)) < 1:
        return known
    variance = float((np.bincount(cluster, residual) ** 2 / np.bincount(cluster)).sum()) / dof
    sigma = max(np.sqrt(variance), 1e-14 * float(np.abs(residual + 1.0).max()))
    se = np.where(np.isfinite(known.se), sigma * np.linalg.norm(known.influence, axis=1), np.inf)
    return replace(known, sigma=np.full(len(se), sigma), se=se, dof=np.full(len(se), float(dof)))


def _at_least(known: Chance, error: Array, dof: Array) -> tuple[Chance, bool]:
    """``known``, or for a coordinate of which the errors (n,) of rows, with these degrees of freedom (n,), make more,
    that (Satterthwaite 1946); and whether they do of any."""
    shares = (known.influence * error) ** 2
    own = np.sqrt(shares.sum(1))
    freedom = own**4 / np.maximum((shares**2 / dof).sum(1), 1e-200)
    more = np.isfinite(known.se) & (own > known.se)
    sigma = own / np.maximum(np.linalg.norm(known.influence, axis=1), 1e-200)
    return replace(known, se=np.where(more, own, known.se), sigma=np.where(more, sigma, known.sigma),
                   dof=np.where(more, freedom, known.dof)), bool(more.any())


def _seeds(data: pd.DataFrame, rows: pd.DataFrame, x: Sequence[str], cluster: npt.NDArray[np.intp] | None,
           crossed: str | None, place: str) -> Seeds | None:
    """The seeds of these rows, where they are crossed with x, or else with clusters, and leave a degree of freedom."""
    if crossed is None:
        return None
    if crossed not in data:
        raise no_column(place, crossed, data.columns)
    codes = pd.factorize(data.loc[rows.index, crossed])[0]
    if codes.min() < 0:
        raise UserError(f"{place}: column {crossed!r} has missing values; leave these rows out")
    for settings in (rows.groupby(list(x), sort=False).ngroup().to_numpy(), cluster):
        found = None if settings is None else Seeds.of(codes, settings)
        if found and settings is not None and len(rows) > settings.max() + found.count:
            return found
    return None


def _of_seeds(data: pd.DataFrame, crossed: str, carried: Carried | None, law: Law) -> str:
    """What the method says of seeds."""
    count = data[crossed].nunique()
    if count == 1:
        return f"; of one {crossed} alone: another may shift it"
    if carried is None:
        return f"; {count} values of {crossed}, not crossed with settings"
    text = f"; {count} values of {crossed} crossed with settings shift all rows (sd {carried.sd:.2g}) and are carried"
    differing = [name for name, differs in zip(law.parameters, carried.differing, strict=True) if differs]
    return text + (f", as is that they differ in {', '.join(differing)}" if differing else "")


def numbers(data: pd.DataFrame, columns: Sequence[str], place: str, cluster: str | None = None
            ) -> tuple[pd.DataFrame, npt.NDArray[np.intp] | None]:
    """The rows where all of these columns are finite numbers, as floats, and the codes (n,) of their clusters, which
    count from 0 in the order of the rows.

    Raises UserError that begins with ``place``: no such column, no numbers in it, no row left, a missing cluster, only
    one of them.
    """
    for name in (*columns, *([cluster] if cluster else [])):
        if name not in data:
            raise no_column(place, name, data.columns)
        if columns.count(name) > 1:
            raise UserError(f"{place}: column {name!r} is named twice; give different ones")
    for name in columns:
        if not pd.api.types.is_numeric_dtype(data[name]):
            raise UserError(f"{place}: column {name!r} holds {data[name].dtype}; give a column of numbers")
    values = pd.DataFrame({name: data[name].to_numpy(float, na_value=np.nan) for name in columns}, index=data.index)
    keep = np.isfinite(values.to_numpy()).all(1)
    rows = values[keep]
    if rows.empty:
        raise UserError(f"{place}: no row has numbers in all of {', '.join(columns)}; "
                        f"{unmeasured(data, columns) or 'see which trials have finished'}")
    if cluster is None:
        return rows, None
    codes = pd.factorize(data.loc[keep, cluster])[0]
    if codes.min() < 0:
        raise UserError(f"{place}: column {cluster!r} has missing values; leave these rows out")
    if codes.max() < 1:
        raise UserError(f"{place}: all rows have the same {cluster!r}; it takes two of them at least")
    return rows, codes


def pose(rows: pd.DataFrame, law: Law, x: Sequence[str], y: str) -> Problem:
    """The least-squares problem of ``law`` on these rows. Raises UserError where they do not suit the law."""
    inputs, values = rows[list(x)].to_numpy(), rows[y].to_numpy()
    if law.log and values.min() <= 0:
        raise UserError(f"{law.name}: {y} = {values.min():g} in a law of its logarithm; leave out rows with {y} <= 0")
    count = len(law.parameters)
    with np.errstate(all="ignore"):  # at powers of 1/2, say, a law is defined only where it is for all others
        tried = law.predict(np.full(count, 0.5), inputs)
        defined = np.isfinite(np.log(tried) if law.log else tried)
    if not defined.all():
        where = ", ".join(f"{name} = {value:g}" for name, value in zip(x, inputs[~defined][0], strict=True))
        raise UserError(f"{law.name}: not defined at {where}; leave out rows with {' or '.join(x)} <= 0")
    if (different := len(np.unique(inputs, axis=0))) < count or len(rows) <= count:
        raise UserError(f"{law.name}: {len(rows)} rows with {different} different values of {', '.join(x)} are too few "
                        f"for {count} parameters; it takes {count + 1} rows and {count} values at least")
    return Problem(law, inputs, np.log(values) if law.log else values)


def solve(problem: Problem) -> tuple[Array, float]:
    """The best coordinates (P,) from all of the law's starts, and their sum of squares."""
    values = np.exp(problem.target) if problem.law.log else problem.target
    starts = problem.coordinates(np.array(problem.law.start(problem.x, values)))
    points, squares = problem.minimum(starts, np.tile(problem.target, (len(starts), 1)))
    first = int(np.argmin(squares))
    return points[first], float(squares[first])


def aicc(problem: Problem, residual: Array, parameters: int, cluster: npt.NDArray[np.intp] | None) -> float:
    """Akaike's criterion with the correction for few rows (Hurvich & Tsai 1989), of the normal likelihood of y itself:
    a law of ln y gets the density of y from that of ln y, which makes it comparable with a law of y.

    With clusters the likelihood has one more parameter, the correlation within them.
    """
    n = len(residual)
    codes = np.arange(n) if cluster is None else cluster
    sizes = np.bincount(codes)
    between = np.bincount(codes, residual) ** 2 / sizes
    within = np.maximum(np.bincount(codes, residual**2) - between, 0.0)
    shared = bool(sizes.max() > 1)

    def deviance(correlation: float) -> float:
        apart, together = 1 - correlation, 1 + (sizes - 1) * correlation
        variance = max(float((within / apart + between / together).sum()) / n, 1e-300)
        return float(n * (np.log(2 * np.pi * variance) + 1) + ((sizes - 1) * np.log(apart) + np.log(together)).sum())

    least = deviance(0.0)
    if shared:
        least = min(least, float(minimize_scalar(deviance, bounds=(0.0, 1 - 1e-6), method="bounded").fun))
    k = parameters + 1 + shared
    jacobian = 2 * float(problem.target.sum()) if problem.law.log else 0.0
    return least + jacobian + (2 * k * n / (n - k - 1) if n > k + 1 else np.inf)


def _how(method: str, known: Chance, cluster: str | None, codes: npt.NDArray[np.intp] | None, dropped: int) -> str:
    groups = f"{codes.max() + 1} clusters of {cluster}" if cluster and codes is not None else "rows"
    low, high = known.dof.min(), known.dof.max()
    freedom = f"{low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g}"
    if method == "bootstrap":
        text = f"wild bootstrap of {groups}, {REFITS} draws"
    else:
        text = (f"profile likelihood{', variance from ' + groups if cluster else ''}, "
                f"t with {freedom} degrees of freedom")
    return text + (f"; {dropped} of {dropped + len(known.leverage)} rows without numbers left out" if dropped else "")
