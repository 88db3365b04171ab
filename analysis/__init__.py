"""What came out of a study: its tables, SQL over them, summaries, laws, boundaries, verdicts and figures.

Names are looked up when they are used: studies are parsed without waiting for matplotlib, scipy and DuckDB.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.boundaries.surface import fit_boundary
    from analysis.cells import format_table, summary
    from analysis.claims.base import Claim, Verdict, judge
    from analysis.estimates import Estimate
    from analysis.figures.curves import curves
    from analysis.figures.esd import spectra_figure
    from analysis.figures.law import law_figure
    from analysis.figures.overview import summary_figure
    from analysis.figures.parallel import parallel_view
    from analysis.figures.phase_map import phase_map
    from analysis.figures.replicates import replicate_spread
    from analysis.figures.spectra_time import spectra_over_time
    from analysis.laws.collapse import collapse
    from analysis.laws.compare import compare
    from analysis.laws.fit import fit_law
    from analysis.laws.groups import fit_grouped
    from analysis.observe import observations
    from analysis.phases import Thresholds, label_phases, sensitivity
    from analysis.sql import query
    from analysis.studies import load_studies
    from analysis.tables import Tables, axes, load

_MODULES = {
    "boundaries.surface": ("fit_boundary",),
    "claims.base": ("Claim", "Verdict", "judge"),
    "estimates": ("Estimate",),
    "figures.curves": ("curves",),
    "figures.esd": ("spectra_figure",),
    "figures.law": ("law_figure",),
    "figures.overview": ("summary_figure",),
    "figures.parallel": ("parallel_view",),
    "figures.phase_map": ("phase_map",),
    "figures.replicates": ("replicate_spread",),
    "figures.spectra_time": ("spectra_over_time",),
    "laws.collapse": ("collapse",),
    "laws.compare": ("compare",),
    "laws.fit": ("fit_law",),
    "laws.groups": ("fit_grouped",),
    "tables": ("Tables", "axes", "load"),
    "observe": ("observations",),
    "phases": ("Thresholds", "label_phases", "sensitivity"),
    "sql": ("query",),
    "studies": ("load_studies",),
    "cells": ("format_table", "summary"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = ["Claim", "Estimate", "Tables", "Thresholds", "Verdict", "axes", "collapse", "compare", "curves",
           "fit_boundary", "fit_grouped", "fit_law", "format_table", "judge", "label_phases", "law_figure", "load",
           "load_studies", "observations", "parallel_view", "phase_map", "query", "replicate_spread", "sensitivity",
           "spectra_figure", "spectra_over_time", "summary", "summary_figure"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    return getattr(importlib.import_module(f"analysis.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
