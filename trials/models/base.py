"""What a model is: a recipe for a ``torch.nn.Module``."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn

from trials.registry import Registry


class Model(ABC):
    """Base of all models: a frozen dataclass whose fields are declared with ``trials.fields``.

    Hidden activations are ``nn`` modules (``nn.ReLU()``, not ``F.relu``), so that knobs and measurements find them;
    layers have short names (``fc1``, ``conv2``), which become the ``layer`` column.
    """

    @abstractmethod
    def build(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        """A module from (B, *input_shape) to (B, outputs), initialized from torch's global generator.

        Raises UserError where the input shape does not fit the model.
        """


MODELS: Registry[Model] = Registry("model", "trials.models")
