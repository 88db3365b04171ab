"""What a claim is: a sentence, what to fit, and the numbers it says will come out. What a verdict is."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from analysis.claims.moment import Moment, parse_moment
from analysis.estimates import LEVEL, Answer, Estimate, Region
from trials.errors import UserError, did_you_mean, no_column
from trials.fields import is_number
from trials.registry import Registry

if TYPE_CHECKING:
    from analysis.tables import Frames

CLAIMS: Registry[Claim] = Registry("claim", "analysis.claims")
Parse = Callable[[Any, str, Collection[str]], Any]  # value, place, known columns


@dataclass(frozen=True)
class Family:
    """A verdict among those on all ``claims`` of its study: the ``verdict`` by intervals at ``level``."""

    claims: int
    level: float
    verdict: Answer

    def __str__(self) -> str:
        return (f"{'undecided' if self.verdict == 'undecided' else 'stands'} among {self.claims} claims (Holm: by "
                f"intervals at {100 * self.level:.4g}%)")


@dataclass(frozen=True)
class Verdict:
    """``answer`` to ``claim``, from ``estimates`` against ``expected`` numbers; ``about`` says what was fitted and
    ``because`` what decided. ``fit`` is what was fitted (a LawFit, Boundary or Collapse), None where nothing could be;
    ``rivals`` are other laws fitted to the same rows. ``family`` is what becomes of the answer among other claims."""

    claim: str
    about: str
    answer: Answer
    estimates: Mapping[str, Estimate]
    expected: Mapping[str, str]
    n: int
    method: str
    because: str
    fit: Any = field(default=None, repr=False)
    rivals: tuple[Any, ...] = field(default=(), repr=False)
    family: Family | None = None

    @property
    def standing(self) -> str:
        """What becomes of a decided answer among other claims, in words; empty where it is undecided or alone."""
        if not self.family or self.answer == "undecided":
            return ""
        if all(math.isnan(each.value) for each in self.estimates.values()):
            return f"stands among {self.family.claims} claims: it rests on no interval"
        return str(self.family)

    def as_json(self) -> dict[str, Any]:
        """Plain data; ends and values that are not finite are None."""
        def number(value: float) -> float | None:
            return value if math.isfinite(value) else None
        estimates = {name: {"value": number(e.value), "low": number(e.low), "high": number(e.high), "level": e.level}
                     for name, e in self.estimates.items()}
        return {"claim": self.claim, "verdict": self.answer, "about": self.about, "estimates": estimates,
                "expected": dict(self.expected), "n": self.n, "method": self.method, "because": self.because,
                **({"family": dataclasses.asdict(self.family)} if self.family else {})}


def setting(parse: Parse, **default: Any) -> Any:
    """A key of a claim; required unless it has a ``default``."""
    return field(metadata={"parse": parse}, **default)


def column(value: Any, place: str, known: Collection[str]) -> str:
    """A column of the results; ``known`` may map other names that it goes by to its own."""
    if not isinstance(value, str) or value not in known:
        raise no_column(place, value, known)
    return known[value] if isinstance(known, Mapping) else value


def columns(value: Any, place: str, known: Collection[str]) -> tuple[str, ...]:
    """One column or a list of them."""
    each = value if isinstance(value, list) else [value]
    return tuple(column(name, place, known) for name in each)


def number(value: Any, place: str, known: Collection[str]) -> float:
    """A finite number."""
    if not is_number(value):
        raise UserError(f"{place}: expected a number, got {value!r}")
    return float(value)


def sentence(value: Any, place: str, known: Collection[str]) -> str:
    """Text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{place}: expected a sentence, got {value!r}")
    return " ".join(value.split())


def one_of(*options: str) -> Parse:
    """One of a few words."""
    def parse(value: Any, place: str, known: Collection[str]) -> str:
        if value not in options:
            raise UserError(f"{place}: expected one of {', '.join(options)}, got {value!r}")
        return str(value)
    return parse


def cell(value: Any, place: str) -> Any:
    """What a cell of a table may hold: text, a number, true or false."""
    if not isinstance(value, (str, bool)) and not (is_number(value) and abs(value) < 2**63):
        raise UserError(f"{place}: expected text or a number, got {value!r:.60}")
    return value


def _where(value: Any, place: str, known: Collection[str]) -> dict[str, tuple[Any, ...]]:
    if not isinstance(value, Mapping):
        raise UserError(f"{place}: expected a mapping of columns to values, such as {{layer: fc1}}, got {value!r}")
    where = {}
    for name, wanted in value.items():
        values = wanted if isinstance(wanted, list) else [wanted]
        if not values:
            raise UserError(f"{place}.{name}: expected at least one value, got none")
        if (called := column(name, f"{place}.{name}", known)) in where:
            raise UserError(f"{place}.{name}: {called} is given twice; remove one")
        where[called] = tuple(cell(one, f"{place}.{name}") for one in values)
    return where


def _expect(value: Any, place: str, known: Collection[str]) -> dict[str, Region]:
    if not isinstance(value, Mapping):
        raise UserError(f"{place}: expected a mapping such as {{exponent: {{above: 0}}}}, got {value!r}")
    return {str(name): region(wanted, f"{place}.{name}") for name, wanted in value.items()}


def region(value: Any, place: str) -> Region:
    """Where a number is expected to lie: {above: a}, {below: b}, both, or {between: [a, b]}."""
    wrong = UserError(f"{place}: expected {{above: a}}, {{below: b}} or {{between: [a, b]}}, got {value!r}")
    if not isinstance(value, Mapping):
        raise wrong
    if set(value) == {"between"} and isinstance(value["between"], list) and len(value["between"]) == 2:
        value = dict(zip(("above", "below"), value["between"], strict=True))
    if not value or set(value) - {"above", "below"}:
        raise wrong
    ends = {name: number(end, f"{place}.{name}", ()) for name, end in value.items()}
    found = Region(ends.get("above", -math.inf), ends.get("below", math.inf))
    if not found.low < found.high:
        raise wrong
    return found


@dataclass(frozen=True, kw_only=True)
class Claim(ABC):
    """Base of all claims: frozen dataclasses whose fields are declared with ``setting``.

    ``where`` picks rows by their values, ``at`` the moment of training; ``expect`` names numbers that the fit gives
    (``gives``) and where they will lie.
    """

    gives: ClassVar[tuple[str, ...]] = ()
    claim: str = setting(sentence)
    where: dict[str, tuple[Any, ...]] = setting(_where, default_factory=dict)
    at: Moment = setting(parse_moment, default=Moment())
    expect: dict[str, Region] = setting(_expect, default_factory=dict)

    def numbers(self) -> tuple[str, ...]:
        """The numbers that ``expect`` may name."""
        return self.gives

    @property
    def reads(self) -> frozenset[str]:
        """The columns that it looks at, those of ``where`` included."""
        named = (getattr(self, f.name) for f in dataclasses.fields(self) if f.metadata["parse"] in (column, columns))
        return frozenset(self.where).union(*((name,) if isinstance(name, str) else name for name in named))

    @property
    def layers(self) -> tuple[Any, ...]:
        """The layers that it names; none where it leaves them open."""
        return self.where.get("layer", ())

    @property
    def hopeless(self) -> str:
        """Why no result could decide it; empty where some could."""
        return ""

    def check(self, place: str) -> None:
        """Raise UserError for keys that do not fit together."""
        for name in self.expect:
            if name not in self.numbers():
                near = did_you_mean(name, self.numbers())
                raise UserError(f"{place}.expect.{name}: not a number of this fit; {near}")
        if not self.expect:
            raise UserError(f"{place}: says nothing that could fail; give expect, such as "
                            f"{{{self.numbers()[0]}: {{above: 0}}}}")

    @abstractmethod
    def verdict(self, tables: Frames, level: float = LEVEL) -> Verdict:
        """Fit and decide by intervals at ``level``. Raises UserError where the results do not have what it takes."""

    def decided(self, about: str, estimates: Mapping[str, Estimate], n: int, method: str, fit: Any,
                notes: Sequence[str] = (), answers: Sequence[Answer] = (), rivals: tuple[Any, ...] = (),
                doubts: Sequence[str] = ()) -> Verdict:
        """The verdict by ``expect``, and by ``answers`` to what else the claim says: holds if all of it does, fails if
        any part fails. With ``doubts`` that the estimates are of anything, no estimate decides."""
        judged: list[Answer] = ["undecided" if doubts else region.judge(estimates[name])
                                for name, region in self.expect.items()]
        each = [*answers, *judged, *(["undecided"] if doubts else [])]
        answer: Answer = "fails" if "fails" in each else "undecided" if "undecided" in each else "holds"
        because = [*doubts, *notes,
                   *(f"{name} {estimates[name]}, expected {region}" for name, region in self.expect.items())]
        expected = {name: str(region) for name, region in self.expect.items()}
        return Verdict(self.claim, about, answer, estimates, expected, n, method, "; ".join(because), fit, rivals)


def parse_claims(items: Sequence[Any], known: Collection[str]) -> list[Claim]:
    """The claims of an ``analysis:`` block; ``known`` are the columns that there will be, or map all their names to
    them.

    Each item is a mapping with ``claim`` and one key that says what to fit (law, boundary ...). Raises UserError, which
    names the item, for anything else.
    """
    return [_parse(item, f"analysis[{i}]", known) for i, item in enumerate(items)]


def _parse(item: Any, place: str, known: Collection[str]) -> Claim:
    if not isinstance(item, Mapping):
        raise UserError(f"{place}: expected a mapping of keys to values, got {item!r}")
    kinds = [kind for kind in CLAIMS.classes if kind in item]
    if len(kinds) > 1 and "law" in kinds:  # the law of an optimum, say
        kinds.remove("law")
    if len(kinds) != 1:
        raise UserError(f"{place}: expected one of the keys {', '.join(CLAIMS.classes)}, "
                        f"got {', '.join(map(str, item))}")
    cls = CLAIMS.classes[kinds[0]]
    declared = {f.name.removesuffix("_"): f for f in dataclasses.fields(cls)}
    given: dict[str, Any] = {}
    for key, value in item.items():
        if key not in declared:
            raise UserError(f"{place}.{key}: no such key; {did_you_mean(key, declared)}")
        given[declared[key].name] = declared[key].metadata["parse"](value, f"{place}.{key}", known)
    for key, f in declared.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and f.name not in given:
            raise UserError(f"{place}: has no key {key!r}")
    claim = cls(**given)
    claim.check(place)
    return claim
