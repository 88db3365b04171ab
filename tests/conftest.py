"""Shared by all tests."""

from __future__ import annotations

import os

# Set before Ray and OpenMP read them: two cores, quiet, and no usage reports.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
