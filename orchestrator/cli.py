"""The ``phasesweep`` command."""

from __future__ import annotations

import argparse
import importlib
import os
import sys

from rich.console import Console

from cluster.connection import ClusterError
from orchestrator.version import VERSION
from trials.errors import UserError

VERBS = ("list", "plan", "run", "submit", "status", "query", "doctor")
DONE, FAILED, BAD_INPUT = 0, 1, 2


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 done, 1 trials failed, 2 bad input, 130 interrupted."""
    args = parser().parse_args(argv)
    console = Console(soft_wrap=True)
    try:
        status: int = args.main(args, console)
        return status
    except (UserError, ClusterError) as error:
        Console(stderr=True, soft_wrap=True).print(f"[red]phasesweep: {_plain(error)}", highlight=False)
        return BAD_INPUT
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # piped into head, say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def parser() -> argparse.ArgumentParser:
    """The argument parser of all verbs."""
    top = argparse.ArgumentParser(
        prog="phasesweep", description="Sweep how training regularizes itself; every verb has --help with an example.")
    top.add_argument("--version", action="version", version=f"phasesweep {VERSION}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name in VERBS:
        module = importlib.import_module(f"orchestrator.commands.{name}")
        verb = verbs.add_parser(name, help=module.HELP, description=module.__doc__,
                                epilog=f"example:\n  {module.EXAMPLE}",
                                formatter_class=argparse.RawDescriptionHelpFormatter)
        module.add(verb)
        verb.set_defaults(main=module.main)
    return top


def _plain(error: Exception) -> str:
    """The message as one line, with nothing in it taken for markup."""
    return " ".join(str(error).split()).replace("[", r"\[")


if __name__ == "__main__":
    sys.exit(main())
