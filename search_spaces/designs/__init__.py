"""Designs: which points of a space are tried, and in which order. One file each; ``base`` says what a design is."""
