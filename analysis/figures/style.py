"""The look of all figures: colours that the colour-blind and a grey printer tell apart, labels with units, scales."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

# Okabe & Ito, "Color Universal Design" (2008), without the yellow, which is lost on white paper.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#777777"
# Colour, marker and dash of the lines of a panel: told apart by any one of the three.
LINES = tuple(zip(COLORS, "os^DvPX", ("-", "--", "-.", ":", "-", "--", "-."), strict=True))

# Colour and hatch of each phase: lighter to darker as structure grows (viridis backwards), so that their order is seen
# without colours too; "none" is a matrix without a label.
PHASE_LOOKS = {"random-like": ("#fde725", None), "bleeding-out": ("#7ad151", None), "bulk+spikes": ("#22a884", None),
               "bulk-decay": ("#2a788e", None), "heavy-tailed": ("#440154", None), "rank-collapse": ("#aaaaaa", "xxx"),
               "none": ("#ffffff", "////")}

LABELS = {
    "batch_size": "batch size (samples)", "lr": "learning rate", "budget_epochs": "epochs", "budget_steps": "steps",
    "stable_rank": r"stable rank  $\|W\|_F^2\,/\,\|W\|_2^2$",
    "mp_softrank": r"MP soft rank  $\lambda_+/\lambda_{\max}$",
    "alpha": r"power-law exponent  $\alpha$",

}
LONGEST = 32  # characters of a value in a label
_STYLE: dict[Any, Any] = {
    "font.size": 8, "axes.titlesize": 8.5, "axes.labelsize": 8, "legend.fontsize": 7.5, "xtick.labelsize": 7,
    "ytick.labelsize": 7, "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4, "ytick.minor.width": 0.4, "lines.linewidth": 1.3, "lines.markersize": 4,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left",
    "legend.frameon": False, "legend.handlelength": 2.8,
    "axes.grid": True, "grid.color": "#e6e6e6", "grid.linewidth": 0.5, "axes.axisbelow": True, "hatch.linewidth": 0.5,
    "mathtext.fontset": "dejavusans",
}


@contextmanager
def sheet(rows: int, columns: int, title: str, note: str, **subplots: Any) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of ``rows`` x ``columns`` panels, two columns of a paper wide, with a title and a note at the foot.

    It is drawn on Agg and belongs to nobody else: nothing of pyplot is touched.
    """
    with mpl.rc_context(_STYLE):
        width = 7.2 if columns > 1 else 4.4
        figure = Figure(figsize=(width, 2.35 * rows + 0.7), dpi=200, layout="constrained")
        FigureCanvasAgg(figure)
        panels = list(np.ravel(figure.subplots(rows, columns, **subplots)))
        title = textwrap.fill(title, round(12 * width))
        figure.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
        figure.supxlabel(textwrap.fill(note, round(18.5 * width)), x=0.01, ha="left", fontsize=7, color=GREY)
        for letter, panel in zip("abcdefgh", panels, strict=False):
            panel.set_title(f"({letter})")
        yield figure, panels


def name_lines(figure: Figure, panel: Axes) -> None:
    """A legend of the lines of ``panel`` for the whole figure, in rows below its title."""
    handles, names = panel.get_legend_handles_labels()
    columns = max(1, int(16 * figure.get_figwidth() / (max(map(len, names)) + 8)))
    title = figure.get_suptitle()
    figure.suptitle(title + "\n" * -(-len(names) // columns), x=0.01, ha="left", fontsize=10, fontweight="bold")
    legend = figure.legend(handles, names, loc="upper left", ncols=columns, borderaxespad=0, columnspacing=1.5,
                           bbox_to_anchor=(0.005, 1 - (0.1 + 0.18 * (title.count("\n") + 1)) / figure.get_figheight()))
    legend.set_in_layout(False)  # the title has made room


def label(name: str, unit: bool = True) -> str:
    """What an axis with this column is called, with its unit or without."""
    text = LABELS.get(name, name.replace("_", " "))
    return text if unit else text.partition(" (")[0]


def called(layer: str) -> str:
    """A layer in a title: its name, and that it is a layer where that reads as a number (``net.4``, ``4``)."""
    return f"layer {layer}" if layer[:1].isdigit() else layer


def is_numeric(values: pd.Series) -> bool:
    """Whether a column holds numbers (truth values are categories)."""
    return bool(pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values))


def spans_decades(values: Any) -> bool:
    """Whether positive values extend over more than a factor of ten, so that they belong on a log axis."""
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    return bool(finite.size and finite.min() > 0 and finite.max() > 10 * finite.min())


def log_spaced(values: pd.Series) -> bool:
    """Whether the values of a swept axis have one ratio (32, 64, 128), or span decades, and their median is nearer the
    middle in logarithms than as they are (that of a uniform design over [0, 1] is not)."""
    each = np.unique(np.asarray(values, float))
    if len(each) > 2 and each[0] > 0 and np.allclose(each[1:] / each[:-1], each[1] / each[0], rtol=0.01):
        return True
    if not spans_decades(values):
        return False
    low, middle, high = values.min(), values.median(), values.max()
    return bool(abs(np.log(middle / low) / np.log(high / low) - 0.5) < abs((middle - low) / (high - low) - 0.5))


def make_log(panel: Axes, which: Literal["x", "y"]) -> None:
    """A log scale with plain numbers (1, 2, 5, 10) where it spans few decades, powers of ten where many."""
    panel.set(**{f"{which}scale": "log"})
    axis = panel.xaxis if which == "x" else panel.yaxis
    low, high = axis.get_view_interval()
    if high < low * (20 if which == "x" else 300):  # wide labels stand side by side on x
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def make_log_from_zero(panel: Axes, values: Any) -> None:
    """A log scale on y for shares some of which are 0: linear below the least other."""
    least = float(values[values > 0].min())
    panel.set_yscale("symlog", linthresh=least, linscale=0.3)
    decades = 10.0 ** np.arange(np.ceil(np.log10(least)), 1)
    panel.set_yticks([0.0, *decades], ["0", *(f"{value:g}" for value in decades)])
    panel.yaxis.set_minor_locator(NullLocator())
    panel.set_ylim(bottom=-0.3 * least)


def name_decades(bar: Colorbar) -> None:
    """The ticks of a horizontal bar on a log scale: plain numbers where it spans few decades, powers of ten where many,
    and no names between them, which would overprint."""
    low, high = bar.ax.get_xlim()
    if high < low * 100:
        bar.locator = LogLocator(subs=(1, 2, 5))
        bar.formatter = FuncFormatter(lambda value, place: f"{value:g}")
    bar.minorformatter = NullFormatter()
    bar.update_ticks()


def name_numbers(bar: Colorbar) -> None:
    """The ticks of a bar on a linear scale: three at least, where the automatic ones are often two."""
    bar.locator = MaxNLocator(4, min_n_ticks=3)
    bar.update_ticks()


def short(value: object) -> str:
    """A value as a label in a figure: ``plain``, but no longer than there is room, and with no formula in it."""
    text = plain(value)
    return (text if len(text) <= LONGEST else f"{text[:LONGEST - 1]}…").replace("$", r"\$")


def plain(value: object, digits: int = 3) -> str:
    """A value in words: three significant digits, whole numbers in full, a dash for none."""
    if value is None or value != value:
        return "-"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def shorts(values: Iterable[object]) -> list[str]:
    """Values side by side as labels: ``short``, with as many digits as it takes to tell them apart."""
    each = list(values)
    for digits in range(3, 8):
        texts = [plain(value, digits) for value in each]
        if len(set(texts)) == len(set(map(str, each))):
            break
    return [short(text) for text in texts] if each else []
