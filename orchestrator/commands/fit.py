"""What the results say about each claim of a study's analysis: block: the law or boundary fitted, its numbers with 95%
intervals, and whether the claim holds, fails, or is undecided. Judged are the trials that the study's design asks for;
others in the same folder are left out, and counted (in JSON: left_out).

Exit status: 0 whatever the verdicts are, 2 bad input."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from orchestrator.commands import common
from orchestrator.conclude import own_tables
from orchestrator.folder import Folder
from orchestrator.run import look
from trials.errors import UserError

if TYPE_CHECKING:
    from analysis.claims import Verdict

EXAMPLE = "phasesweep fit batch_size_phases --json"

COLORS = {"holds": "green", "fails": "red", "undecided": "yellow"}


def add(parser: argparse.ArgumentParser) -> None:
    """STUDY, overrides, --trust and --json."""
    common.add_study(parser)
    common.add_trust(parser)
    parser.add_argument("--json", action="store_true", help="print them as JSON")


def main(args: argparse.Namespace, console: Console) -> int:
    """Print the verdicts."""
    from analysis.claims import judge  # here: what fits brings scipy
    from analysis.claims.family import together

    with common.looking(args) as (study, results):
        if not study.claims:
            raise UserError(f"{args.study}: has no analysis: block, so there is nothing to decide; add a claim such as "
                            "{claim: accuracy rises with the batch size, law: power, y: test_accuracy, x: batch_size, "
                            "expect: {exponent: {above: 0}}}")
        found = look(study, Folder.open(results))
    verdicts = judge(study.claims, own_tables(study, results, found))
    if args.json:
        print(json.dumps([{**verdict.as_json(), "left_out": found.others} for verdict in verdicts],
                         indent=2, ensure_ascii=False))
        return 0
    show(verdicts, console)
    if said := together(verdicts):
        console.print(said, highlight=False)
    if found.left_out:
        console.print(found.left_out, style="yellow", highlight=False)
    return 0


def show(verdicts: Sequence[Verdict], console: Console) -> None:
    """Each verdict: the answer and the claim, what decided, what was fitted to how many rows and how."""
    for place, verdict in enumerate(verdicts, 1):
        number = f"{place}. " if len(verdicts) > 1 else ""  # by which `together` names them
        console.print(Text.assemble((f"{verdict.answer:<10}", f"bold {COLORS[verdict.answer]}"), number, verdict.claim))
        lines = [verdict.because]
        if verdict.fit is not None:
            lines.append(f"{verdict.about}; n = {verdict.n:,}; {verdict.method}")
        if verdict.standing:
            lines.append(verdict.standing)
        for line in lines:
            console.print(Text(textwrap.fill(line, console.width - 10, initial_indent=" " * 10,
                                             subsequent_indent=" " * 10)))
