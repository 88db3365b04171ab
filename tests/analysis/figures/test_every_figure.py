"""Every figure of tables: of one study and of several, plain and with each option."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from synthetic import Study

import analysis
from analysis.figures.curves import SEQUENTIAL
from analysis.studies import Studies
from trials.errors import UserError

FIGURES: dict[str, tuple[Any, ...]] = {
    "summary_figure": (), "spectra_figure": (), "spectra_over_time": (), "phases_figure": (),
    "curves": ("stable_rank", "batch_size"), "parallel_view": ("test_accuracy",),
    "replicate_spread": ("test_accuracy",)}
ONE = {"summary_figure", "spectra_over_time", "phases_figure"}  # show one study


@pytest.fixture
def two(make_study: Callable[..., Study]) -> Studies:
    """Studies whose layers have different names and whose trials differ in the axes."""
    studies = []
    for name, layer in (("one", "fc1"), ("other", "4")):
        study = make_study(("batch_size", "lr", "seed"), name)
        for batch_size, lr, seed in product((4, 16), (0.1, 0.2), (0, 1)):
            config = {"batch_size": batch_size, "lr": lr, "seed": seed}
            spikes = {"n_spikes": 3, "mp_softrank": 0.4} if batch_size == 4 else {"n_spikes": 0, "mp_softrank": 1.0}
            matrix = {"rows": 512, "cols": 64, "hard_rank": 64, "delta_rank": 60, "mp_distance": 0.01,
                      "lambda_max": 3.0, "lambda_plus": 2.0, "stable_rank": 9.0 / batch_size, **spikes}
            study.write(study.rows(
                f"{name}{batch_size}{lr}{seed}", config, steps=(10,),
                layers={layer: matrix, "out": {**matrix, "cols": 10}},
                final={"test_accuracy": 0.9 - batch_size / 1000 + 0.01 * seed},
                spectra={layer: np.linspace(0.1, 3, 32).tolist()}))
            study.measure(study.rows(f"{name}{batch_size}{lr}{seed}", config, layers={layer: matrix}, steps=(1,),
                                     spectra={layer: np.linspace(0.1, 2, 32).tolist()}),
                          ("spectra", "layers", "steps"))
        studies.append(study)
    return analysis.load_studies(*(study.root for study in studies))


@pytest.mark.parametrize("more", [{}, {"where": {"batch_size": [4, 16], "lr": 0.1}}, {"title": "mine"},
                                  {"overlay": True}], ids=str)
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("name", FIGURES)
def test_of_one_study_and_of_several(two: Studies, name: str, several: bool, more: dict[str, Any]) -> None:
    draw = getattr(analysis, name)
    if "overlay" in more and name != "spectra_figure":
        pytest.skip("has no overlay")
    more = {"where": {"lr": 0.1}, **more} if name == "phases_figure" else more  # along one axis
    if name == "parallel_view" and not several:
        more = {key: value for key, value in more.items() if key != "where"}  # two axes at least
    if several and name in ONE:
        with pytest.raises(UserError, match=f'{name} shows one study; pick one by .*"study": "one"'):
            draw(two, *FIGURES[name], **more)
        draw(analysis.select(two, {"study": "other"}), *FIGURES[name], **more)
        return
    figure = draw(two if several else two.each[0], *FIGURES[name], **more)
    assert isinstance(figure, Figure) and ("title" not in more or figure.get_suptitle().startswith("mine"))


def test_each_study_is_a_line(two: Studies) -> None:
    (panel,) = analysis.curves(two, "stable_rank", "study", "out").axes
    assert [line.get_label() for line in panel.lines] == ["one", "other"]
    note = analysis.curves(two, "stable_rank", "study", "4").get_supxlabel().replace("\n", " ")
    assert "In other: learning rate 0.1, batch size 4. Without one, where there is no such number" in note
    spectra = analysis.spectra_figure(two)
    assert [panel.get_title(loc="left") for panel in spectra.axes] == ["(a) study one", "(b) study other"]
    assert "fc1 (512 × 64) and layer 4 (512 × 64)" in spectra.get_suptitle().replace("\n", " ")
    assert "(one: learning rate 0.1, batch size 4, seed 0; other:" in spectra.get_supxlabel().replace("\n", " ")


def test_what_select_takes(two: Studies) -> None:
    assert set(analysis.select(two, {"study": "other", "batch_size": 4}).trials["study"]) == {"other"}
    for where, message in [({"batch_size": "4"}, "batch_size has numbers, and '4' is text; give a number"),
                           ({"layer": "4"}, "layer is no column of trials.*give a figure its layer="),
                           ({"batch_size": {"between": [4, 8]}}, "a value of batch_size or a list of them, got")]:
        for tables in (two, two.each[0]):
            with pytest.raises(UserError, match=message):
                analysis.select(tables, where)


def test_zero_among_decades_has_a_colour_of_its_own(study: Study) -> None:
    for lr in (0.0, 0.001, 0.003, 0.03):
        study.add(str(lr), {"lr": lr}, layers={"4": {"rows": 64, "cols": 32, "stable_rank": 1 + lr}})
    figure = analysis.curves(analysis.load(study.root).only([str(lr) for lr in (0.0, 0.001, 0.003, 0.03)], ["lr"]),
                             "4.stable_rank", "lr")
    panel, bar = figure.axes
    assert [tick.get_text() for tick in bar.get_yticklabels()] == ["0", "0.001", "0.003", "0.03"]
    evenly = SEQUENTIAL([0, 1 / 3, 2 / 3, 1.0])
    np.testing.assert_allclose([line.get_color() for line in panel.lines], evenly, atol=0.01)
    assert panel.get_ylabel().startswith("stable rank of layer 4")


def test_colours_show_no_more_than_the_numbers(study: Study) -> None:
    for place, (batch_size, lr) in enumerate(product((4, 8), (0.1, 0.2))):
        study.add(str(place), {"batch_size": batch_size, "lr": lr},
                  layers={"4": {"rows": 64, "cols": 32, "mp_softrank": 1 - 1e-9 * place, "stable_rank": 2.0 + place}})
    tables = analysis.load(study.root).only(["0", "1", "2", "3"], ["batch_size", "lr"])
    panel = next(panel for panel in analysis.summary_figure(tables).axes
                 if panel.get_title(loc="left").endswith("MP soft rank of layer 4"))
    (mesh,) = panel.collections
    mesh.update_scalarmappable()
    assert np.ptp(mesh.get_facecolor(), axis=0).max() < 0.02 and len({text.get_text() for text in panel.texts}) == 1
