"""What is looked at before a sweep begins, so that what cannot work is said in one line and with nothing written:
whether its trials can be trained here, and its claims decided."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

import torch

from cluster import local_cpus
from orchestrator.survey import Survey
from orchestrator.time_limit import TimeUp, time_limit, too_long
from search_spaces import Study
from search_spaces.decidable import check_layers, check_measured, doubts, of_spectra
from trials import rehearsal
from trials.errors import UserError
from trials.spec import TrialSpec
from trials.tasks import own

MOST_MODELS = 8  # that are built to learn the names of their layers


def rehearse(found: Survey, study: Study, tell: Callable[[str], None]) -> None:
    """Raise UserError if neither the first nor the last trial can be trained, or a claim can never be decided; ``tell``
    gets what is odd. Where only some trials cannot, the others are to run; what has failed before is tried again as it
    is."""
    if found.failed or found.last is None:
        return
    spec = next(iter(found.examples.values()))
    check_measured(study)
    try:
        first_step(spec, study)
    except own.Changed:
        raise
    except UserError:
        with contextlib.suppress(UserError):
            first_step(found.last, study)
            return
        raise
    check_models(found, study)
    for line in doubts(study):
        tell(line)
    if rehearsal.equal_starts(spec, study.seeds):
        tell(f"seeds {study.seeds[0]} and {study.seeds[1]} start from the same weights: replicates differ in the order "
             f"of the data alone. If {spec.model['name']} calls torch.manual_seed, remove it: the generators are "
             "seeded for each trial")


def unfit_here(study: Study) -> str:
    """Why this machine has no room for a worker of the study, in a line; empty where it has."""
    cpus, gpus = local_cpus(), torch.cuda.device_count()
    if study.resources.cpu > cpus:
        return (f"resources.cpu: a worker wants {study.resources.cpu:g} CPU, but this machine has {cpus}; lower it, or "
                "submit the study to a cluster")
    wanted = study.resources.gpu if study.device != "cpu" else 0.0
    if wanted > gpus or (study.device == "cuda" and not gpus):
        place = "resources.gpu" if wanted else "device"
        want = f"{wanted:g} GPU" if wanted else "a GPU"
        return (f"{place}: a worker wants {want}, but this machine has {gpus or 'none'}; remove it, or submit the "
                "study to a cluster")
    return ""


def check_models(found: Survey, study: Study) -> None:
    """Raise UserError for a claim about a layer that none of the study's models has. They are built for that, one of
    each kind and extent that is swept."""
    if not of_spectra(study) or found.last is None:
        return
    built = {json.dumps([spec.model, spec.task], sort_keys=True): spec for spec in [*study.extremes, found.last]}
    if len(built) <= MOST_MODELS:
        check_layers(study, list(dict.fromkeys(name for spec in built.values() for name in rehearsal.layers(spec))))


def first_step(spec: TrialSpec, study: Study) -> None:
    """Raise UserError if the trial cannot be trained or measured, or takes longer to than a whole trial may."""
    seconds = study.resources.seconds
    try:
        with time_limit(seconds):
            rehearsal.rehearse(spec, study.measure)
    except TimeUp:
        raise UserError(f"trial: its first step {too_long(seconds)}") from None
