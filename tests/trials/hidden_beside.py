"""What the models in ``hidden`` import: a file of the user's with a state of its own."""

from __future__ import annotations

COUNT = 0
SEEN: list[int] = []


def scale() -> float:
    """Falls at the tenth call."""
    global COUNT
    COUNT += 1
    SEEN.append(COUNT)
    return 1.0 if len(SEEN) < 10 else 0.2
