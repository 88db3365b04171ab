"""The ``phasesweep`` command."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import signal
import sys
import textwrap
from collections.abc import Iterable
from typing import NoReturn

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from cluster.errors import ClusterError
from orchestrator.version import VERSION

# Only the module of the verb that is asked for is imported: together they bring torch, Ray and matplotlib.
VERBS = {
    "list": "studies, and the tasks, models, optimizers, knobs, designs and metrics there are",
    "plan": "a dry run: trials, what is done, about how long the rest takes",
    "run": "run or continue a study here",
    "submit": "run a study on a cluster: Ray, Slurm, Kubernetes, a cloud",
    "status": "how far a study is, and what failed with its reason",
    "cancel": "stop a sweep that was handed over",
    "fetch": "bring the results of a sweep that was handed over",
    "query": "SQL over a study's results",
    "fit": "laws, boundaries and verdicts on a study's claims",
    "report": "one page with verdicts, figures and trials, to open in a browser",
    "spectra": "the spectral metrics of any model file",
    "doctor": "what this machine or cluster offers, and what is missing",
}
DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 done, 1 trials failed, 2 bad input, 130 interrupted."""
    words = sys.argv[1:] if argv is None else argv
    verb = top_parser().parse_args(words[:1]).verb
    from trials.errors import UserError

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a letter that the terminal lacks is no reason to stop
    try:
        module = importlib.import_module(f"orchestrator.commands.{verb}")
        about = "\n\n".join(textwrap.fill(paragraph, 79) for paragraph in str(module.__doc__).split("\n\n"))
        parser = Parser(prog=f"phasesweep {verb}", description=about, epilog=f"example:\n  {module.EXAMPLE}",
                        formatter_class=argparse.RawDescriptionHelpFormatter)
        module.add(parser)
        status: int = module.main(parser.parse_intermixed_args(words[1:]), _Console(soft_wrap=True, emoji=False))
        sys.stdout.flush()
        return status
    except (UserError, ClusterError) as error:
        complain(str(error))
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # piped into head, say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def top_parser() -> Parser:
    """The parser of the first word."""
    verbs = "".join(f"\n  {name:<8} {help}" for name, help in VERBS.items())
    top = Parser(prog="phasesweep", usage="phasesweep [-h] [--version] VERB ...",
                 description="Sweep how training regularizes itself.\n\n"
                             f"verbs (each has --help with an example):{verbs}",
                 epilog="examples:\n  phasesweep list\n  phasesweep plan batch_size_phases\n"
                        "  phasesweep run batch_size_phases",
                 formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--version", action="version", version=f"phasesweep {VERSION}")
    top.add_argument("verb", choices=VERBS, metavar="VERB", help=argparse.SUPPRESS)
    return top


class Parser(argparse.ArgumentParser):
    """Complains in one line, like everything else."""

    def error(self, message: str) -> NoReturn:
        complain(f"{message}; see `{self.prog} --help`")
        self.exit(BAD_INPUT)


def complain(message: str) -> None:
    """Print a message to the standard error in one line."""
    line = Text("phasesweep: " + " ".join(message.split()), style="red")
    Console(stderr=True, soft_wrap=True, highlight=False).print(line)


class _Console(Console):
    """What comes from a study or its results is text, whatever it holds: no control characters reach the terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does, without control characters but those that are rich's own."""
        from trials.errors import CONTROL

        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(CONTROL.sub("\ufffd", segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """Raise what rich would make an exit status 1 of, which here means failed trials."""
        raise BrokenPipeError


def console() -> NoReturn:
    """The installed command: ``main``, then the end of the process at once.

    Threads of Arrow and DuckDB let go of memory a little late, and about once in a hundred times that aborted an
    interpreter that was being taken down. SIGTERM ends it as Ctrl-C does.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    console()
