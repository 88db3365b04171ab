"""What to try: studies, their axes and designs.

A study is one YAML file. ``trial`` is one trial (see ``trials.spec``), ``space`` is what varies of it, ``design`` in
which order. Read in the order of the data: ``yaml_text`` (text to plain data), ``schema`` (top-level keys, overrides),
``axes`` and ``space`` (what each key of ``space`` means), ``limits`` (what may not go together), ``designs`` (one file
each), ``study`` (all of it, and the stream of trials), ``reading`` (where studies are found: the bundled ones are in
``studies/``).

An axis is any unambiguous tail of a path inside the trial (``lr``, ``model.width``, ``dropout.p``, or ``model`` for a
whole component), with ``values: [...]``, or ``low``, ``high``, ``scale`` and, for a grid, ``num``. The seed may also
say ``replicates: n``.
"""

from search_spaces.axes import Axis, Range, Values
from search_spaces.designs.base import DESIGNS, Design, FixedDesign
from search_spaces.reading import bundled, list_studies, load_study, read_study
from search_spaces.study import Resources, Study

__all__ = [
    "DESIGNS", "Axis", "Design", "FixedDesign", "Range", "Resources", "Study", "Values", "bundled", "list_studies",
    "load_study", "read_study",
]
