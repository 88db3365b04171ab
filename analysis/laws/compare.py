"""Which of several laws the data prefer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.laws.law import LawFit
from trials.errors import UserError


def compare(fits: Sequence[LawFit]) -> pd.DataFrame:
    """Laws fitted to the same rows, a row each, by AICc, the best first (Burnham & Anderson 2002, chapter 2).

    Columns: ``law``; ``parameters``, their number; ``aicc``; ``delta``, how much above the best; ``weight``,
    exp(-delta/2) over the sum of it; ``evidence``, how many times likelier the best is: exp(delta/2). Laws of ln y and
    of y may stand side by side. Raises UserError for no fits, for fits to different rows, and for so few rows that AICc
    is infinite for all of them.
    """
    if not fits:
        raise UserError("compare: no fits to compare; give at least two")
    first = fits[0]
    for fit in fits[1:]:
        same = fit.y == first.y and fit.data.index.equals(first.data.index)
        if not (same and all(np.array_equal(fit.data[name], first.data[name]) for name in (fit.y, "cluster"))):
            raise UserError(f"compare: {fit.law.name} and {first.law.name} were not fitted to the same rows and "
                            "clusters; fit both to one table")
    table = pd.DataFrame({"law": [fit.law.name for fit in fits], "parameters": [len(fit.parameters) for fit in fits],
                          "aicc": [fit.aicc for fit in fits]})
    if not np.isfinite(table["aicc"].min()):
        raise UserError(f"compare: {first.n} rows are too few for AICc, which takes 3 more than a law has parameters")
    table["delta"] = table["aicc"] - table["aicc"].min()
    likelihood = np.exp(-table["delta"] / 2)
    table["weight"] = likelihood / likelihood.sum()
    with np.errstate(over="ignore"):
        table["evidence"] = np.exp(table["delta"].to_numpy() / 2)
    return table.sort_values("aicc", kind="stable", ignore_index=True)
