"""One frame to fit from: a row a trial, or a trial and layer, with its configuration and numbers."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from analysis.chance import at_chance
from analysis.claims.moment import NEAR, Moment
from trials.errors import UserError, did_you_mean
from trials.fields import is_number
from trials.records import COLUMNS, FINAL, FINISHED, MEASURED_BY

if TYPE_CHECKING:
    import pandas as pd

    from analysis.tables import Frames

MOST_SHOWN = 12  # layers that a line lists
# What follows from other columns.
DERIVED = ("diverged", "at_chance", "phase", "phase_probability", "accuracy_gap", "loss_gap", "lr_per_batch",
           "configuration")
_LABELS = frozenset(("phase", "phase_probability", "because"))  # what label_phases adds to a layer
_LAYER = frozenset(column.name for column in COLUMNS["layers"]) - {"trial_id", "step", "reason"}
_WHOLE = frozenset(column.name for table in ("layers", "steps") for column in COLUMNS[table]
                   if column.type == pa.int64()) - {"step"}
_STEP = frozenset(column.name for column in COLUMNS["steps"]) - {"trial_id"}


def known_columns(config: Iterable[str]) -> set[str]:
    """Every column that ``observations`` can give for a study with these config columns."""
    return {*config, *_LAYER, *_STEP, *DERIVED, *(column.name for column in COLUMNS["trials"])}


def observations(tables: Frames, columns: Collection[str], at: Moment = Moment(),
                 where: Mapping[str, Sequence[Any]] | None = None) -> pd.DataFrame:
    """The ``columns`` (and trial_id, configuration, seed, status) of every trial with a result, at one moment.

    A row a trial. Where a column of the table ``layers``, or ``phase``, is asked for, it is of one layer: ``where``
    names it, or it is the only one with such numbers. A row a trial and layer where ``layer`` is one of the columns, or
    ``where`` has a list of them (see ``pooled``). ``where`` keeps rows whose columns have one of some values (see
    ``named``). Derived columns: ``diverged`` (0 or 1), ``at_chance`` (0 or 1: the trial ended there, see chance.py),
    ``phase``, ``phase_probability`` and ``because`` (see phases.py), ``accuracy_gap`` (training minus test),
    ``loss_gap`` (test minus training), ``lr_per_batch`` (lr / batch_size) and ``configuration`` (a number for each
    setting, seeds apart).

    At a training loss numbers are interpolated between the two measured steps about it, and phases follow from
    interpolated order parameters.

    Trials without such a moment are left out, and, since numbers measured after a divergence are no results, those that
    diverged, unless ``diverged``, ``diverged_step`` or ``status`` is asked for. At a step ``diverged`` is whether they
    had by then; those that had are there, with nulls for what is measured in training. ``attrs`` has the ids of those
    left out under "absent" and "diverged", under "control" how well the moment is the same in all, and, at the end,
    under "at_chance" the ids of the rows' trials there.
    Raises UserError where nothing is left, or was measured then, or several layers are.
    """
    where = where or {}
    wanted = {*columns, *where}
    trials = tables.trials[tables.trials["status"].isin(FINAL)]
    cells = [axis for axis in tables.axes if axis != "seed"]
    settings = trials.groupby(cells, dropna=False, sort=False, observed=True).ngroup() if cells else 0
    trials = trials.assign(diverged=(trials["status"] == "diverged").astype(int), configuration=settings,
                           at_chance=trials["trial_id"].map(at_chance(tables)).astype(int))
    asked = trials.loc[_asked(trials, where), ["trial_id", "diverged"]]
    diverged: tuple[str, ...] = ()
    if not wanted & {"diverged", "status", "diverged_step"}:
        diverged = tuple(asked.loc[asked["diverged"] == 1, "trial_id"])
        trials = trials[trials["status"].isin(FINISHED)]
    if at.step is not None:  # by then
        by_then = (trials["diverged"] == 1) & (trials["diverged_step"] <= at.step)
        trials = trials.assign(diverged=by_then.astype(int))
    measured = wanted & (_LAYER | _LABELS)
    picked: pd.DataFrame | None = None
    absent: tuple[str, ...] = ()
    if not at.is_end or (wanted & _STEP) - set(trials.columns):
        steps = tables.table("steps").drop(columns=tables.axes)
        if at.is_end:
            steps = steps.sort_values("step").drop_duplicates("trial_id", keep="last")
        else:
            picked = at.pick(steps)
            if picked.empty:
                raise UserError(f"{tables.place}: no results {at}; {_reach(steps, at)}")
            steps = _between(steps, picked, ["trial_id"])
            there = trials["trial_id"].isin(steps["trial_id"]) | (trials["diverged"] == 1) & (at.step is not None)
            trials, gone = trials[there], trials[~there]
            absent = tuple(gone.loc[gone["trial_id"].isin(asked["trial_id"]), "trial_id"])
        trials = trials.drop(columns=[name for name in steps if name in trials and name != "trial_id"])
        trials = trials.merge(steps, on="trial_id", how="inner" if at.is_end else "left")
    if measured:
        trials = trials.merge(_layers(tables, measured, trials, picked), on="trial_id", suffixes=("", "_of_layer"))
    rows = _derived(trials)
    if rows.empty:
        raise UserError(f"{tables.place}: no results {at}")
    for name, values in where.items():
        found = list(rows[name].dropna().unique())
        rows = rows[rows[name].isin([value for wanted in values for value in named(wanted, found)])]
        if rows.empty:
            raise UserError(f"{tables.place}: no results {at} where {name} is {' or '.join(map(str, values))}; "
                            f"{did_you_mean(values[0], map(str, found))}")
    if measured and "layer" not in wanted:
        rows = _of_one(rows, measured - {"because"}, tables.place)
    if not {*columns} & (_LAYER | _LABELS):  # a trial is one row, however many of its layers ``where`` names
        rows = rows.drop_duplicates("trial_id")
    lost = tuple(rows.loc[rows["at_chance"] == 1, "trial_id"].drop_duplicates()) if at.is_end else ()
    kept = dict.fromkeys(["trial_id", "configuration", *({"seed"} & set(rows)), "status", *sorted(wanted)])
    rows = rows[list(kept)].reset_index(drop=True)
    if picked is not None:
        rows.attrs["control"] = at.spread(picked[picked["trial_id"].isin(rows["trial_id"])])
    rows.attrs |= {"absent": absent, "diverged": diverged, "at_chance": lost}
    if {*columns} & (_LAYER | _LABELS) and "layer" in where and (layers := rows["layer"].nunique()) > 1:
        rows.attrs["pooled"] = f"{layers} layers of {rows['trial_id'].nunique():,} trials"
    return rows


def _asked(trials: pd.DataFrame, where: Mapping[str, Sequence[Any]]) -> pd.Series:
    """Which trials have the configuration that ``where`` names; of what is measured it says nothing here."""
    asked = trials["trial_id"].notna()
    for name in where.keys() & set(trials.columns) - _STEP - set(DERIVED):
        found = list(trials[name].dropna().unique())
        asked &= trials[name].isin([value for wanted in where[name] for value in named(wanted, found)])
    return asked


def pooled(rows: pd.DataFrame) -> list[str]:
    """What to say of rows of several layers: ``2 layers of 30 trials``; nothing where they are of one."""
    return [rows.attrs["pooled"]] if "pooled" in rows.attrs else []


def name_one(columns: Iterable[str], layers: Sequence[str]) -> str:
    """What to say where it is open which of several layers is meant."""
    shown = ", ".join(layers[:MOST_SHOWN])
    if len(layers) > MOST_SHOWN:
        shown += f" and {len(layers) - MOST_SHOWN} more"
    return (f"{' and '.join(columns)} of {len(layers)} layers ({shown}), which are not independent trials; name one: "
            f'where: {{layer: "{layers[0]}"}}, or list those to be pooled')


def _of_one(rows: pd.DataFrame, measured: set[str], place: str) -> pd.DataFrame:
    """The rows of the one layer that has these numbers; UserError where several have."""
    layers = list(rows.dropna(subset=sorted(measured))["layer"].unique())
    if len(layers) > 1:
        raise UserError(f"{place}: there is {name_one(sorted(measured), layers)}")
    return rows[rows["layer"] == layers[0]] if layers else rows


def _reach(steps: pd.DataFrame, at: Moment) -> str:
    if at.step is not None:
        return f"measured steps end at {steps['step'].max():,}, and the nearest must be within a factor of {NEAR:g}"
    return f"the least training loss is {steps['train_loss'].min():.3g}"


def unmeasured(rows: pd.DataFrame, columns: Iterable[str]) -> str:
    """Which of these columns have no number at all, and what measures it; empty where each has one."""
    empty = [name for name in columns if len(rows) and rows[name].isna().all()]
    return "; ".join(f"{name} is null in all {len(rows):,} rows" + (
        f", it takes measure.{MEASURED_BY[name]}: last or log" if name in MEASURED_BY else "") for name in empty)


def named(wanted: Any, among: Iterable[Any]) -> list[Any]:
    """Those of the values ``among`` that ``wanted`` names: those equal to it, for real numbers to 1e-6 of it; else the
    one that is shown so when it is rounded, as tables do, to three digits, or to as many as are given. UserError where
    several are shown so. A whole number names the text that is spelt so, such as the layer "4"."""
    if isinstance(wanted, int) and not isinstance(wanted, bool) and (among := list(among)) and all(
            isinstance(value, str) for value in among):
        wanted = str(wanted)
    values = [value for value in among if isinstance(value, str) == isinstance(wanted, str)]
    equal = [value for value in values if value == wanted or (
        isinstance(value, float) and is_number(wanted) and math.isclose(value, wanted, rel_tol=1e-6))]
    if equal or not is_number(wanted):
        return equal
    digits = max(3, len(Decimal(repr(float(wanted))).normalize().as_tuple().digits))
    shown = [value for value in values if isinstance(value, float) and float(f"{value:.{digits}g}") == float(wanted)]
    if len(shown) > 1:
        raise UserError(f"{wanted} is how {', '.join(f'{value:.12g}' for value in shown)} are shown; give more digits")
    return shown


def phases_in_training(tables: Frames, layer: str) -> pd.DataFrame:
    """trial_id, step, ``phase`` and ``because`` of one layer, wherever it was measured in trials that finished."""
    import pyarrow.compute as pc

    from analysis.phases import READ, label_phases

    ids = tables.trials.loc[tables.trials["status"].isin(FINISHED), "trial_id"]
    rows = tables.table("layers", ["trial_id", "step", "layer", "reason", *READ],
                        (pc.field("layer") == layer) & pc.field("trial_id").isin(pa.array(ids, pa.string())))
    return label_phases(rows)[["trial_id", "step", "phase", "because"]]


def _layers(tables: Frames, wanted: set[str], trials: pd.DataFrame, picked: pd.DataFrame | None) -> pd.DataFrame:
    """The rows of the table ``layers`` at the steps that were picked, or the last, with what ``wanted`` takes."""
    import pyarrow.compute as pc

    from analysis.phases import READ, label_phases

    names = {"trial_id", "step", "layer", *(wanted - _LABELS), *(READ if wanted & _LABELS else ())}
    layers = tables.table("layers", sorted(names), pc.field("trial_id").isin(pa.array(trials["trial_id"], pa.string())))
    if picked is None:
        layers = layers[layers["step"] == layers.groupby("trial_id")["step"].transform("max")]
    else:
        layers = _between(layers, picked, ["trial_id", "layer"])
    if layers.empty:
        raise UserError(f"{tables.place}: no layers were measured then; run with measure.weights: log, into another "
                        "results folder where these trials have finished")
    if wanted & _LABELS:
        layers = label_phases(layers)
    return layers.drop(columns="step")


def _between(rows: pd.DataFrame, picked: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """The rows of ``steps`` or ``layers`` at picked moments: numbers interpolated (the step and the training loss in
    logarithms), counts rounded, and null where they are at either step; what is no number is that of the later step."""
    import numpy as np
    import pandas as pd

    late = rows.merge(picked, on=["trial_id", "step"]).set_index(key)
    early = rows.merge(picked[["trial_id", "before"]], left_on=["trial_id", "step"], right_on=["trial_id", "before"])
    late = late[late.index.isin(early.set_index(key).index)]
    early, weight = early.set_index(key).reindex(late.index), late["weight"]
    inside = weight < 1
    made = {name: late[name] for name in rows if name not in key}  # put together at once: a frame of many parts is slow
    for name in made:
        if inside.any() and pd.api.types.is_numeric_dtype(late[name]) and not pd.api.types.is_bool_dtype(late[name]):
            log = name in ("step", "train_loss")
            ends = [each[name].astype(float).clip(lower=1e-300 if name == "train_loss" else 1) if log else
                    each[name].astype(float) for each in (late, early)]
            after, before = (np.log(each) for each in ends) if log else ends
            value = weight * after + (1 - weight) * before
            value = np.exp(value) if log else value.round() if name in _WHOLE else value
            made[name] = value.where(inside, late[name])
    return pd.DataFrame(made, index=late.index).reset_index()


def _derived(rows: pd.DataFrame) -> pd.DataFrame:
    if {"lr", "batch_size"} <= set(rows):
        rows = rows.assign(lr_per_batch=rows["lr"] / rows["batch_size"])
    return rows.assign(accuracy_gap=rows["train_accuracy"] - rows["test_accuracy"],
                       loss_gap=rows["test_loss"] - rows["train_loss"])
