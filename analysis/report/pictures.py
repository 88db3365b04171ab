"""The figures of a report, as PNG."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from matplotlib.figure import Figure

from analysis.boundaries.boundary import Boundary
from analysis.claims import Verdict
from analysis.figures.collapse import collapse_figure
from analysis.figures.esd import spectra_figure
from analysis.figures.law import law_figure
from analysis.figures.overview import summary_figure
from analysis.figures.phase_map import phase_map
from analysis.figures.phases import phases_figure, walk_figure
from analysis.figures.replicates import replicate_spread
from analysis.figures.spectra_time import spectra_over_time
from analysis.figures.style import label
from analysis.figures.trend import trend_figure
from analysis.laws.collapse import Collapse
from analysis.laws.law import LawFit
from analysis.laws.trend import Trend
from analysis.laws.walk import Walk
from analysis.tables import Tables
from trials.errors import UserError

DPI = 150


@dataclass(frozen=True)
class Picture:
    """A figure by the ``name`` of its file, without ending; ``words`` say what it shows."""

    name: str
    words: str
    png: bytes = field(repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """(Width, height) in pixels, as the file's header has them."""
        return int.from_bytes(self.png[16:20], "big"), int.from_bytes(self.png[20:24], "big")


def claim_pictures(verdicts: Sequence[Verdict]) -> list[Picture | None]:
    """What was fitted for each verdict, over its data; None where there is nothing to draw."""
    return [_draw(f"claim-{place}", f"{verdict.about}: data and fit", partial(_fitted, verdict))
            for place, verdict in enumerate(verdicts, 1)]


def study_pictures(tables: Tables, layer: str | None = None) -> list[Picture]:
    """Those of the figures of a whole study for which it has what they need; those of one layer show ``layer``, by
    default the widest hidden one."""
    quantity = "test_accuracy" if tables.trials["test_accuracy"].notna().any() else "test_loss"
    figures: dict[str, tuple[str, Callable[[], Figure]]] = {
        "phases": ("The phase of each layer after training, and of one in training", lambda: phases_figure(
            tables, layer)),
        "overview": ("What the swept axes do, at the end of training", lambda: summary_figure(tables)),
        "spectra": ("Spectra after training", lambda: spectra_figure(tables, layer, count=6)),
        "spectra-in-training": ("A spectrum as it forms", lambda: spectra_over_time(tables, layer)),
        "replicates": ("How much of the spread is chance", lambda: replicate_spread(tables, quantity)),
    }
    drawn = [_draw(name, words, figure) for name, (words, figure) in figures.items()]
    return [picture for picture in drawn if picture is not None]


def _fitted(verdict: Verdict) -> Figure | None:
    fit = verdict.fit
    if isinstance(fit, LawFit):
        what = verdict.about.partition(" = ")[0].replace("_", " ")  # such as: lr of the least test loss at the end
        return law_figure(fit, verdict.rivals, title=f"{what}, by {' and '.join(label(x, unit=False) for x in fit.x)}")
    if isinstance(fit, Boundary):
        outcomes = fit.data[fit.outcome].map({0: "no", 1: "yes"})
        return phase_map(fit.data.assign(**{fit.outcome: outcomes}), fit.x, fit.y, fit.outcome, fit)
    if isinstance(fit, Walk):
        return walk_figure(fit)
    if isinstance(fit, Trend):
        return trend_figure(fit)
    return collapse_figure(fit) if isinstance(fit, Collapse) else None


def _draw(name: str, words: str, figure: Callable[[], Figure | None]) -> Picture | None:
    """None where the results lack what the figure needs."""
    try:
        drawn = figure()
    except UserError:
        return None
    if drawn is None:
        return None
    image = io.BytesIO()
    drawn.savefig(image, format="png", dpi=DPI)
    return Picture(name, words, image.getvalue())
