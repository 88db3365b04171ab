"""What came out of a study: its tables, SQL over them, summaries and figures."""

from __future__ import annotations

from analysis.figures.esd import spectra_figure
from analysis.figures.overview import summary_figure
from analysis.load import Tables, axes, load
from analysis.phases import Thresholds, label_phases, sensitivity
from analysis.query import query
from analysis.summary import format_table, summary

__all__ = ["Tables", "Thresholds", "axes", "format_table", "label_phases", "load", "query", "sensitivity",
           "spectra_figure", "summary", "summary_figure"]
