"""What one trial is: task, model, optimizer, knobs, measurements, the training step, the rows it emits."""

from trials.errors import UserError
from trials.tasks.base import Data

__all__ = ["Data", "UserError"]
