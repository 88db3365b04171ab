"""What is measured of a trial beside its losses and its weights' spectra: activations, curvature, gradients, kernel.

One file a measurement: its columns, formula and source, and one function of a ``Snapshot``.
"""
