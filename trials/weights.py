"""Measure the weight matrices of a model: one eigensolve for each shape among them, not one for each layer.

Rows of the ``layers`` table are told apart by their layer alone: the change of a weight since the start of training is
a row with a layer of its own, ``fc1:change``, and ``change`` in the column ``of``. So a filter by layer finds one
matrix, (trial_id, step, layer) stays the key of the table, and ``of = 'weight'`` leaves out all changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trials.columns import text
from trials.convolutions import Operator
from trials.matrices import Matrix
from trials.optimizers.base import Params
from trials.spectra import GROUPS, METRICS, Metrics, weight_metrics
from trials.spectra.eigen import Spectrum

OF = text("of", "whose numbers: weight, or change (the weight minus its initial value; layer ends in :change)")
Spectra = list[list[float] | None]


def weight_rows(weights: Sequence[Tensor]) -> tuple[list[dict[str, Any]], Spectra]:
    """For each matrix its row of metrics (see ``spectra.METRICS``), and its eigenvalues, descending; None where the
    matrix has none (it is not finite, say)."""
    shapes: dict[tuple[int, int], list[int]] = {}
    for index, weight in enumerate(weights):
        shapes.setdefault((max(weight.shape), min(weight.shape)), []).append(index)
    found: list[dict[str, Any]] = [{} for _ in weights]
    eigenvalues: Spectra = [None for _ in weights]
    for (size, cols), indices in shapes.items():
        tall = [weights[i] if weights[i].shape == (size, cols) else weights[i].mT for i in indices]
        metrics = weight_metrics(torch.stack(tall) if len(tall) > 1 else tall[0][None])  # a single one is not copied
        spectra, sound = metrics.eigenvalues.tolist(), metrics.sound.tolist()
        for k, (index, row) in enumerate(zip(indices, metrics.rows(), strict=True)):
            found[index] = {"rows": size, "cols": cols, **row}
            if sound[k]:
                eigenvalues[index] = spectra[k]
    return found, eigenvalues


def null_row(reason: str) -> dict[str, Any]:
    """The row of a matrix of which nothing is known."""
    return {"rows": None, "cols": None, **dict.fromkeys(column.name for column in METRICS), "reason": reason}


def layer_rows(matrices: Sequence[Matrix], params: Sequence[Params], initial: Sequence[Params] | None = None,
               operators: Sequence[Operator] = ()) -> list[tuple[list[dict[str, Any]], Spectra]]:
    """For each of some trials with one model, by its parameters: the rows of the ``layers`` table (without trial and
    step) and, for each row, its eigenvalues or None. All matrices of a shape, of all trials, are one batch.

    First the weights, then the operators of convolutions, then, where ``initial`` parameters are given, the changes of
    the weights since.
    """
    names = [{"layer": matrix.layer, "kind": matrix.kind, "of": "weight"} for matrix in matrices]
    if initial is not None:
        names += [{"layer": f"{matrix.layer}:change", "kind": matrix.kind, "of": "change"} for matrix in matrices]
    doubts = [matrix.doubt for matrix in matrices] * (1 if initial is None else 2)
    weights: list[Tensor] = []
    for number, now in enumerate(params):
        weights += [matrix.of(now) for matrix in matrices]
        if initial is not None:
            weights += [matrix.of(now).double() - matrix.of(initial[number]).double() for matrix in matrices]
    rows, eigenvalues = weight_rows(weights)
    found = []
    for number, now in enumerate(params):
        its = slice(number * len(names), (number + 1) * len(names))
        mine = [{**name, **row, "reason": "; ".join(filter(None, (doubt, row["reason"]))) or None}
                for name, doubt, row in zip(names, doubts, rows[its], strict=True)]
        spectra = eigenvalues[its]
        for place, operator in enumerate(operators, len(matrices)):
            row, spectrum = operator_row(operator, now)
            mine.insert(place, row)
            spectra.insert(place, spectrum)
        found.append((mine, spectra))
    return found


def operator_row(operator: Operator, params: Params) -> tuple[dict[str, Any], list[float] | None]:
    """The row of a convolution's operator, and its eigenvalues.

    Norms and ranks only: its entries repeat each other, so no law of independent entries says what is noise. ``reason``
    says on what size it acts.
    """
    rows, cols = operator.shape
    eigenvalues = operator.singular_values(params).square() / rows
    sound = eigenvalues.isfinite().all()
    eigenvalues = torch.where(sound, eigenvalues, 0.0)[None]
    shaped = eigenvalues.new_zeros(()).expand(1, rows, cols)  # the entries are not looked at, nor stored
    values = GROUPS["ranks"].function(Spectrum(shaped, eigenvalues, sound[None]))
    [row] = Metrics(dict(values), eigenvalues, sound[None], ("ranks",), "entries are not finite").rows()
    row["reason"] = "; ".join(filter(None, (f"{operator.said}: norms and ranks only", row["reason"])))  # type: ignore[arg-type]
    named = {"layer": operator.layer, "kind": operator.kind, "of": "weight", "rows": rows, "cols": cols}
    return {**named, **row}, eigenvalues[0].tolist() if bool(sound) else None
