"""What a study still has to do: its design held against what is committed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from search_spaces import Study
from trials import consent, usercode
from trials.batches import total_steps
from trials.errors import UserError
from trials.records import FINAL
from trials.spec import TrialSpec

Observe = Callable[[list[str]], list[Mapping[str, object] | None]]

# Each optimizer step costs, in overhead, about as much as this many samples more. Rough on purpose: it orders trials
# (long ones first) and weighs them for the time left.
STEP_OVERHEAD = 32
MOST_TRIALS = 10**7  # a design is gone through in half a minute for each million


def work(spec: TrialSpec, study: Study) -> float:
    """How much work a trial is at its full budget, in samples."""
    return total_steps(spec, study.train_size(spec.task)) * float(STEP_OVERHEAD + spec.batch_size)


@dataclass
class Survey:
    """``size`` trials in the design; ``done`` of them by status; ``failed`` ids, to be tried again. ``committed`` are
    the ids of all that are in the results, which have ``others`` too: trials that this study does not ask for.

    ``pending`` trials are still to run; together they take ``pending_work``. ``budgets`` counts them by (optimizer
    steps, batch size), ``examples`` holds the first of each batch size, ``last`` is the last of all. Where an adaptive
    design has not said yet what it wants, ``open_ended`` is true and the rest is taken to be like what it asked for.
    """

    size: int
    done: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    committed: set[str] = field(default_factory=set)
    others: int = 0
    pending: int = 0
    pending_work: float = 0.0
    budgets: Counter[tuple[int, int]] = field(default_factory=Counter)
    examples: dict[int, TrialSpec] = field(default_factory=dict)
    last: TrialSpec | None = None
    open_ended: bool = False

    @property
    def finished(self) -> bool:
        """Whether every trial of the design has a result."""
        return self.pending == 0

    @property
    def left_out(self) -> str:
        """What is in the results folder beside this study's trials, in a line; empty where nothing is."""
        if not self.others:
            return ""
        return (f"{self.others:,} of {self.others + len(self.committed):,} trials in the folder are none that this "
                "study asks for; left out")


def survey(study: Study, statuses: Mapping[str, str], observe: Observe) -> Survey:
    """Go through the design once. ``statuses`` are the committed trials' by id; ``observe`` gives adaptive designs
    the results they ask for. Raises UserError for a design that is too large."""
    if study.size > MOST_TRIALS:
        raise UserError(f"{study.name}: its design has {study.size:,} trials, of at most {MOST_TRIALS:,}; take fewer "
                        "values or replicates, or a design such as sobol with trials: N")
    result, seen = Survey(study.size), set()
    for spec in study.trials(observe):
        if spec is None:
            result.open_ended = True
            break
        trial_id = spec.trial_id
        if trial_id in seen:
            result.size -= 1
            continue
        seen.add(trial_id)
        status = statuses.get(trial_id)
        if status is not None:
            result.committed.add(trial_id)
        if status in FINAL:
            result.done[str(status)] += 1
            continue
        if status is not None:
            result.failed.append(trial_id)
        result.pending += 1
        if usercode.is_usercode(spec.task["name"]) and not consent.may_run():
            continue  # how many samples it has, only its code can tell
        result.pending_work += work(spec, study)
        result.budgets[total_steps(spec, study.train_size(spec.task)), spec.batch_size] += 1
        result.examples.setdefault(spec.batch_size, spec)
        result.last = spec
    result.others = len(statuses) - len(result.committed)
    if result.open_ended:
        known = result.pending
        result.pending = result.size - sum(result.done.values())
        result.pending_work *= result.pending / max(1, known)
    return result
