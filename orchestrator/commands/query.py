"""Ask a study's results in SQL (DuckDB's dialect): tables trials, steps, layers, spectra; the swept axes are columns of
all four, `phasesweep list metrics` names the others. The SQL can only read, and reaches neither files nor the
network."""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import math
import sys
from collections.abc import Iterator
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from orchestrator.commands import common
from trials.errors import UserError

EXAMPLE = ('phasesweep query batch_size_phases \\\n'
           '    "SELECT batch_size, avg(test_accuracy) FROM trials GROUP BY 1 ORDER BY 1"')

SHOWN, LONGEST = 50, 60  # rows, and characters of a value, on a terminal; --csv has them all
COUNTED = 1_000_000  # of the rows that are not shown: an answer may have no end


def add(parser: argparse.ArgumentParser) -> None:
    """STUDY, the SQL and the results folder."""
    parser.add_argument("study", metavar="STUDY", help="a study's name, its YAML file or its results folder")
    parser.add_argument("sql", metavar="SQL", help="one SELECT statement")
    parser.add_argument("overrides", nargs="*", metavar="results=PATH", default=[], help="where the results are")
    parser.add_argument("--csv", action="store_true", help="print all rows as CSV")


def main(args: argparse.Namespace, console: Console) -> int:
    """Print the answer as a table or as CSV; a batch of its rows is in memory at a time."""
    from analysis.sql import stream  # here: it brings DuckDB and pandas, which the other verbs need not wait for

    for word in args.overrides:
        if not word.startswith(("results=", "into=")):
            raise UserError(f"{word!r}: query asks all that is in a results folder, whatever a study asks for; say in "
                            "the SQL which rows are wanted, such as WHERE lr < 0.1")
    try:
        with contextlib.closing(stream(common.results_folder(args), args.sql)) as answer:
            if args.csv:
                _print_csv(answer)
            else:
                _show(answer, console)
    except KeyboardInterrupt:
        from orchestrator.cli import INTERRUPTED, complain

        complain("query: interrupted")
        return INTERRUPTED
    return 0


def _print_csv(answer: Iterator[pa.RecordBatch]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for place, batch in enumerate(answer):
        if not place:
            writer.writerow(batch.schema.names)
        writer.writerows(map(_text, row) for row in _rows(batch))


def _rows(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    """The rows as values of Python; whole numbers stay whole where there are nulls too, in this batch or another."""
    frame = batch.to_pandas(integer_object_nulls=True)
    return iter(frame.itertuples(index=False, name=None))


def _show(answer: Iterator[pa.RecordBatch], console: Console) -> None:
    """The first rows as a table; where that is too wide, without columns that are empty in all of them; where it is too
    wide all the same, each row as a list."""
    first: list[tuple[Any, ...]] = []
    more = 0
    for batch in answer:
        names = [str(name) for name in batch.schema.names]
        taken = batch.slice(0, SHOWN - len(first))
        first += _rows(taken)
        more += batch.num_rows - taken.num_rows
        if more > COUNTED:
            break
    rows = [[_short(value) for value in row] for row in first]
    every = list(range(len(names)))
    told = [i for i in every if any(row[i] for row in rows)] or every
    for shown in (every, told):
        table = Table(show_edge=False, pad_edge=False)
        for i in shown:
            numeric = all(isinstance(row[i], Number) for row in first)
            table.add_column(escape(names[i]), justify="right" if numeric else "left", no_wrap=True)
        for row in rows:
            table.add_row(*(escape(row[i]) for i in shown))
        if Measurement.get(console, console.options.update(max_width=10**6), table).maximum <= console.width:
            console.print(table)
            if empty := [names[i] for i in every if i not in shown]:
                console.print(escape(f"empty in these rows: {', '.join(empty)}"), highlight=False)
            break
    else:
        width = max(map(len, names))
        for i, row in enumerate(rows, 1):
            console.print(f"row {i}", style="bold", highlight=False)
            for name, value in zip(names, row, strict=True):
                console.print(escape(f"  {name:<{width}}  {value}"), highlight=False)
    if more:
        number = f"{more:,}" if more <= COUNTED else f"more than {COUNTED:,}"
        console.print(f"{number} more rows; --csv prints them all, LIMIT takes fewer", highlight=False)


def _text(value: Any) -> str:
    """A value as text: nothing for a null, lists and structures as JSON."""
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, (np.ndarray, list, dict)):
        return json.dumps(value, default=lambda item: item.tolist() if hasattr(item, "tolist") else str(item))
    return str(value)


def _short(value: Any) -> str:
    """A value on one line, cut where it is long."""
    text = f"{value:.6g}" if isinstance(value, float) and not math.isnan(value) else " ".join(_text(value).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST - 3]}..."
