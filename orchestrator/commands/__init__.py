"""The verbs of the command line: a file each, with ``add`` (its arguments) and ``main`` (what it does)."""
