"""Arguments that several verbs share: a study, its overrides, its results folder, and what may run of the study."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from orchestrator.folder import Folder
from orchestrator.provenance import check_name
from search_spaces import Study, bundled, load_study, read_study
from trials import consent, storage
from trials.errors import UserError
from trials.records import TABLES


def add_study(parser: argparse.ArgumentParser) -> None:
    """STUDY [key=value ...]."""
    parser.add_argument("study", metavar="STUDY", help="a bundled study's name (see `phasesweep list`), a YAML file, "
                                                       "or a results folder: a path, a URI, a name in results/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", default=[],
                        help="change the study, e.g. trial.optimizer.lr=0.1; results=PATH (default results/NAME) says "
                             "where results go; so does into=PATH, which may hold another study")


def add_trust(parser: argparse.ArgumentParser) -> None:
    """--trust."""
    parser.add_argument("--trust", action="store_true", help="let the study's own model and task code run, which this "
                                                             "verb does not need and leaves alone otherwise")


def load(args: argparse.Namespace) -> tuple[Study, str]:
    """The study with its overrides, and its results folder (``results=PATH``, or results/NAME).

    STUDY is a file, a bundled study's name, or whatever ``results_folder`` takes for a folder: then the study is what
    was run into it.
    """
    results, overrides = _split(args.overrides)
    if (folder := _folder(args.study)) is not None:
        return _ran_into(folder, overrides), results or folder
    study = load_study(args.study, overrides)
    return study, results or str(Path("results") / study.name)


@contextlib.contextmanager
def looking(args: argparse.Namespace, own: bool = False) -> Iterator[tuple[Study, str]]:
    """What ``load`` gives, with nothing run of the code that the study names, unless ``--trust`` is given: results may
    have come from anyone. With ``own``, that goes for the study of a results folder only. Raises UserError where the
    folder is another study's."""
    with consent.untouched(not args.trust and not (own and _is_own(args.study))):
        study, results = load(args)
        if not into(args):
            check_name(study, Folder.open(results))
        yield study, results


def into(args: argparse.Namespace) -> bool:
    """Whether the folder is given as ``into=PATH``: it may hold the results of another study, to have both in one."""
    return any(word.startswith("into=") for word in args.overrides)


def results_folder(args: argparse.Namespace) -> str:
    """The results folder alone; STUDY may also be the folder itself, or the name of one under results/."""
    results, overrides = _split(args.overrides)
    if results:
        return results
    for folder in (Path(args.study), Path("results") / args.study):
        if _is_results(folder):
            return str(folder)
    if storage.is_uri(args.study):
        return str(args.study)
    with consent.untouched():
        return str(Path("results") / load_study(args.study, overrides).name)


def _folder(name: str) -> str | None:
    """The results folder that STUDY means; None where it is a file or the name of a bundled study."""
    if storage.is_uri(name) or _is_results(Path(name)):
        return name
    under = Path("results") / name
    return str(under) if not os.path.isfile(name) and name not in bundled() and _is_results(under) else None


def _is_results(folder: Path) -> bool:
    return os.path.isfile(folder / "study.yaml") or os.path.isdir(folder / "trials")


def _is_own(name: str) -> bool:
    """Whether STUDY is a study file (or a bundled one) that does not lie in a results folder."""
    beside = Path(name).parent
    return _folder(name) is None and not (os.path.isfile(name) and any(
        any((beside / table).glob("part-*")) for table in TABLES))


def _ran_into(folder: str, overrides: list[str]) -> Study:
    """The study of a results folder. Raises UserError."""
    found = Folder.open(folder)
    try:
        data = found.read("study.yaml")
    except FileNotFoundError:
        raise UserError(f"{found.shown}: has no study.yaml; give the study's own file, and results={found.shown}") \
            from None
    return read_study(data, found.display("study.yaml"), Path(found.root) if found.local else Path.cwd(), overrides)


def _split(words: list[str]) -> tuple[str | None, list[str]]:
    results, overrides = None, []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{word!r}: expected key=value, such as trial.optimizer.lr=0.1")
        if key in ("results", "into"):
            if not value:
                raise UserError(f"{key}=: expected a folder or a URI, such as {key}=/data/my_sweep")
            results = value
        else:
            overrides.append(word)
    return results, overrides
