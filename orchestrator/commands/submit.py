"""Run a study on a cluster. The study, our code and your own model and task files travel there.

--to HOST:PORT, ray://HOST:10001 or auto joins a Ray cluster that is up: this process drives the sweep and writes the
results, and the same command continues it. The first takes this machine to be a node of the cluster; a client (ray://)
may be anywhere.

--to http://HEAD:8265, slurm, kubernetes, aws, gcp or azure hands the sweep over and shows its output; it goes on when
you press Ctrl-C or switch this machine off. `phasesweep status`, `cancel` and `fetch` with the same STUDY find it
again; so does the same `submit`, which then follows it. --with sets a target's options, --dry-run prints what would be
sent.

The cluster's token is taken from RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token.

Exit status: 0 all trials have a result (a diverged trial is a result), 1 some trials failed, 2 bad input."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from typing import TYPE_CHECKING

from rich.console import Console

from orchestrator.commands import common
from orchestrator.commands.run import run_and_conclude
from search_spaces.decidable import check_measured
from trials.storage import masked

if TYPE_CHECKING:
    from cluster import Job, Place, Target
    from orchestrator.receipt import Receipt
    from search_spaces import Study

EXAMPLE = "phasesweep submit batch_size_phases --to slurm --with nodes=4 --with time=08:00:00 --dry-run"

SHOWN = 5  # files


def add(parser: argparse.ArgumentParser) -> None:
    """STUDY, overrides and the target."""
    common.add_study(parser)
    parser.add_argument("--to", required=True, metavar="TARGET", help="an address, a URL or a kind of cluster; above")
    parser.add_argument("--with", dest="options", action="append", default=[], metavar="KEY=VALUE",
                        help="an option of the target; a wrong one gets the list of all")
    parser.add_argument("--dry-run", action="store_true", help="print what would be sent, and send nothing")
    parser.add_argument("--detach", action="store_true", help="hand over and return, without following the output")


def main(args: argparse.Namespace, console: Console) -> int:
    """Join the cluster, or hand the study over."""
    import cluster
    from orchestrator.shipping import bundle

    (study, results), into = common.load(args), common.into(args)
    check_measured(study)
    target, travels = cluster.target(args.to, args.options), bundle(study)
    left = _left_behind(study)
    if target is not None:
        place = target.place(study.name, results)
        job = cluster.Job(study.name, travels, place.results, into)
        if args.dry_run:
            console.print(target.text(job) + (f"# {left}\n" if left else ""), end="", markup=False, highlight=False)
            return 0
        if left:
            console.print(left, markup=False, highlight=False)
        return _hand_over(args, target, job, place, results, console)
    if args.dry_run:
        console.print(f"this process would join {args.to} and send it {len(travels.files)} files, "
                      f"{len(travels.zipped) / 2**20:.1f} MiB; results go to {masked(results)}", highlight=False)
        return 0
    with cluster.existing(args.to, travels) as connection:  # first of all: nothing is written if we are not let in
        from orchestrator import nodes

        for node in nodes.ask():
            if wrong := nodes.unfit(node, travels.code):
                raise cluster.ClusterError(f"--to {args.to}: {wrong}")
        return run_and_conclude(study, results, console, lambda: nullcontext(connection), into)


def _left_behind(study: Study) -> str:
    """A line on what does not travel, if there is anything."""
    from orchestrator.shipping import stays

    left = stays(study)
    more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
    return f"beside your code, and does not travel: {', '.join(left[:SHOWN])}{more}; a trial that reads it needs it " \
           "there, by its full path" if left else ""


def _hand_over(args: argparse.Namespace, target: Target, job: Job, place: Place, results: str, console: Console) -> int:
    from orchestrator.receipt import Receipt, load

    receipt = load(results)
    if receipt is not None and not receipt.target.state(receipt.number).final:
        console.print(f"{job.name} is at work already, as {receipt.number} on {receipt.to}", highlight=False)
    else:
        receipt = Receipt(args.to, args.options, target.submit(job), place.results, place.fetched)
        console.print(f"{job.name} is {receipt.number} on {args.to}; results go to {place.results}, {place.how}",
                      highlight=False)
        receipt.save(results)
    return 0 if args.detach else _follow(receipt, results, console)


def _follow(receipt: Receipt, results: str, console: Console) -> int:
    """Show the job's output until it ends, then bring its results; returns the exit status."""
    from cluster import State
    from orchestrator.commands.fetch import bring

    try:
        for line in receipt.target.follow(receipt.number):
            console.print(line, markup=False, highlight=False)
    except KeyboardInterrupt:
        console.print(f"it goes on; phasesweep status, cancel or fetch with results={masked(results)} find it again",
                      highlight=False)
        return 0
    state = receipt.target.state(receipt.number)
    bring(receipt, results, console)
    why = receipt.target.why(receipt.number) if state is State.FAILED else ""
    console.print(f"{receipt.number}: {state.value}{why and f', {why}'}", markup=False, highlight=False)
    return 0 if state is State.DONE else 1
