"""Figures as plain functions of tables and fits: each returns a matplotlib figure that belongs to nobody else."""
