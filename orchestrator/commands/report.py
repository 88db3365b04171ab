"""One page to open in a browser, and its figures as files: the verdicts on a study's claims, a map to explore, every
trial, and where they come from. It needs no network, and may be sent to others.

Written to RESULTS/report, over what was there. Exit status: 0 whatever the verdicts are, 2 bad input."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from orchestrator.commands import common
from orchestrator.conclude import own_tables
from orchestrator.folder import Folder
from orchestrator.run import look
from search_spaces import Study

if TYPE_CHECKING:
    from analysis.report.page import About

EXAMPLE = "phasesweep report batch_size_phases"


def add(parser: argparse.ArgumentParser) -> None:
    """STUDY, overrides and --trust."""
    common.add_study(parser)
    common.add_trust(parser)


def main(args: argparse.Namespace, console: Console) -> int:
    """Make all of it, then write it."""
    from analysis.claims import judge  # here: these bring matplotlib and scipy
    from analysis.claims.focus import claimed_layer
    from analysis.report.page import report
    from analysis.report.pictures import claim_pictures, study_pictures

    with common.looking(args) as (study, results):
        folder = Folder.open(results)
        found = look(study, folder)
    tables = own_tables(study, results, found)
    verdicts = judge(study.claims, tables)
    of_claims, of_study = claim_pictures(verdicts), study_pictures(tables, claimed_layer(study.claims, tables))
    page = report(_about(study, folder, found.left_out), tables, verdicts, of_claims, of_study)
    pictures = {f"report/{picture.name}.png": picture.png for picture in (*of_claims, *of_study) if picture}
    for name, content in (*pictures.items(), ("report/index.html", page.encode())):
        folder.write(name, content)
    for name in folder.list("report"):  # of an earlier report
        if name.endswith(".png") and f"report/{name}" not in pictures:
            folder.delete(f"report/{name}")
    for name in pictures:
        console.print(f"figure   {escape(folder.display(name))}", highlight=False)
    console.print(f"report   {escape(folder.display('report/index.html'))}", highlight=False)
    if found.left_out:
        console.print(found.left_out, style="yellow", highlight=False)
    return 0


def _about(study: Study, folder: Folder, left_out: str) -> About:
    """The study as it was run, and beside it, where that is another one, as it is asked about now."""
    from analysis.report.page import About

    asked = study.resolved()
    try:
        ran = folder.read("study.yaml").decode(errors="replace")
    except FileNotFoundError:
        ran = asked
    same = ran.endswith(asked)  # before it come comments on what ran it
    files = {"study.yaml": ran} if same else {"study.yaml": ran, "claims.yaml": asked}
    where = f"results={shlex.quote(f'results/{study.name}')}"
    return About(study.name, study.question, study.source, files, [
        f"phasesweep run study.yaml {where}", f"phasesweep report {list(files)[-1]} {where}"], left_out)
