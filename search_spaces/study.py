"""A study: what is asked, of which trials, in which order."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from analysis.claims import Claim, parse_claims
from analysis.claims.moment import NEAR
from analysis.observe import known_columns
from search_spaces.axes import Axis, Values
from search_spaces.designs.base import DESIGNS, Design, Pair, Point
from search_spaces.limits import check_limits, check_values, most_steps, train_size
from search_spaces.space import Substitution, parse_space
from search_spaces.yaml_text import MAX_NODES, dump, nodes
from trials import fields
from trials.errors import UserError
from trials.fields import check, choice, count, declared, real
from trials.measure import Measure
from trials.spec import TrialSpec, column, column_types, columns_by_end, parse_trial

Observe = Callable[[list[str]], list[Mapping[str, Any] | None]]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
MOST_LANES = 65536


@dataclass(frozen=True)
class Resources:
    """What one worker takes, and a trial may."""

    cpu: float = real(1.0, low=0, high=10_000, open_low=True, help="CPU cores of a worker")
    gpu: float = real(0.0, low=0, high=10_000, help="GPUs of a worker; a fraction shares one")
    seconds: float = real(0.0, low=0, help="a trial that takes longer fails; 0 is no limit")


@dataclass(frozen=True)
class _Run:
    device: str = choice("auto", ("auto", "cpu", "cuda"), help="where trials run; auto is a GPU if there is one")
    retries: int = count(1, low=0, high=100, help="how often a failed trial is tried again at once")


@dataclass(frozen=True)
class Study:
    """A checked study. Make one with ``load_study``."""

    name: str
    question: str
    source: str
    base: TrialSpec
    axes: tuple[Axis, ...]
    design: Design
    measure: Measure
    analysis: list[dict[str, Any]]
    resources: Resources
    device: str
    retries: int
    lanes: int  # trials trained side by side; 0: as many as is fastest
    folder: Path  # where the user's own code is looked for, after the working directory

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of each point."""
        found = [axis.values for axis in self.axes if axis.path == ("seed",) and isinstance(axis, Values)]
        return found[0] if found else (self.base.seed,)

    @cached_property
    def searched(self) -> tuple[Axis, ...]:
        """The axes without the seed: the dimensions of a point."""
        return tuple(axis for axis in self.axes if axis.path != ("seed",))

    @property
    def size(self) -> int:
        """Number of trials, replicates included, in constant time."""
        return self.design.size(self.searched) * len(self.seeds)

    @cached_property
    def axis_columns(self) -> list[str]:
        """The flat columns that the axes vary. A whole component varies its name, and those of its parameters in which
        two values of one name differ."""
        names: list[str] = []
        for axis in self.axes:
            names.append(column(axis.path))
            flats: dict[str, list[dict[str, Any]]] = {}
            for spec in self._substitute.components(axis):
                flats.setdefault(getattr(spec, axis.path[0])["name"], []).append(spec.flat())
            for same_name in flats.values():
                names += [name for name in same_name[0] if len({flat.get(name) for flat in same_name}) > 1]
        return list(dict.fromkeys(names))

    @cached_property
    def column_types(self) -> dict[str, pa.DataType]:
        """The Arrow type of each flat config column over all trials of the study."""
        types: dict[str, pa.DataType] = {}
        for spec in self._substitute.examples:
            for name, kind in column_types(spec.flat()).items():
                known = types.setdefault(name, kind)
                if known != kind and {known, kind} != {pa.int64(), pa.float64()}:
                    raise UserError(f"space: {name} is {known} in some trials and {kind} in others; give it one type")
                if known != kind:
                    types[name] = pa.float64()
        return types

    @cached_property
    def claims(self) -> list[Claim]:
        """What the results are to be asked; a column goes by its name or what ``space`` calls it. Raises UserError."""
        names = {name: name for name in known_columns(self.column_types)}
        return parse_claims(self.analysis, columns_by_end(self._substitute.examples) | names)

    def planned(self, name: str) -> tuple[Any, ...] | None:
        """The values of a config column over the trials; None where they are a range, or no trial has it."""
        for axis in self.axes:
            if column(axis.path) == name and not self._substitute.components(axis):
                return axis.values if isinstance(axis, Values) else None
        flats = [spec.flat() for spec in self._substitute.examples]
        return tuple(dict.fromkeys(flat[name] for flat in flats if name in flat)) or None

    @cached_property
    def extremes(self) -> tuple[TrialSpec, ...]:
        """Trials that have between them every value of a model's, and task's, axes that bounds the others."""
        shown = [axis for axis in self.axes if axis.path[0] in ("model", "task")]
        return tuple(self._substitute.first(axis, value) for axis in shown for value in axis.extremes) or (
            self._substitute.first(),)

    def check_claims(self, written: Study | None = None) -> None:
        """Raise UserError for a claim about trials that neither this study has nor the one that was ``written``, before
        overrides took some out: it could never be decided."""
        for i, claim in enumerate(self.claims):
            try:
                self.check_claim(claim, f"analysis[{i}]")
            except UserError:
                if written is None:
                    raise
                with contextlib.suppress(UserError):
                    written.check_claim(claim, f"analysis[{i}]")
                    continue
                raise

    def check_claim(self, claim: Claim, place: str) -> None:
        """Raise UserError if the claim, which stands at ``place``, is about trials that this study does not have."""
        for name, wanted in claim.where.items():
            planned = self.planned(name)
            if planned is not None:
                check_values(wanted, name, planned, f"{place}.where.{name}")
        step = claim.at.step
        if step is not None and (most := most_steps(self.base, self.axes)) is not None and step > most * NEAR:
            raise UserError(f"{place}.at.step: no trial takes more than {most:,} steps, got {step:,}")

    def train_size(self, task: Mapping[str, Any]) -> int | None:
        """Number of training samples of a task of this study; None where every batch is fresh."""
        return train_size(task)

    def trials(self, observe: Observe) -> Iterator[TrialSpec | None]:
        """Every trial, in the order in which they are to start. None means: wait until all trials given so far have
        results, then ask again.

        ``observe`` gives each trial's row of the trials table by its id, or None if it is not there yet; only adaptive
        designs call it. The stream is a pure function of what ``observe`` gives.
        """
        def results(pairs: Sequence[Pair]) -> list[Mapping[str, Any] | None]:
            return observe([self._trial(*pair).trial_id for pair in pairs])

        for pair in self.design.stream(self.searched, self.seeds, results):
            yield None if pair is None else self._trial(*pair)

    def _trial(self, point: Point, seed: int) -> TrialSpec:
        return self._substitute((*point, seed))

    @cached_property
    def _substitute(self) -> Substitution:
        return Substitution(self.base, (*self.searched, Values(("seed",), self.seeds)))

    def resolved(self) -> str:
        """The study as YAML with every default filled in; loading it gives the same trials."""
        return dump(self.plain)

    @property
    def plain(self) -> dict[str, Any]:
        """What ``resolved`` writes, as plain data."""
        design = next(name for name, cls in DESIGNS.classes.items() if cls is type(self.design))
        return {
            "study": self.name, "question": self.question, "source": self.source, "trial": asdict(self.base),
            "space": {".".join(axis.path): self._form(axis) for axis in self.axes},
            "design": {"name": design, **asdict(self.design)},  # type: ignore[call-overload]
            "measure": asdict(self.measure), "analysis": self.analysis, "resources": asdict(self.resources),
            "device": self.device, "retries": self.retries,
            "pack": {0: "auto", 1: "off"}.get(self.lanes, self.lanes),
        }

    def _form(self, axis: Axis) -> dict[str, Any]:
        counted = tuple(range(self.base.seed, self.base.seed + len(self.seeds)))
        return {"replicates": len(counted)} if axis.path == ("seed",) and self.seeds == counted else axis.form()


def _lanes(pack: Any) -> int:
    if pack in ("auto", "off"):
        return 0 if pack == "auto" else 1
    if pack is False:  # what some YAML readers make of off
        return 1
    if isinstance(pack, bool) or not isinstance(pack, int) or not 1 <= pack <= MOST_LANES:
        raise UserError(f"pack: expected auto, off, or a number of trials from 1 to {MOST_LANES}, got {pack!r}")
    return pack


def parse_study(config: Mapping[str, Any], folder: Path) -> Study:
    """The study that ``schema.merge`` gave as plain data; ``folder`` is its own. Raises UserError."""
    if not _NAME.fullmatch(config["study"]):
        raise UserError(f"study: expected a name of at most 100 letters, digits, '_', '-' and '.' that begins with a "
                        f"letter or digit, got {config['study']!r}")
    base = parse_trial(config["trial"])
    axes = parse_space(config["space"], config["trial"], base)
    check_limits(base, axes)
    given = {"name": "grid", **config["design"]}
    name = given.pop("name")
    if not isinstance(name, str):
        raise UserError(f"design.name: expected one of {', '.join(DESIGNS.classes)}, got {name!r}")
    design = fields.parse(DESIGNS.get(name, "design.name"), given, "design")
    device, retries = (check(declared(_Run)[key], config[key], key) for key in ("device", "retries"))
    study = Study(
        name=config["study"], question=config["question"], source=config["source"], base=base, axes=axes, design=design,
        measure=fields.parse(Measure, config["measure"], "measure"), analysis=config["analysis"],
        resources=fields.parse(Resources, config["resources"], "resources"), device=device, retries=retries,
        lanes=_lanes(config["pack"]), folder=folder)
    design.check(study.searched)
    for axis in axes:
        ids = [spec.trial_id for spec in study._substitute.components(axis)]
        for i, trial_id in enumerate(ids):
            if (first := ids.index(trial_id)) != i:
                raise UserError(f"space.{axis.path[0]}.values[{i}]: the same as values[{first}] once the other axes "
                                "are put in; remove one")
    if (size := nodes(study.plain)) > MAX_NODES:  # the run writes it, and others read that
        raise UserError(f"space: written out this study has {size:,} values, at most {MAX_NODES:,} can be read back; "
                        "give fewer, or low and high with the design random or sobol")
    study.claims  # noqa: B018 - what is wrong with them, or with the types of columns, is an error before the first trial
    return study
