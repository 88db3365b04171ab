"""The live line of a running sweep."""

from __future__ import annotations

import time
from collections import Counter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

PLAIN_SECONDS = 15.0  # without a terminal, a line of text this often


def duration(seconds: float) -> str:
    """A time for people: ``42 s``, ``3 min``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    if whole < 6000:
        return f"{round(whole / 60)} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class SweepProgress:
    """Shows done, diverged, failed, rate and time left; on a terminal as one live line, else a line now and then.

    Time left is told from outside: it follows the work still to do, since trials differ in length a hundredfold.
    """

    def __init__(self, console: Console, total: int, done: Counter[str]) -> None:
        self._console, self._total, self._statuses = console, total, Counter(done)
        self._new = 0
        self._doing = "starting Ray"
        self._began = self._printed = time.monotonic()
        self._seconds_left: float | None = None
        self._live = Progress(
            BarColumn(bar_width=None, table_column=Column(ratio=1)), MofNCompleteColumn(),
            _Fields(self, Column(no_wrap=True)), TimeElapsedColumn(), console=console, transient=False, expand=True,
            disable=not console.is_terminal)
        self._task = self._live.add_task("trials", total=total, completed=sum(done.values()))

    def __enter__(self) -> SweepProgress:
        self._live.start()
        if not self._console.is_terminal:
            self._print()
        return self

    def __exit__(self, *exc: object) -> None:
        self._seconds_left, self._doing = None, ""
        self._live.stop()
        if not self._console.is_terminal:
            self._print()

    def doing(self, what: str) -> None:
        """What the run does before it trains."""
        self._doing = what

    def came(self, statuses: list[str]) -> None:
        """Trials with these statuses have been committed."""
        self._statuses.update(statuses)
        self._new += len(statuses)
        self._live.advance(self._task, len(statuses))

    def tick(self, seconds_left: float, training: bool) -> None:
        """Called often, with what is left by the latest timing, and whether any trial is in training."""
        if training and self._doing:
            self._doing, self._began = "", time.monotonic()
        self._seconds_left = seconds_left if self._new else None
        if not self._console.is_terminal and time.monotonic() - self._printed > PLAIN_SECONDS:
            self._print()

    def fields(self) -> str:
        """Everything beside the bar."""
        statuses = self._statuses
        parts = [self._doing] * bool(self._doing)
        parts += [f"{statuses[name]} {name}" for name in ("stopped", "diverged", "failed") if statuses[name]]
        elapsed = time.monotonic() - self._began
        if self._new:
            rate = self._new / max(elapsed, 1e-9)
            parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s" if rate >= 1 else f"{60 * rate:.1f}/min")
        if self._seconds_left is not None:
            parts.append(f"{duration(self._seconds_left)} left")
        return " · ".join(parts)

    def _print(self) -> None:
        self._printed = time.monotonic()
        counts = f"trials {sum(self._statuses.values()):,}/{self._total:,}"
        self._console.print(" · ".join(filter(None, (counts, self.fields()))), highlight=False)


class _Fields(ProgressColumn):
    def __init__(self, progress: SweepProgress, column: Column) -> None:
        super().__init__(column)
        self._progress = progress

    def render(self, task: Task) -> Text:
        return Text(self._progress.fields(), style="cyan")
