"""Packs: many small trials trained side by side, as the lanes of stacked tensors.

``structure`` says which trials fit together, ``lanes`` takes a step in all of them at once, ``graph`` and ``simplify``
make that step cheap, and ``pack`` trains them from the first step to the last.
"""
