"""Ask a study's results in SQL (DuckDB's dialect): tables trials, steps, layers, spectra; the swept axes are columns of
all four, `phasesweep list metrics` names the others. The SQL can only read, and reaches neither files nor the
network."""

from __future__ import annotations

import argparse
import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orchestrator.commands import common

EXAMPLE = ('phasesweep query batch_size_phases "SELECT batch_size, avg(test_accuracy) FROM trials GROUP BY 1 ORDER BY 1"')

SHOWN = 50  # rows on a terminal; --csv has them all


def add(parser: argparse.ArgumentParser) -> None:
    """STUDY, the SQL and the results folder."""
    parser.add_argument("study", metavar="STUDY", help="a study's name, its YAML file or its results folder")
    parser.add_argument("sql", metavar="SQL", help="one SELECT statement")
    parser.add_argument("overrides", nargs="*", metavar="results=PATH", default=[], help="where the results are")
    parser.add_argument("--csv", action="store_true", help="print all rows as CSV")


def main(args: argparse.Namespace, console: Console) -> int:
    """Print the answer as a table or as CSV."""
    import analysis  # here: it brings matplotlib, which the other verbs need not wait for

    frame = analysis.query(common.results_folder(args), args.sql)
    if args.csv:
        frame.to_csv(sys.stdout, index=False)
        return 0
    table = Table(show_edge=False, pad_edge=False)
    for name in frame.columns:
        numeric = frame[name].dtype.kind in "iuf"
        table.add_column(escape(str(name)), justify="right" if numeric else "left", overflow="fold")
    for row in frame.head(SHOWN).itertuples(index=False):
        table.add_row(*(escape(f"{value:.6g}" if isinstance(value, float) else str(value)) for value in row))
    console.print(table)
    if len(frame) > SHOWN:
        console.print(f"{len(frame) - SHOWN} more rows; --csv prints them all, LIMIT takes fewer", highlight=False)
    return 0
