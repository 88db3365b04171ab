"""What the tests of figures share."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D


@pytest.fixture
def drawn() -> Callable[[Figure], Figure]:
    """Draws a figure, with warnings as errors: everything fits on the page, nothing is missing from the fonts."""
    def draw(figure: Figure) -> Figure:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=50)
        assert buffer.tell() > 3_000
        return figure
    return draw


@pytest.fixture
def line() -> Callable[..., Line2D]:
    """The line of a panel whose label begins with a text."""
    def find(panel, start: str) -> Line2D:
        return next(each for each in panel.lines if str(each.get_label()).startswith(start))
    return find
