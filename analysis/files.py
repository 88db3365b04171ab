"""Figures as files: which formats there are, and several figures as the pages of one PDF."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure


def formats() -> list[str]:
    """Endings of the files a figure can be written to, without the dot."""
    return sorted(FigureCanvasBase.get_supported_filetypes())


def save(figures: Iterable[Figure], path: str | Path) -> None:
    """Write one figure to ``path``, or any number of them as the pages of a ``.pdf``.

    Raises OSError where it cannot be written, ValueError for several figures in another format.
    """
    if Path(path).suffix.lower() == ".pdf":
        with PdfPages(path) as pages:
            for figure in figures:
                pages.savefig(figure)
        return
    [only] = figures
    only.savefig(path)
