"""The spectral metrics of the weight matrices of any model file: a PyTorch state dict, safetensors, NumPy's .npz and
.npy, or a folder or index of shards. Tensors are read one at a time, and no code in the file is run.

The weights are those that the model uses: quantized ones are multiplied with their scales (also with scale_inv),
weight_norm, spectral_norm and pruning applied, LoRA added. Where the file leaves a doubt, a layer has no numbers but a
reason.

Eigenvalues are of X = W^T W / N, W of N rows and M <= N columns; kernels of convolutions are flattened, fused queries,
keys and values and the gates of recurrent layers split. What kind a layer is of is guessed from names and shapes. alpha
is shown with its 95% interval where the tail passes as a power law; else it is "-", with what the gate said first."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from orchestrator import outputs
from trials.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from trials.matrices import Matrix
    from trials.optimizers.base import Params
    from trials.stored import Stored

EXAMPLE = "phasesweep spectra model.safetensors --layers '*attn*' --plot spectra.pdf"

NORMALIZATION = "eigenvalues of X = W^T W / N"
WIDE = 200  # columns of a table that goes to a file or a pipe
LONGEST, LISTED = 2000, 20  # rows of the table, and names in a line
PAGE, PICTURE = 8, 24  # panels on a page of a PDF, and at most in a single picture


def add(parser: argparse.ArgumentParser) -> None:
    """FILE, which layers, and where the numbers go."""
    parser.add_argument("file", metavar="FILE", help="a PyTorch state dict, safetensors, a folder or an index.json")
    parser.add_argument("--layers", metavar="PATTERN", help="only layers of this name; * and ? stand for anything")
    parser.add_argument("--json", action="store_true", help="print all metrics as JSON")
    parser.add_argument("--parquet", metavar="PATH", help="write all metrics and the eigenvalues")
    parser.add_argument("--plot", metavar="PATH", help="draw each layer's spectrum, bulk and tail (.pdf, .png ...)")


def main(args: argparse.Namespace, console: Console) -> int:
    """Measure, then print the table and write what is asked for."""
    from trials.matrices import guessed_matrices
    from trials.stored import is_real
    from trials.written import written_weights

    stored = written_weights(args.file)
    shapes = {name: one.shape for name, one in stored.items()
              if is_real(one) or (one.dtype is not None and (one.made or one.trouble))}
    left = {name: _left_out(one) for name, one in stored.items()
            if name not in shapes and (len(one.shape) >= 2 or one.dtype is None)}
    chosen = _choose(guessed_matrices(shapes), args.layers, args.file, left)
    _check_outputs(args.parquet, args.plot, len(chosen))
    rows = list(_measure(chosen, stored))
    if args.parquet:
        _write(rows, args.parquet)
    if args.plot:
        _plot(rows, args.plot, Path(args.file).name)
    if args.json:
        layers = [{name: value for name, value in row.items() if name != "eigenvalues"} for row in rows]
        print(json.dumps({"file": args.file, "normalization": NORMALIZATION, "layers": layers, "left_out": left},
                         indent=1))
        return 0
    _print(rows, console)
    for why in dict.fromkeys(left.values()):
        console.print(f"left out, {_printable(why)}: {_some([name for name in left if left[name] == why])}",
                      highlight=False, markup=False)
    return 0


def _left_out(stored: Stored) -> str:
    """Why a tensor is no layer."""
    import torch

    if stored.dtype is None:
        return stored.trouble
    return "int8 without scales" if stored.dtype == torch.int8 else "for not being real numbers"


def _some(names: list[str]) -> str:
    shown = ", ".join(map(_printable, names[:LISTED]))
    return f"{shown} and {len(names) - LISTED:,} more" if len(names) > LISTED else shown


def _choose(found: list[Matrix], pattern: str | None, place: str, left: dict[str, str]) -> list[Matrix]:
    """The matrices that are asked for; UserError if there are none."""
    if not found:
        why = f" (left out: {', '.join(f'{_printable(name):.60}, {left[name]}' for name in list(left)[:3])})"
        raise UserError(f"{place}: no weight matrices in it: no tensors of two or more dimensions of real numbers"
                        f"{why if left else ''}")
    chosen = [matrix for matrix in found if pattern is None or fnmatchcase(matrix.layer, pattern)]
    if not chosen:
        names = [matrix.layer for matrix in found]
        near = did_you_mean(pattern, names)
        if not near.startswith("did"):
            near = f"there is: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        raise UserError(f"--layers: {pattern!r} matches no layer of {place}; {near}")
    return chosen


def _check_outputs(parquet: str | None, plot: str | None, panels: int) -> None:
    """Refuse before the work what could not, or must not, be written after it."""
    outputs.check("--parquet", parquet, "parquet")
    outputs.check("--plot", plot, Path(plot or "").suffix[1:].lower())
    if parquet and plot and os.path.realpath(parquet) == os.path.realpath(plot):
        raise UserError(f"--plot: {plot} is where --parquet goes; give another path")
    if plot is None:
        return
    from analysis.files import formats

    ending, known = Path(plot).suffix[1:].lower(), formats()
    if ending not in known:
        raise UserError(f"--plot: expected a path that ends in .{', .'.join(known)}; got {plot}")
    if ending != "pdf" and panels > PICTURE:
        raise UserError(f"--plot: {panels} layers are too many for one picture ({PICTURE}); take fewer with --layers, "
                        "or a .pdf, which has pages")


def _measure(chosen: Iterable[Matrix], stored: dict[str, Stored]) -> Iterator[dict[str, Any]]:
    """A row for each matrix; one tensor is in memory at a time."""
    from trials.stored import real
    from trials.weights import null_row, weight_rows

    groups = [(name, list(parts)) for name, parts in groupby(chosen, key=lambda matrix: matrix.name)]
    bar = Console(stderr=True)
    with Progress(console=bar, transient=True, disable=not bar.is_terminal) as progress:
        task = progress.add_task("layers", total=sum(len(parts) for _, parts in groups))
        for name, parts in groups:
            one = stored[name]
            weights: Params = {}
            if not one.trouble and 0 not in one.shape:
                progress.update(task, description=escape(_printable(parts[0].layer)))
                weights[name] = real(one.load())
            for matrix in parts:
                if weights:
                    [row], [eigenvalues] = weight_rows([matrix.of(weights)])
                else:
                    row, eigenvalues = null_row(one.trouble or "no entries"), None
                yield {"layer": matrix.layer, "kind_guess": matrix.kind, "shape": list(one.shape),
                       "dtype": str(one.dtype).removeprefix("torch."), "made": one.made or None, **row,
                       "eigenvalues": eigenvalues}
            progress.advance(task, len(parts))


def _print(rows: list[dict[str, Any]], console: Console) -> None:
    """The table, and below it how some weights are made, and why some numbers are not there."""
    said = dict.fromkeys(row[name] for name in ("made", "reason") for row in rows if row[name])
    notes = {text: number for number, text in enumerate(said, 1)}
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("layer", overflow="fold", min_width=16)
    for name in ("kind?", "N x M", "stable\nrank", "MP soft\nrank", "spikes", "alpha", "notes"):
        table.add_column(name, no_wrap=True, justify="left" if name in ("kind?", "notes") else "right")
    for row in rows[:LONGEST]:
        size = "-" if row["rows"] is None else f"{row['rows']} x {row['cols']}"
        cells = [_printable(row["layer"]), row["kind_guess"], size,
                 *(_short(row[name]) for name in ("stable_rank", "mp_softrank", "n_spikes")), _alpha(row),
                 " ".join(str(notes[row[name]]) for name in ("made", "reason") if row[name])]
        table.add_row(*map(escape, cells))
    if not console.is_terminal:
        console.width = WIDE
    console.print(table, soft_wrap=False)
    if len(rows) > LONGEST:
        console.print(f"and {len(rows) - LONGEST:,} more layers", highlight=False, markup=False)
    for text, number in notes.items():
        console.print(f"{number}  {_printable(text)}", highlight=False, markup=False)
    console.print(f"{NORMALIZATION}; all metrics: --json, --parquet PATH", highlight=False, markup=False)


def _alpha(row: dict[str, Any]) -> str:
    """alpha with its interval, or the first thing that the gate asks for and did not see."""
    from trials.spectra.alpha import LEAST_P, LEAST_RATIO, SMALLEST

    if row["alpha"] is not None:
        return f"{row['alpha']:.2f} [{row['alpha_low']:.2f}, {row['alpha_high']:.2f}]"
    for name, value, least in (("n", row["alpha_tail"], SMALLEST), ("p", row["alpha_p"], LEAST_P),
                               ("ratio", row["alpha_ratio"], LEAST_RATIO)):
        if value is None or value < least:
            return "-" if value is None else f"- ({name} {value:.2g})"
    return "- (bulk)"


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _printable(name: str) -> str:
    """A name from a file, harmless to a terminal."""
    return name if name.isprintable() else repr(name)


def _write(rows: list[dict[str, Any]], path: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from trials.records import COLUMNS
    from trials.spectra import METRICS

    spectrum = next(column for column in COLUMNS["spectra"] if column.name == "eigenvalues")
    text = [pa.field(name, pa.string()) for name in ("layer", "kind_guess", "dtype", "made", "reason")]
    sizes = [pa.field("shape", pa.list_(pa.int64())), pa.field("rows", pa.int64()), pa.field("cols", pa.int64())]
    schema = pa.schema([*text[:2], *sizes, *text[2:4], *(column.field for column in METRICS), text[4], spectrum.field],
                       metadata={"normalization": NORMALIZATION})
    try:
        pq.write_table(pa.Table.from_pylist(rows, schema), path)
    except OSError as error:
        raise UserError(f"--parquet: {path} cannot be written: {error.strerror or error}") from None


def _plot(rows: list[dict[str, Any]], path: str, name: str) -> None:
    from analysis.figures.esd import model_figure
    from analysis.files import save

    drawn = [row for row in rows if row["eigenvalues"] and row["eigenvalues"][0] > 0]
    if not drawn:
        raise UserError(f"--plot: nothing to draw: no layer of {name} has an eigenvalue above 0")
    try:
        each = PAGE if Path(path).suffix.lower() == ".pdf" else len(drawn)
        save((model_figure(name, drawn[first:first + each]) for first in range(0, len(drawn), each)), path)
    except OSError as error:
        raise UserError(f"--plot: {path} cannot be written: {error.strerror or error}") from None
