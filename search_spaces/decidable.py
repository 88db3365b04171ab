"""Claims that no result of a study can decide: of what it does not measure, of layers that its models lack or that are
left open, over too few values. Said before anything is trained."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from analysis.claims.base import Claim
from analysis.claims.phases import PhasesClaim
from analysis.claims.trend import TrendClaim
from analysis.observe import name_one, named
from search_spaces.study import Study
from trials.errors import UserError, did_you_mean
from trials.records import MEASURED_BY

CHANGE = ":change"
_OF_MATRIX = frozenset(("kind", "of", "rows", "cols"))  # by which ``where`` may tell layers apart too


def check_measured(study: Study) -> None:
    """Raise UserError for a claim that no result could decide, or one about what the ``measure:`` block leaves out."""
    for i, claim in enumerate(study.claims):
        if claim.hopeless:
            raise UserError(f"analysis[{i}]: {claim.claim!r} can never be decided: {claim.hopeless}")
        for name in sorted(claim.reads - study.column_types.keys()):
            group = _group(claim, name)
            if group is not None and getattr(study.measure, group) == "none":
                raise UserError(f"analysis[{i}]: {claim.claim!r} can never be decided: it is about {name}, which is "
                                f"not measured; set measure.{group} to last, or to log to have it in training too")


def of_spectra(study: Study) -> bool:
    """Whether any claim is about the spectra of layers, so that their names matter."""
    return any(_reads_spectra(claim) for claim in study.claims)


def check_layers(study: Study, layers: Collection[str]) -> None:
    """Raise UserError for a claim about a layer whose spectra no trial has, or that leaves open which it means.
    ``layers`` are those of all weight matrices."""
    for i, claim in enumerate(study.claims):
        if not _reads_spectra(claim):
            continue
        changes = study.measure.changes == "log" or (study.measure.changes != "none" and claim.at.is_end)
        there = [*(layers if study.measure.weights != "none" else ()),
                 *(f"{layer}{CHANGE}" for layer in layers if changes)]
        for wanted in claim.layers:
            if not named(wanted, there):
                raise UserError(f"analysis[{i}]: {claim.claim!r} can never be decided: no layer is called {wanted!r}; "
                                f"{did_you_mean(wanted, there)}")
        if not claim.layers and len(there) > 1 and not _OF_MATRIX & claim.where.keys():
            what = sorted(name for name in claim.reads if _group(claim, name) == "weights")
            raise UserError(f"analysis[{i}]: {claim.claim!r} is about {name_one(what, there)}")


def doubts(study: Study) -> Iterator[str]:
    """A line for each claim that will be undecided whatever comes out: it is over too few values, or about trials that
    overrides took out."""
    from analysis.laws.trend import FEWEST
    from analysis.laws.walk import FEWEST_RUNS

    for i, claim in enumerate(study.claims):
        try:
            study.check_claim(claim, f"analysis[{i}]")
        except UserError as error:
            yield f"{claim.claim!r} will be undecided: {error}"
            continue
        if not isinstance(claim, (PhasesClaim, TrendClaim)):
            continue
        if isinstance(claim, PhasesClaim) and claim.over == "step":
            settings = study.design.size(study.searched)
            have, least = (settings, FEWEST_RUNS) if settings > 1 else (len(study.seeds), FEWEST_RUNS)
            what = "settings" if settings > 1 else "trials"
        else:
            values = study.planned(claim.over)
            if values is None:
                continue
            wanted = claim.where.get(claim.over, values)
            have, least, what = sum(bool(named(value, wanted)) for value in values), FEWEST, f"values of {claim.over}"
        if have < least:
            yield f"analysis[{i}]: {claim.claim!r} will be undecided: {have} {what}, and it takes {least} at least"


def _group(claim: Claim, name: str) -> str | None:
    """What in ``measure:`` switches a column on, for this claim."""
    group = "weights" if name == "phase" else MEASURED_BY.get(name)
    of_changes = claim.layers and all(str(layer).endswith(CHANGE) for layer in claim.layers)
    return "changes" if group == "weights" and of_changes else group


def _reads_spectra(claim: Claim) -> bool:
    return any(_group(claim, name) in ("weights", "changes") for name in claim.reads)
