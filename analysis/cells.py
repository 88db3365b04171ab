"""The study in one table: for every combination of the swept axes, what became of its trials, and mean and spread."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from rich import box
from rich.markup import escape
from rich.table import Table

from analysis.chance import at_chance
from analysis.figures.style import plain
from analysis.phases import READ, label_phases, vote
from analysis.tables import Frames
from trials.errors import UserError, did_you_mean
from trials.records import FINISHED

STATUSES = ("completed", "stopped", "diverged", "failed")
TRAINING = ("train_accuracy", "test_accuracy", "train_loss", "test_loss")
PHASED = 4  # layers with a column ``phase``
SPECTRAL = ("stable_rank", "mp_softrank", "alpha")


def cell_axes(tables: Frames) -> list[str]:
    """The swept axes other than the seed: what tells the cells of a study apart."""
    return [axis for axis in tables.axes if axis != "seed"]


def last_layers(tables: Frames, metrics: Sequence[str] = SPECTRAL) -> pd.DataFrame:
    """A row for each weight matrix of each finished trial, at the last step it was measured: trial_id, step, layer,
    rows, cols and ``metrics``. Layers come in the order of the model; changes of weights, activations and the operators
    of convolutions, which have layers of their own in the table, are left out."""
    ids = tables.trials.loc[tables.trials["status"].isin(FINISHED), "trial_id"]
    layers = tables.table("layers", ["trial_id", "step", "layer", "rows", "cols", "kind", "of", *metrics],
                          pc.field("trial_id").isin(pa.array(ids, pa.string())))
    kind = layers["kind"].astype("string")
    other = kind.str.endswith("_operator") | (kind == "activation") | (layers["of"] == "change")
    layers = layers[~other.fillna(False)]
    return layers[layers["step"] == layers.groupby("trial_id")["step"].transform("max")]


def labelled_layers(tables: Frames) -> pd.DataFrame:
    """``last_layers`` with the ``phase`` of each matrix, and ``because`` (see phases.py)."""
    return label_phases(last_layers(tables, ["reason", *(name for name in READ if name not in ("rows", "cols"))]))


def main_layer(layers: pd.DataFrame) -> str:
    """The layer of ``last_layers`` to show where only one can be: the widest hidden weight matrix, that is the one with
    the most eigenvalues (its smaller side), and of these the one with the most rows."""
    name: str = layers.sort_values(["cols", "rows"], ascending=False, kind="stable")["layer"].iloc[0]
    return name


def ends(tables: Frames, layers: Sequence[str] | None = None) -> tuple[pd.DataFrame, list[str]]:
    """(A row a trial, the layers shown): the trials table with ``LAYER.metric`` columns from ``last_layers``.

    ``layers`` is ``main_layer`` by default, none where none was measured. Losses and accuracies of trials that did not
    finish are null: they are no final numbers. Raises UserError for a layer that no finished trial has.
    """
    spectra = last_layers(tables)
    known = list(dict.fromkeys(spectra["layer"]))
    chosen = list(layers) if layers is not None else [main_layer(spectra)] if known else []
    for layer in chosen:
        if layer not in known:
            raise UserError(f"{tables.place}: no layer called {layer!r}; {did_you_mean(layer, known)}")
    trials = tables.trials.set_index("trial_id")
    trials[list(TRAINING)] = trials[list(TRAINING)].where(trials["status"].isin(FINISHED))
    for layer in chosen:
        of_layer = spectra[spectra["layer"] == layer].set_index("trial_id")[list(SPECTRAL)]
        trials = trials.join(of_layer.add_prefix(f"{layer}."))
    return trials, chosen


def summary(tables: Frames, layers: Sequence[str] | None = None) -> pd.DataFrame:
    """A row for each combination of the swept axes except ``seed``, in ascending order.

    Columns: the axes; how many trials ``completed``, ``stopped``, ``diverged`` and ``failed``; how many finished
    ``at_chance``; ``n``, those that finished; ``LAYER.phase`` of each layer (at most ``PHASED``, those with the most
    eigenvalues), the commonest label after training, with its share where the trials disagree: ``bulk+spikes 2/3``;
    then over these n trials the mean of train and test accuracy and loss, and for each of ``layers`` (by default
    ``main_layer``) of its spectral metrics at the last measured step: ``LAYER.stable_rank`` and so on, never over
    several layers. ``*_sd`` is the standard deviation over the trials (n - 1 in the denominator, null for one trial),
    ``*_n`` the number of trials that have the metric, where some have not (alpha is null where the tail is no power
    law). Accuracies are left out for a regression. Raises UserError for a layer that no finished trial has.
    """
    trials, chosen = ends(tables, layers)
    trials["study"] = tables.name
    by = [trials[key] for key in cell_axes(tables) or ["study"]]
    status = trials["status"]
    finished = status.isin(FINISHED)
    counts = pd.DataFrame({name: status == name for name in STATUSES}).assign(
        at_chance=at_chance(tables).reindex(trials.index), n=finished)
    cells = counts.groupby(by, dropna=False, observed=True).sum()
    for name, labels in _phases(tables).items():
        of = [key[finished] for key in by]
        cells[name] = labels.reindex(trials.index[finished]).groupby(of, dropna=False, observed=True).agg(_vote)
    values = trials[[*TRAINING, *(f"{layer}.{metric}" for layer in chosen for metric in SPECTRAL)]]
    grouped = values.groupby(by, dropna=False, observed=True)
    mean, spread, number = grouped.mean(), grouped.std(), grouped.count()
    for name in values:
        if name in TRAINING and values[name].isna().all():
            continue
        cells[name], cells[f"{name}_sd"] = mean[name], spread[name]
        if (number[name] != cells["n"]).any():
            cells[f"{name}_n"] = number[name]
    return cells.reset_index()


def _phases(tables: Frames) -> dict[str, pd.Series]:
    """``LAYER.phase`` by trial_id, of the layers that have labels, in the order of the model."""
    labelled = labelled_layers(tables)
    sizes = labelled.dropna(subset="phase").groupby("layer", sort=False)["cols"].max()
    shown = set(sizes.nlargest(PHASED).index)
    return {f"{name}.phase": rows.set_index("trial_id")["phase"]
            for name, rows in labelled.groupby("layer", sort=False) if name in shown}


def _vote(labels: pd.Series) -> str | None:
    """The commonest label of the trials of a cell, with its share where they disagree."""
    phase, agree = vote(labels)
    return phase if phase is None or agree == len(labels) else f"{phase} {agree}/{len(labels)}"


def format_table(frame: pd.DataFrame, limit: int = 48, width: int = 80, first: Sequence[str] = ()) -> Table:
    """The means in the frame of ``summary`` for a terminal: three significant digits, at most ``limit`` rows.

    Losses are shown where there are no accuracies, counts of trials only where there are any. Where rows are left
    out, a line says how many and how to ask for them; columns that do not fit into ``width`` characters are left out
    from the right, those in ``first`` last.
    """
    keys = list(frame.columns[:frame.columns.get_loc("completed")])
    hidden = {"completed", *(name for name in (*STATUSES, "at_chance") if not frame[name].any())}
    quantity = "test_loss"
    if "test_accuracy" in frame:
        hidden |= {"train_loss", "test_loss"}
        quantity = "test_accuracy"
    shown = [name for name in frame.columns if name not in hidden and not name.endswith("_sd")]
    ahead = shown.index("n") + 1
    shown[ahead:] = sorted(shown[ahead:], key=lambda name: name not in first)
    heads = {name: name.replace(".", "_").replace("accuracy", "acc.").replace("softrank", "soft_rank").split("_")
             for name in shown}
    cells = {name: [plain(value) for value in frame[name].head(limit)] for name in shown}
    room = width + 3  # the last column has nothing behind it
    fitting = []
    for name in shown:
        room -= max(map(len, heads[name] + cells[name])) + 3
        if room < 0 and name not in keys:
            break
        fitting.append(name)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in fitting:
        table.add_column(escape("\n".join(heads[name])), justify="right", vertical="bottom", no_wrap=True)
    for row in zip(*(cells[name] for name in fitting), strict=True):
        table.add_row(*map(escape, row))
    table.caption = "means over the n trials that finished; standard deviations in summary.csv"
    if "at_chance" in fitting:
        table.caption += "\nat chance: of these n, those whose training loss is that of guessing"
    if any(name.endswith(".alpha_n") for name in fitting):
        table.caption += "\nalpha: of the trials (alpha n) whose tail passes as a power law"
    if len(fitting) < len(shown):
        table.caption += f"\nsummary.csv also has {', '.join(shown[len(fitting):])}"
    if len(frame) > limit:
        table.caption += (f"\n{len(frame) - limit} more rows are in summary.csv; to ask for some:\nphasesweep query "
                          f'STUDY "SELECT {", ".join(keys)}, avg({quantity}) FROM trials GROUP BY ALL"')
    table.caption_justify = "left"
    return table
