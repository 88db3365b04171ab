"""A trial half way, as bytes: what it takes to go on as if nothing had happened."""

from __future__ import annotations

import io
import json
import time
import zlib
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from trials import generators
from trials.divergence import Watch
from trials.memory import Values
from trials.observer import Emitted, Observer
from trials.optimizers.base import Params, State
from trials.spec import TrialSpec


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """``taken`` steps, parameters, buffers and optimizer state after them, and ``notes``: what was emitted and watched
    so far.

    ``kept`` are the tensors that measurements keep from one moment to the next; ``memory`` is what the model remembers
    in Python; ``generators`` are the states of the global generators, from which a user's model may draw.
    """

    taken: int
    params: Params
    buffers: Params
    state: State
    kept: dict[str, Tensor]
    memory: Values
    generators: dict[str, Any]
    notes: str

    @classmethod
    def of(cls, observer: Observer, watch: Watch, taken: int, params: Params, buffers: Params, state: State,
           memory: Values, spent: float) -> Checkpoint:
        """A copy of a trial that is in training, on which ``spent`` seconds went since it was last taken up."""
        def copied(tensors: Params) -> Params:
            return {name: value.detach().cpu().clone() for name, value in tensors.items()}
        notes = {"emitted": asdict(observer.emitted), "limit": watch.limit,
                 "elapsed": time.perf_counter() - observer.began, "spent": observer.spent + spent}
        return cls(taken, copied(params), copied(buffers), {slot: copied(tensors) for slot, tensors in state.items()},
                   copied(observer.kept), memory, generators.states(), json.dumps(notes))

    def restore(self, observer: Observer, watch: Watch) -> None:
        """Put what was emitted and watched back; parameters and state are the caller's to take."""
        notes = json.loads(self.notes)
        observer.emitted = Emitted(**notes["emitted"])
        observer.began = time.perf_counter() - notes["elapsed"]
        observer.spent = notes.get("spent", 0.0)  # which earlier versions did not write
        observer.kept = dict(self.kept)
        watch.limit = notes["limit"]

    def to_bytes(self) -> bytes:
        """Tensors and text alone, so that reading it back runs no code, after a CRC-32, which torch does not check."""
        sink = io.BytesIO()
        torch.save(vars(self), sink)
        data = sink.getvalue()
        return b"%08x" % zlib.crc32(data) + data

    @classmethod
    def from_bytes(cls, data: bytes) -> Checkpoint | None:
        """The inverse of ``to_bytes``; None for anything else, so that the trial begins anew."""
        checksum, data = data[:8], data[8:]
        if checksum != b"%08x" % zlib.crc32(data):
            return None
        try:
            parts: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
            return cls(**parts)
        except Exception:  # torch raises many kinds for damaged files
            return None


class Stopped(BaseException):
    """Training is to stop, and what was in training is saved. No Exception, so that what is ready for anything a user's
    code raises lets it pass."""


class Checkpoints(Protocol):
    """Where checkpoints of trials in training go; asked before each step."""

    def due(self) -> bool:
        """Whether it is time to save those of all trials in training, be it because they are to stop."""

    def go_on(self) -> None:
        """Raise Stopped where training is to stop; to be called before it begins, and when all are saved."""

    def save(self, spec: TrialSpec, checkpoint: Checkpoint) -> None:
        """Keep it, in place of an earlier one."""

    def load(self, spec: TrialSpec) -> Checkpoint | None:
        """The last one of this trial."""

    def drop(self, spec: TrialSpec) -> None:
        """Forget it: it is of a training that went wrong."""


class _Nowhere:
    """Keeps nothing."""

    def due(self) -> bool:
        """Never."""
        return False

    def go_on(self) -> None:
        """Always."""

    def save(self, spec: TrialSpec, checkpoint: Checkpoint) -> None:
        """Nothing."""

    def load(self, spec: TrialSpec) -> Checkpoint | None:
        """None."""
        return None

    def drop(self, spec: TrialSpec) -> None:
        """Nothing."""


NO_CHECKPOINTS: Checkpoints = _Nowhere()
