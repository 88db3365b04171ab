"""One law for several groups of rows, which share some of its parameters and have their own of the others."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from scipy.special import fdtrc

from analysis.estimates import LEVEL, Estimate
from analysis.laws import forms
from analysis.laws.fit import aicc, fit_law, numbers, pose, solve
from analysis.laws.law import Array, Law, LawFit
from trials.errors import UserError, did_you_mean


@dataclass(frozen=True)
class GroupedFit:
    """A law fitted to groups that share some parameters.

    ``shared`` has an Estimate for each parameter that they share. ``groups`` is a table with a row a group, by its
    value in the column of groups: ``n`` and, for each parameter of its own, NAME, NAME_low and NAME_high. ``fits`` has
    the law of each group as a LawFit (its AICc is that of all groups together). ``p_shared`` is the p-value of "shared"
    in the F test against parameters that are all each group's own, ``evidence`` how many times likelier the shared fit
    is than that one by AICc, exp((AICc_own - AICc_shared) / 2): above 1 it speaks for shared parameters.
    """

    shared: Mapping[str, Estimate]
    groups: pd.DataFrame = field(repr=False)
    fits: Mapping[Hashable, LawFit] = field(repr=False)
    p_shared: float
    evidence: float
    method: str


def fit_grouped(data: pd.DataFrame, law: str | Law, x: str | Sequence[str], y: str, group: str, shared: Sequence[str],
                *, level: float = LEVEL, seed: int = 0) -> GroupedFit:
    """Fit ``law`` with one value of the parameters ``shared`` for all values of the column ``group``, and one for each
    of the others, by the least squares and profile intervals of ``fit_law``; rows are independent.

    The F test has (groups - 1) x shared and n - groups x parameters degrees of freedom, and supposes that rows of all
    groups vary alike. Raises UserError as ``fit_law`` does, for each group, for a parameter that the law has not, and
    for fewer than two groups.
    """
    chosen = forms.law(law) if isinstance(law, str) else law
    inputs = (x,) if isinstance(x, str) else tuple(x)
    for name in shared:
        if name not in chosen.parameters:
            raise UserError(f"{chosen.name}: no parameter called {name!r}; {did_you_mean(name, chosen.parameters)}")
    if not shared:
        raise UserError(f"{chosen.name}: nothing to share; name some of {', '.join(chosen.parameters)}")
    rows, _ = numbers(data := data.reset_index(drop=True), (*inputs, y), chosen.name, group)
    codes, names = pd.factorize(data.loc[rows.index, group])
    alone = [_alone(rows[codes == code], chosen, inputs, y, f"{group} {name}") for code, name in enumerate(names)]
    joint = _joint(chosen, shared, names)
    fit = fit_law(rows.assign(**{group: codes}), joint, (*inputs, group), y, level=level, seed=seed)

    estimates = list(fit.estimates.values())
    fits: dict[Hashable, LawFit] = {}
    table = []
    for code, name in enumerate(names):
        places = _places(chosen, shared, code)
        own = {parameter: estimates[place] for parameter, place in zip(chosen.parameters, places, strict=True)}
        fits[name] = replace(fit, law=chosen, x=inputs, estimates=own, draws=fit.draws[:, places],
                             data=fit.data[codes == code].drop(columns=group))
        table.append({group: name, "n": int((codes == code).sum())})
        for parameter in chosen.parameters:
            if parameter not in shared:
                each = own[parameter]
                table[-1] |= {parameter: each.value, f"{parameter}_low": each.low, f"{parameter}_high": each.high}

    residual = np.concatenate(alone)
    free = len(rows) - len(names) * len(chosen.parameters)
    extra = (len(names) - 1) * len(shared)
    unexplained = float((residual**2).sum()) / free
    added = max(float((fit.data["residual"] ** 2).sum()) - unexplained * free, 0.0) / extra
    p_shared = float(fdtrc(extra, free, added / unexplained)) if unexplained > 0 else float(added == 0)
    own_aicc = aicc(pose(rows, chosen, inputs, y), residual, len(rows) - free, None)
    with np.errstate(over="ignore", invalid="ignore"):
        evidence = float(np.exp((own_aicc - fit.aicc) / 2))
    return GroupedFit({name: fit.estimates[name] for name in shared}, pd.DataFrame(table), fits, p_shared, evidence,
                      fit.method)


def _alone(rows: pd.DataFrame, law: Law, x: Sequence[str], y: str, place: str) -> Array:
    """Residuals of a group with parameters of its own."""
    try:
        problem = pose(rows, law, x, y)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    return np.asarray(problem.target - problem.fitted(solve(problem)[0][None])[0])


def _places(law: Law, shared: Sequence[str], code: int) -> list[int]:
    """Where the parameters of one group stand among those of all: the shared ones first, then group by group."""
    apart = [name for name in law.parameters if name not in shared]
    first = len(shared) + code * len(apart)
    return [list(shared).index(name) if name in shared else first + apart.index(name) for name in law.parameters]


def _joint(law: Law, shared: Sequence[str], names: Sequence[Hashable]) -> Law:
    """The law of all groups: its last input is the code of the group."""
    places = [_places(law, shared, code) for code in range(len(names))]
    apart = [name for name in law.parameters if name not in shared]
    positive = dict(zip(law.parameters, law.positive or (False,) * len(law.parameters), strict=True))

    def predict(parameters: Array, x: Array) -> Array:
        y = np.empty(len(x))
        for code, mine in enumerate(places):
            rows = x[:, -1] == code
            y[rows] = law.predict(parameters[mine], x[rows, :-1])
        return y

    def start(x: Array, y: Array) -> list[Array]:
        each = [law.start(x[x[:, -1] == code, :-1], y[x[:, -1] == code]) for code in range(len(names))]
        return [_merge(starts) for starts in zip(*each, strict=False)]

    def _merge(starts: Sequence[Array]) -> Array:
        merged = np.empty(len(shared) + len(names) * len(apart))
        for mine, parameters in zip(places, starts, strict=True):
            merged[mine] = parameters
        for place, name in enumerate(shared):  # the middle of what the groups say, which an outlying one leaves alone
            merged[place] = np.median([parameters[law.parameters.index(name)] for parameters in starts])
        return merged

    return replace(law, name=f"{law.name} with one {' and '.join(shared)}", predict=predict, start=start,
                   parameters=(*shared, *(f"{name}[{group}]" for group in names for name in apart)),
                   positive=tuple(positive[name] for name in [*shared, *apart * len(names)]),
                   inputs=law.inputs + 1)
