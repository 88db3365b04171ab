"""Arguments that several verbs share: a study, its overrides, its results folder."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from search_spaces import Study, load_study
from trials.errors import UserError


def add_study(parser: argparse.ArgumentParser) -> None:
    """STUDY [key=value ...]."""
    parser.add_argument("study", metavar="STUDY", help="a bundled study's name (see `phasesweep list`), a YAML file, "
                                                       "or a results folder")
    parser.add_argument("overrides", nargs="*", metavar="key=value", default=[],
                        help="change the study, e.g. trial.optimizer.lr=0.1; results=PATH (default results/NAME) says "
                             "where results go")


def load(args: argparse.Namespace) -> tuple[Study, str]:
    """The study with its overrides, and its results folder (``results=PATH``, or results/NAME)."""
    results, overrides = _split(args.overrides)
    if os.path.isfile(file := os.path.join(args.study, "study.yaml")):  # a results folder, with what was run into it
        return load_study(file, overrides), results or args.study
    study = load_study(args.study, overrides)
    return study, results or str(Path("results") / study.name)


def results_folder(args: argparse.Namespace) -> str:
    """The results folder alone; STUDY may also be the folder itself, or the name of one under results/."""
    results, overrides = _split(args.overrides)
    if results:
        return results
    for folder in (Path(args.study), Path("results") / args.study):
        if os.path.isdir(folder / "trials"):
            return str(folder)
    if "://" in args.study:
        return str(args.study)
    return str(Path("results") / load_study(args.study, overrides).name)


def _split(words: list[str]) -> tuple[str | None, list[str]]:
    results, overrides = None, []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{word!r}: expected key=value, such as trial.optimizer.lr=0.1")
        if key == "results":
            if not value:
                raise UserError("results=: expected a folder or a URI, such as results=/data/my_sweep")
            results = value
        else:
            overrides.append(word)
    return results, overrides
