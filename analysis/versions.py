"""Versions of a user's own code and data behind results: whether trials that are compared ran with the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def mixed(trials: pd.DataFrame) -> list[str]:
    """What to say where ``trials``, rows of the table ``trials``, of one model and task ran with several versions of
    their code, or saw several versions of the data of one task; how many of each."""
    words: list[str] = []
    if not {"code", "data", "config"} <= set(trials):  # of an earlier version of this package
        return words
    if len(own := trials[trials["code"].notna()]):
        for names, codes in own.groupby(["model", "task"], observed=True)["code"]:
            if codes.nunique() > 1:
                files = " and ".join(name for name in names if ":" in name)
                words.append(f"pools {_counts(codes)} trials of {codes.nunique()} versions of {files}")
    if len(seen := trials[trials["data"].notna()]):
        task = seen["config"].map(lambda config: json.dumps(json.loads(config)["task"], sort_keys=True))
        for _, rows in seen.groupby(task.to_numpy()):
            data = rows["data"].str.partition(" ")[0]  # the rest is for what differs in the last digits alone
            if data.nunique() > 1:
                words.append(f"pools {_counts(data)} trials of {data.nunique()} versions of the data of "
                             f"{rows['task'].iloc[0]}")
    return words


def _counts(values: pd.Series) -> str:
    return " and ".join(map(str, values.value_counts()))
