"""What came out of a study: its tables, SQL over them, summaries, laws, boundaries, verdicts and figures.

Names are looked up when they are used: studies are parsed without waiting for matplotlib, scipy and DuckDB.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.boundaries.finite_size import fit_finite_size
    from analysis.boundaries.levelset import agreement, level_set
    from analysis.boundaries.surface import fit_boundary, same_slope_test, slope_test
    from analysis.cells import format_table, summary
    from analysis.claims.base import Claim, Verdict
    from analysis.claims.family import judge
    from analysis.estimates import Estimate
    from analysis.figures.collapse import collapse_figure
    from analysis.figures.curves import curves
    from analysis.figures.esd import spectra_figure
    from analysis.figures.law import law_figure
    from analysis.figures.overview import summary_figure
    from analysis.figures.parallel import parallel_view
    from analysis.figures.phase_map import phase_map
    from analysis.figures.phases import headline_figure, phases_figure, walk_figure
    from analysis.figures.replicates import replicate_spread
    from analysis.figures.spectra_time import spectra_over_time
    from analysis.figures.trend import trend_figure
    from analysis.laws.broken import fit_broken
    from analysis.laws.collapse import collapse
    from analysis.laws.compare import compare
    from analysis.laws.fit import fit_law
    from analysis.laws.groups import fit_grouped
    from analysis.laws.optimum import fit_optimum, largest_stable, optimum
    from analysis.laws.scaling import crossover, fit_scaling
    from analysis.laws.trend import trend
    from analysis.laws.walk import walk, walk_in_training
    from analysis.observe import observations
    from analysis.phases import Thresholds, label_phases, sensitivity
    from analysis.selection import select
    from analysis.sql import query
    from analysis.studies import load_studies
    from analysis.tables import Tables, axes, load

_MODULES = {
    "boundaries.finite_size": ("fit_finite_size",),
    "boundaries.levelset": ("agreement", "level_set"),
    "boundaries.surface": ("fit_boundary", "same_slope_test", "slope_test"),
    "claims.base": ("Claim", "Verdict"),
    "claims.family": ("judge",),
    "estimates": ("Estimate",),
    "figures.collapse": ("collapse_figure",),
    "figures.curves": ("curves",),
    "figures.esd": ("spectra_figure",),
    "figures.law": ("law_figure",),
    "figures.overview": ("summary_figure",),
    "figures.parallel": ("parallel_view",),
    "figures.phase_map": ("phase_map",),
    "figures.phases": ("headline_figure", "phases_figure", "walk_figure"),
    "figures.replicates": ("replicate_spread",),
    "figures.spectra_time": ("spectra_over_time",),
    "figures.trend": ("trend_figure",),
    "laws.broken": ("fit_broken",),
    "laws.collapse": ("collapse",),
    "laws.compare": ("compare",),
    "laws.fit": ("fit_law",),
    "laws.groups": ("fit_grouped",),
    "laws.optimum": ("fit_optimum", "largest_stable", "optimum"),
    "laws.scaling": ("crossover", "fit_scaling"),
    "laws.trend": ("trend",),
    "laws.walk": ("walk", "walk_in_training"),
    "tables": ("Tables", "axes", "load"),
    "observe": ("observations",),
    "phases": ("Thresholds", "label_phases", "sensitivity"),
    "selection": ("select",),
    "sql": ("query",),
    "studies": ("load_studies",),
    "cells": ("format_table", "summary"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = ["Claim", "Estimate", "Tables", "Thresholds", "Verdict", "agreement", "axes", "collapse", "collapse_figure",
           "compare", "crossover", "curves", "fit_boundary", "fit_broken", "fit_finite_size", "fit_grouped", "fit_law",
           "fit_optimum", "fit_scaling", "format_table", "headline_figure", "judge", "label_phases", "largest_stable",
           "law_figure", "level_set", "load", "load_studies", "observations", "optimum", "parallel_view", "phase_map",
           "phases_figure", "query", "replicate_spread", "same_slope_test", "select", "sensitivity",
           "slope_test", "spectra_figure", "spectra_over_time", "summary", "summary_figure", "trend",
           "trend_figure", "walk", "walk_figure", "walk_in_training"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    return getattr(importlib.import_module(f"analysis.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
