"""Boundaries: where over two axes an outcome changes."""
