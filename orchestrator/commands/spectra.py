"""The spectral metrics of the weight matrices of any model file: a PyTorch state dict, safetensors, or a folder or
index of shards. Tensors are read one at a time, and no code in the file is run.

Eigenvalues are of X = W^T W / N, W of N rows and M <= N columns; kernels of convolutions are flattened, fused queries,
keys and values and the gates of recurrent layers split. What kind a layer is of is guessed from names and shapes. alpha
is shown with its 95% interval where the tail passes as a power law; else it is "-", with what the gate said first."""

from __future__ import annotations

import argparse
import json
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

from trials.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from trials.matrices import Matrix
    from trials.weightfiles import Stored

EXAMPLE = "phasesweep spectra model.safetensors --layers '*attn*' --plot spectra.pdf"

NORMALIZATION = "eigenvalues of X = W^T W / N"
WIDE = 200  # columns of a table that goes to a file or a pipe
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
    from trials.weightfiles import stored_tensors

    stored = stored_tensors(args.file)
    shapes = {name: tensor.shape for name, tensor in stored.items() if tensor.dtype.is_floating_point}
    chosen = _choose(guessed_matrices(shapes), args.layers, args.file)
    _check_outputs(args.parquet, args.plot, len(chosen))
    rows = list(_measure(chosen, stored))
    if args.parquet:
        _write(rows, args.parquet)
    if args.plot:
        _plot(rows, args.plot, Path(args.file).name)
    if args.json:
        layers = [{name: value for name, value in row.items() if name != "eigenvalues"} for row in rows]
        print(json.dumps({"file": args.file, "normalization": NORMALIZATION, "layers": layers}, indent=1))
        return 0
    _print(rows, console)
    left = [name for name, tensor in stored.items() if len(tensor.shape) >= 2 and name not in shapes]
    if left:
        console.print(f"left out, for not being real numbers: {', '.join(map(_printable, left))}", highlight=False,
                      markup=False)
    return 0


def _choose(found: list[Matrix], pattern: str | None, place: str) -> list[Matrix]:
    """The matrices that are asked for; UserError if there are none."""
    if not found:
        raise UserError(f"{place}: no weight matrices in it: no tensors of two or more dimensions of real numbers")
    chosen = [matrix for matrix in found if pattern is None or fnmatchcase(matrix.layer, pattern)]
    if not chosen:
        names = [matrix.layer for matrix in found]
        near = did_you_mean(pattern, names)
        if not near.startswith("did"):
            near = f"there is: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        raise UserError(f"--layers: {pattern!r} matches no layer of {place}; {near}")
    return chosen


def _check_outputs(parquet: str | None, plot: str | None, panels: int) -> None:
    """Refuse before the work what could not be written after it."""
    for option, path in (("--parquet", parquet), ("--plot", plot)):
        if path is not None and not Path(path).absolute().parent.is_dir():
            raise UserError(f"{option}: no folder {Path(path).parent} to write {Path(path).name} to")
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
    import torch

    from trials.weights import weight_rows

    groups = [(name, list(parts)) for name, parts in groupby(chosen, key=lambda matrix: matrix.name)]
    bar = Console(stderr=True)
    with Progress(console=bar, transient=True, disable=not bar.is_terminal) as progress:
        task = progress.add_task("layers", total=sum(len(parts) for _, parts in groups))
        for name, parts in groups:
            progress.update(task, description=escape(_printable(parts[0].layer)))
            tensor = stored[name].load()
            if tensor.dtype not in (torch.float32, torch.float64):
                tensor = tensor.float()  # exact for all shorter types
            for matrix in parts:
                [row], [eigenvalues] = weight_rows([matrix.of({name: tensor})])
                yield {"layer": matrix.layer, "kind_guess": matrix.kind, "shape": list(stored[name].shape),
                       "dtype": str(stored[name].dtype).removeprefix("torch."), **row, "eigenvalues": eigenvalues}
                progress.advance(task)


def _print(rows: list[dict[str, Any]], console: Console) -> None:
    """The table, and below it why some numbers are not there."""
    why = dict.fromkeys(row["reason"] for row in rows if row["reason"])
    notes = {reason: number for number, reason in enumerate(why, 1)}
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("layer", overflow="fold", min_width=16)
    for name in ("kind?", "N x M", "stable\nrank", "MP soft\nrank", "spikes", "alpha", "nulls"):
        table.add_column(name, no_wrap=True, justify="left" if name in ("kind?", "nulls") else "right")
    for row in rows:
        cells = [_printable(row["layer"]), row["kind_guess"], f"{row['rows']} x {row['cols']}",
                 *(_short(row[name]) for name in ("stable_rank", "mp_softrank", "n_spikes")), _alpha(row),
                 str(notes.get(row["reason"], ""))]
        table.add_row(*map(escape, cells))
    if not console.is_terminal:
        console.width = WIDE
    console.print(table, soft_wrap=False)
    for reason, number in notes.items():
        console.print(f"{number}  {reason}", highlight=False, markup=False)
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
    text = [pa.field(name, pa.string()) for name in ("layer", "kind_guess", "dtype", "reason")]
    sizes = [pa.field("shape", pa.list_(pa.int64())), pa.field("rows", pa.int64()), pa.field("cols", pa.int64())]
    schema = pa.schema([*text[:2], *sizes, text[2], *(column.field for column in METRICS), text[3], spectrum.field],
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
