"""The ``phasesweep`` command."""

from __future__ import annotations

import argparse
import errno
import importlib
import logging
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
from orchestrator import streams
from orchestrator.exits import no_exit
from orchestrator.signals import came, interrupt
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
PRINT_ONLY = {"list", "plan", "status", "query", "fit", "doctor"}  # the others go on where nobody reads what they say
DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 done, 1 trials failed, 2 bad input, 130 interrupted."""
    words = sys.argv[1:] if argv is None else argv
    verb = top_parser().parse_args(words[:1]).verb
    from trials.errors import UserError, describe

    try:
        for path in (*words, os.getcwd()):
            if not path.isprintable() and path != path.encode(errors="ignore").decode():
                raise UserError(f"{path!a} is not UTF-8, which all text and all names of files are here")
        module = importlib.import_module(f"orchestrator.commands.{verb}")
        about = "\n\n".join(textwrap.fill(paragraph, 79) for paragraph in str(module.__doc__).split("\n\n"))
        parser = Parser(prog=f"phasesweep {verb}", description=about, epilog=f"example:\n  {module.EXAMPLE}",
                        formatter_class=argparse.RawDescriptionHelpFormatter)
        module.add(parser)
        args = parser.parse_intermixed_args(words[1:])
        with no_exit():
            status: int = module.main(args, _Console(soft_wrap=True, emoji=False))
        sys.stdout.flush()
        return status
    except (UserError, ClusterError) as error:
        complain(str(error))
        return BAD_INPUT
    except KeyboardInterrupt as error:
        if came() or signal.getsignal(signal.SIGTERM) is not interrupt:
            return INTERRUPTED
        complain(f"{describe(error)}: code has raised it, no signal came; let it raise another exception")
        return BAD_INPUT
    except BrokenPipeError:  # piped into head, say
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
        if "--resume" in message:
            message += "; none is needed: the same command continues what is in the results folder"
        complain(f"{message}; see `{self.prog} --help`")
        self.exit(BAD_INPUT)


def complain(message: str) -> None:
    """Print a message to the standard error in one line."""
    line = " ".join(message.split())
    if "://" in line:  # not always: this brings torch
        from trials.errors import without_secrets

        line = without_secrets(line)
    Console(stderr=True, soft_wrap=True, highlight=False).print(Text(f"phasesweep: {line}", style="red"))


class _Console(Console):
    """What comes from a study or its results is text, whatever it holds: no control characters reach the terminal, and
    no credentials of a URI."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does, without control characters but those that are rich's own."""
        from trials.errors import CONTROL, without_secrets

        for segment in super().render(renderable, options):
            text = segment.text if segment.control else without_secrets(CONTROL.sub("\ufffd", segment.text))
            yield segment if segment.control else Segment(text, segment.style)

    def on_broken_pipe(self) -> None:
        """Raise what rich would make an exit status 1 of, which here means failed trials."""
        raise BrokenPipeError


def console() -> NoReturn:
    """The installed command: ``main`` with standard streams that may fail, then the end of the process at once.

    Threads of Arrow and DuckDB let go of memory a little late, and about once in a hundred times that aborted an
    interpreter that was being taken down. SIGTERM, and a terminal that is closed, end it as Ctrl-C does.
    """
    if sys.getfilesystemencoding() != "utf-8":  # in another locale Arrow and Python would write two names for one file
        os.environ["PYTHONUTF8"] = "1"  # of our workers; PYTHONUTF8=0 may be there
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    if os.path.expanduser("~") == "~":  # no HOME, and a user whom nobody knows: in a container, say
        os.environ["HOME"] = "/nonexistent"
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it does without a folder for its cache
    out = streams.take_over(drops=not PRINT_ONLY.intersection(sys.argv[1:2]))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, interrupt)
    status: object = BAD_INPUT
    try:
        try:
            status = main()
        except SystemExit as end:  # argparse's
            status = end.code or DONE
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = INTERRUPTED
    except OSError as error:
        if error is not out.error:
            raise
    if out.error is not None and out.error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        complain(f"the standard output: {out.error.strerror}; the rest of it is lost")
        status = status if out.drops else BAD_INPUT
    os._exit(status if isinstance(status, int) else FAILED)


if __name__ == "__main__":
    console()
