"""When training has diverged: its loss is not finite, or has exploded."""

from __future__ import annotations

from collections.abc import Sequence

from trials.evaluate import finite

# Losses are read back from the device once in so many steps; a divergence is dated exactly all the same.
CHECK_EVERY = 32
# A loss this many times the first batch's (or 1, if that is larger) has exploded, though it may still be finite.
EXPLODED = 1e6
NOT_FINITE = "the loss over the training set is not finite"


class Watch:
    """Looks at the losses of a trial's batches, in order."""

    def __init__(self) -> None:
        self.limit: float | None = None  # what the loss must not exceed; known once the first is

    def look(self, first: int, losses: Sequence[float]) -> tuple[int, str] | None:
        """The step and the reason of a divergence among ``losses``, those of step ``first`` and after, if any."""
        if self.limit is None and losses:
            self.limit = EXPLODED * max(1.0, abs(losses[0]))
        for step, loss in enumerate(losses, first):
            if not finite(loss):
                return step, f"the loss of step {step} is not finite"
            if self.limit is not None and loss > self.limit:
                return step, f"the loss of step {step} exploded to {loss:.3g}"
        return None
