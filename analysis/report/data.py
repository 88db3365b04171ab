"""What the page's script draws: trials as columns, and training curves and spectra of a sample of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from analysis.cells import SPECTRAL, STATUSES, TRAINING, cell_axes, ends, labelled_layers, last_layers
from analysis.chance import at_chance
from analysis.figures.esd import bin_edges
from analysis.figures.replicates import named
from analysis.figures.style import LINES, PHASE_LOOKS, is_numeric, log_spaced, spans_decades
from analysis.phases import PHASES
from analysis.tables import Tables
from trials.records import FINISHED

TRIALS = 10_000  # at most, in the map and the table
DETAILED = 300  # of them with curves and spectra
STEPS = 40  # of a curve
BINS = 40  # of a spectrum
SPIKES = 30  # of a spectrum, the largest
LAYERS = 4  # those with the most eigenvalues
CURVES = 24  # metrics of the steps
SHARES = ("diverged", "at_chance")
WORDS = {"diverged": "share of diverged trials", "at_chance": "at chance", "trial_id": "trial",
         "wall_time": "wall time (s)"}


def page_data(tables: Tables) -> dict[str, Any]:
    """Plain data for JSON.

    ``columns`` holds a column of the trials each (name, label, numeric, log, values; null for none), ``axes`` and
    ``measures`` name those to choose from: a measure is a number, a ``share`` of trials, or one of ``categories`` with
    colour and marker. ``curves`` names what ``details`` has for each trial id of the sample: rows of steps and layers,
    and spectra as histograms in log-spaced bins. ``notes`` say what was left out.
    """
    layers, others = _layers(tables)
    trials, _ = ends(tables, layers)
    trials["diverged"] = (trials["status"] == "diverged").where(trials["status"] != "failed").astype(float)
    trials["at_chance"] = at_chance(tables).where(trials["status"].isin(FINISHED)).astype(float)
    if not trials["at_chance"].any():
        trials["at_chance"] = None
    trials = trials.join(_phases(tables, layers)).reset_index()
    by, total = cell_axes(tables), len(trials)
    trials = sample(trials, by, TRIALS)
    detailed = sample(trials, by, DETAILED)
    trials = trials.sort_index().sort_values(tables.axes, kind="stable")
    measures = [name for name in (*TRAINING, *SHARES, "status", *(
        f"{layer}.{metric}" for layer in layers for metric in (*SPECTRAL, "phase"))) if trials[name].notna().any()]
    shown = ["trial_id", *tables.axes, "status", *(name for name in measures if name not in ("status", "diverged")),
             "steps", "wall_time", "reason"]
    axes = [name for name in by if trials[name].nunique(dropna=False) > 1]
    details, curves = _details(tables, detailed["trial_id"].tolist(), layers)
    notes = [f"Map and table hold {len(trials):,} of {total:,} trials, drawn evenly over the cells."] * (
        len(trials) < total)
    if len(detailed) < len(trials):
        notes.append(f"Curves and spectra are in the page for {len(detailed):,} of {total:,} trials, drawn evenly over "
                     "the cells; the tables steps and spectra have them all.")
    notes.append(f"Curves are thinned to at most {STEPS} steps; spectra are histograms of at most {BINS} bins.")
    notes += [f"Layers not shown, of fewer eigenvalues: {', '.join(others)}."] * bool(others)
    return {
        "columns": [_column(trials[name], name) for name in dict.fromkeys([*shown, *measures])],
        "table": shown, "axes": axes or ["seed" if "seed" in tables.axes else "trial_id"],
        "measures": [_measure(trials[name], name) for name in measures],
        "curves": curves, "details": details, "notes": notes}


def sample(trials: pd.DataFrame, by: Sequence[str], count: int) -> pd.DataFrame:
    """At most ``count`` rows, the same at every call: one of each cell before a second of any, chosen by chance."""
    if len(trials) <= count:
        return trials
    mixed = trials.sample(frac=1, random_state=0)
    rank = mixed.groupby(list(by), dropna=False).cumcount() if by else pd.Series(0, mixed.index)
    return mixed.loc[rank.sort_values(kind="stable").index[:count]]


def plain(values: pd.Series) -> list[Any]:
    """A column as JSON has it: null for what is missing or infinite, text for what is neither number nor text, and for
    whole numbers that a browser would round."""
    def one(value: Any) -> Any:
        if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and not np.isfinite(value)):
            return None
        if isinstance(value, bool) or (isinstance(value, int) and abs(value) > 2**53):
            return str(value)
        return value if isinstance(value, (int, float)) else str(value)
    return [one(value) for value in values.astype(object).tolist()]


def title(name: str) -> str:
    """What a column is called, without the symbol that figures give it."""
    return WORDS.get(name) or named(name).partition("  ")[0].partition(" (")[0]


def _layers(tables: Tables) -> tuple[list[str], list[str]]:
    """(The weight matrices to show, the others), in the order of the model."""
    sizes = last_layers(tables, ()).groupby("layer", sort=False)["cols"].max()
    largest = set(sizes.nlargest(LAYERS).index)
    return [name for name in sizes.index if name in largest], [name for name in sizes.index if name not in largest]


def _phases(tables: Tables, layers: Sequence[str]) -> pd.DataFrame:
    """``LAYER.phase`` of each finished trial at its last step, by trial_id."""
    rows = labelled_layers(tables)
    return pd.DataFrame({f"{layer}.phase": rows[rows["layer"] == layer].set_index("trial_id")["phase"]
                         for layer in layers})


def _column(values: pd.Series, name: str) -> dict[str, Any]:
    numeric = is_numeric(values)
    return {"name": name, "label": title(name), "numeric": numeric,
            "log": numeric and log_spaced(values.dropna().drop_duplicates()), "values": plain(values)}


def _measure(values: pd.Series, name: str) -> dict[str, Any]:
    measure = {"name": name, "label": title(name), "share": name in SHARES}
    if is_numeric(values):
        return {**measure, "log": spans_decades(values)}
    order = PHASES if name != "status" else STATUSES
    looks = {category: look for category, look in zip(order, LINES, strict=False) if (values == category).any()}
    return {**measure, "categories": [
        {"name": category, "color": PHASE_LOOKS[category][0] if order is PHASES else color, "marker": marker}
        for category, (color, marker, _) in looks.items()]}


def _details(tables: Tables, ids: list[str], layers: Sequence[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """({trial id: its curves and spectra}, the curves there are)."""
    details: dict[str, dict[str, Any]] = {name: {"steps": {}, "layers": {}, "spectra": []} for name in ids}
    curves: list[dict[str, Any]] = []
    if not ids:
        return details, curves
    of_sample = _one_of("trial_id", ids)
    steps = tables.table("steps", filter=of_sample).drop(columns=[*tables.axes, "epoch", "elapsed"])
    steps = steps.dropna(axis=1, how="all")
    pairs = [(kind, [name for name in (f"train_{kind}", f"test_{kind}") if name in steps])
             for kind in ("loss", "accuracy")]
    singles = [name for name in steps if name not in ("trial_id", "step", *TRAINING) and is_numeric(steps[name])]
    for words, names in [*pairs, *((title(name), [name]) for name in singles[:CURVES - len(TRAINING)])]:
        if names:
            curves.append({"label": words, "table": "steps", "names": names})
    wide = tables.table("layers", ["trial_id", "step", "layer", *SPECTRAL],
                        of_sample & _one_of("layer", layers))
    wide = wide.pivot_table(index=["trial_id", "step"], columns="layer", values=list(SPECTRAL), dropna=False,
                            observed=True)
    wide.columns = [f"{layer}.{metric}" for metric, layer in wide.columns]
    wide = wide.dropna(axis=1, how="all").reset_index()
    names = [f"{layer}.{metric}" for metric in SPECTRAL for layer in layers]
    curves += [{"label": title(name), "table": "layers", "names": [name]} for name in names if name in wide]
    for table, frame in (("steps", steps), ("layers", wide)):
        kept = ["step", *(name for curve in curves if curve["table"] == table for name in curve["names"])]
        for trial_id, rows in frame.sort_values("step").groupby("trial_id"):
            rows = rows.iloc[np.unique(np.linspace(0, len(rows) - 1, STEPS).round().astype(int))]
            details[trial_id][table] = {name: [_digits(value) for value in plain(rows[name])] for name in kept}
    for spectrum in _spectra(tables, of_sample, layers):
        details[spectrum.pop("trial_id")]["spectra"].append(spectrum)
    return details, curves


def _spectra(tables: Tables, of_sample: pc.Expression, layers: Sequence[str]) -> list[dict[str, Any]]:
    """The last spectrum of each trial and layer, with the first beside it in the same bins, in the order of layers."""
    chosen = of_sample & _one_of("layer", layers)
    key = ["trial_id", "step", "layer"]
    stored = tables.table("spectra", key, chosen)
    grouped = stored.groupby(["trial_id", "layer"])["step"]
    ends = stored[(stored["step"] == grouped.transform("max")) | (stored["step"] == grouped.transform("min"))]
    values = tables.table("spectra", [*key, "eigenvalues"],
                          chosen & pc.field("step").isin(pa.array(ends["step"].unique(), pa.int64())))
    facts = tables.table("layers", [*key, "rows", "cols", "lambda_plus"], chosen)
    rows = ends.merge(values, on=key).merge(facts, on=key).sort_values("step")
    return [_histogram(found.iloc[0], found.iloc[-1]) for layer in layers
            for _, found in rows[rows["layer"] == layer].groupby("trial_id") if found["eigenvalues"].iloc[-1].max() > 0]


def _histogram(first: pd.Series, last: pd.Series) -> dict[str, Any]:
    """Counts of eigenvalues at the last step, and at the first if that is another, in bins of ln lambda."""
    edges = bin_edges(pd.Series([row["eigenvalues"] for row in (first, last)]), int(min(BINS, 8 + last["cols"] // 4)))
    edge, eigenvalues = last["lambda_plus"], np.asarray(last["eigenvalues"])
    above = eigenvalues > (edge if pd.notna(edge) else np.inf)
    beyond = np.sort(eigenvalues[above])[::-1]
    counts = {row["step"]: np.histogram(row["eigenvalues"], edges)[0].tolist() for row in (first, last)}
    facts = {"layer": last["layer"], "rows": int(last["rows"]), "cols": int(last["cols"]), "step": int(last["step"]),
             "count": len(eigenvalues), "edge": _digits(edge) if pd.notna(edge) else None}
    return {**facts, "trial_id": last["trial_id"], "low": float(edges[0]), "high": float(edges[-1]),
            "below": int((eigenvalues[~above] < edges[0]).sum()), "counts": counts[last["step"]],
            "beyond": len(beyond), "spikes": [_digits(value) for value in beyond[:SPIKES]],
            "first": None if first["step"] == last["step"] else {
                "step": int(first["step"]), "count": len(first["eigenvalues"]), "counts": counts[first["step"]]}}


def _one_of(name: str, values: Sequence[str]) -> pc.Expression:
    return pc.field(name).isin(pa.array(values, pa.string()))


def _digits(value: Any) -> Any:
    """Four significant digits, enough to draw."""
    return float(f"{value:.4g}") if isinstance(value, float) else value
