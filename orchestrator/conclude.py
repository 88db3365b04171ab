"""What a run ends with: a small table, a figure, and where everything is."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from orchestrator.run import Outcome
from search_spaces import Study


def conclude(study: Study, results: str, outcome: Outcome, console: Console) -> int:
    """Print the end of a run and write ``summary.csv`` and ``summary.png`` beside the tables; returns the exit status.

    1 where trials failed or the run was cut short by them, 130 after an interrupt.
    """
    import analysis  # here: it brings matplotlib, which the other verbs need not wait for

    done = outcome.survey.done
    tables = analysis.load(results)
    if sum(done.values()):
        summary = analysis.summary(tables)
        console.print(analysis.format_table(summary))
        if "://" not in results:  # figures go to disk; a study in a bucket is drawn with analysis.summary_figure
            folder = Path(results)
            summary.to_csv(folder / "summary.csv", index=False)
            analysis.summary_figure(tables).savefig(folder / "summary.png", dpi=150)
            console.print(f"table    {folder / 'summary.csv'}\nfigure   {folder / 'summary.png'}", highlight=False)
    console.print(f"results  {results}/trials, steps, layers, spectra (Parquet)", highlight=False)
    counts = ", ".join(f"{count} {status}" for status, count in sorted(done.items()))
    console.print(f"{study.name}: {counts or 'nothing finished'}"
                  + (f", {len(outcome.survey.failed)} failed" if outcome.survey.failed else "")
                  + (f", {outcome.survey.pending} still to run" if outcome.survey.pending else ""), highlight=False)
    if outcome.interrupted is not None:
        console.print("interrupted; the same command continues", highlight=False)
        return 130
    if outcome.survey.failed:
        console.print(f"see why with: phasesweep status {study.name}; the same command tries them again",
                      highlight=False)
        return 1
    return 0
