"""What a run ends with: a small table, a figure, what failed, and where everything is."""

from __future__ import annotations

import io
import math
import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from analysis.claims.focus import claimed_columns, claimed_layer
from orchestrator.folder import Folder
from orchestrator.run import Outcome
from orchestrator.store import read_trials
from orchestrator.survey import Survey
from search_spaces import Study
from trials.errors import UserError

if TYPE_CHECKING:
    from analysis.claims import Verdict
    from analysis.tables import Tables

REASONS = 20  # shown at most


def conclude(study: Study, results: str, outcome: Outcome, console: Console) -> int:
    """Print the end of a run and write ``summary.csv`` and ``summary.png`` beside the tables; returns the exit status.

    1 where trials failed, 130 after an interrupt. Raises UserError where the two files cannot be written.
    """
    import analysis  # here: it brings matplotlib, which the other verbs need not wait for
    from analysis.chance import at_chance
    from analysis.claims.family import together

    folder, found, lost = Folder.open(results), outcome.survey, 0
    named = shlex.quote(folder.shown)
    if sum(found.done.values()):
        tables = own_tables(study, results, found)
        layer, lost = claimed_layer(study.claims, tables), int(at_chance(tables).sum())
        summary = analysis.summary(tables, layer and [layer])
        first = claimed_columns(study.claims, summary, layer)
        console.print(analysis.format_table(summary, width=console.width, first=first))
        folder.write("summary.csv", summary.to_csv(index=False).encode())
        image = io.BytesIO()
        analysis.headline_figure(tables, layer).savefig(image, dpi=150)
        folder.write("summary.png", image.getvalue())
        part = f", of {len(found.committed):,} trials of the folder's {len(found.committed) + found.others:,}"
        for what, name in (("table", "summary.csv"), ("figure", "summary.png")):
            console.print(f"{what:<8} {escape(folder.display(name))}{part if found.others else ''}", highlight=False)
        if study.claims and found.finished:
            verdicts = analysis.judge(study.claims, tables)
            for place, verdict in enumerate(verdicts, 1):
                number = f"{place}. " if len(verdicts) > 1 else ""  # by which `together` names them
                console.print(f"{verdict.answer:<10}{number}{escape(verdict.claim + _numbers(verdict))}",
                              highlight=False)
            if said := together(verdicts):
                console.print(escape(said), highlight=False)
            console.print(escape(f"phasesweep fit {named} says why; phasesweep report {named} shows it"),
                          highlight=False)
    if found.left_out:
        console.print(found.left_out, style="yellow", highlight=False)
    console.print(f"results  {escape(folder.shown)}: trials, steps, layers, spectra (Parquet)", highlight=False)
    counts = [f"{count:,} {status}" for status, count in sorted(found.done.items())]
    if lost:
        counts.append(f"{lost:,} of these at chance: no better than guessing at the end")
    if found.failed:
        console.print(failures(study, folder, found.failed))
        counts.append(f"{len(found.failed):,} failed")
    if found.pending > len(found.failed):
        counts.append(f"{found.pending - len(found.failed):,} still to run")
    console.print(f"{study.name}: {', '.join(counts) or 'nothing finished'}", highlight=False)
    if outcome.interrupted is not None and found.pending:  # it may come when all is done
        console.print("interrupted; the same command continues", highlight=False)
        return 130
    if found.failed:
        console.print("the same command tries the failed ones again", highlight=False)
        return 1
    return 0


def _numbers(verdict: Verdict) -> str:
    """The numbers that decided, with their intervals."""
    known = [name for name in verdict.expected if not math.isnan(verdict.estimates[name].value)]
    return "".join(f"; {name.replace('_', ' ')} {verdict.estimates[name]}" for name in known)


def own_tables(study: Study, results: str, found: Survey) -> Tables:
    """The tables of a study's own trials; what else the folder holds is left out. UserError where there are none."""
    from analysis.tables import load  # here: it brings pandas

    tables = load(results)
    if not found.committed:
        raise UserError(f"{tables.place}: no trial of this study is there, only {found.others:,} that it does not ask "
                        "for; give the study and the overrides that were run")
    return tables.only(found.committed, study.axis_columns)


def failures(study: Study, folder: Folder, trial_ids: Iterable[str]) -> Table:
    """Why these trials failed: how many for each reason, and the swept values of the first of them."""
    wanted, by_reason = set(trial_ids), dict[str, list[str]]()
    for row in read_trials(folder, ["trial_id", "reason", *study.axis_columns]).to_pylist():
        if row.pop("trial_id") in wanted:
            reason = row.pop("reason")
            by_reason.setdefault(reason, []).append(", ".join(f"{name} {value}" for name, value in row.items()))
    table = Table(show_edge=False, pad_edge=False)
    for name in ("failed", "because", "for instance"):
        table.add_column(name, overflow="fold")
    for reason, trials in sorted(by_reason.items(), key=lambda item: -len(item[1]))[:REASONS]:
        table.add_row(f"{len(trials):,}", escape(reason), escape(trials[0]))
    if len(by_reason) > REASONS:
        table.caption = f"and {len(by_reason) - REASONS} other reasons"
    return table
