"""Trials that ended at chance: their network tells no more about the training data than a constant output does.

Either training never left the loss of guessing, or it broke later, and went back there. The trial has finished all the
same, and the weights have a spectrum; but it is not that of a trained network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow.compute as pc

from trials.records import FINISHED

if TYPE_CHECKING:
    import pandas as pd

    from analysis.tables import Frames

NEAR = 0.99  # of the loss of guessing: with less the network has learned something


def at_chance(tables: Frames) -> pd.Series:
    """Whether each trial finished at chance, by trial_id: its last training loss is less than 1% below ``chance_loss``,
    that of the best constant output. For trials of versions that did not write this it is the loss before training."""
    trials = tables.trials.set_index("trial_id")
    guess = trials["chance_loss"].astype(float)
    if (guess.isna() & trials["status"].isin(FINISHED)).any():
        before = tables.table("steps", ["trial_id", "train_loss"], pc.field("step") == 0)
        guess = guess.fillna(before.drop_duplicates("trial_id").set_index("trial_id")["train_loss"].astype(float))
    loss = trials["train_loss"].astype(float)
    found: pd.Series = trials["status"].isin(FINISHED) & (guess > 0) & (loss >= NEAR * guess)
    return found.rename("at_chance")
