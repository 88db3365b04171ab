"""Spectra of weight matrices: the one home of every number computed from eigenvalues of X = W^T W / N."""

from __future__ import annotations

from trials.columns import Column, number, whole

METRICS: tuple[Column, ...] = ()
