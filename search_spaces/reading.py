"""Studies as they are found: bundled ones by name, a YAML file, text that came from elsewhere."""

from __future__ import annotations

import os.path
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from search_spaces.schema import merge
from search_spaces.study import Study, parse_study
from search_spaces.yaml_text import parse
from trials import consent, usercode
from trials.errors import UserError, did_you_mean, special_file
from trials.tasks import own

MAX_BYTES = 1_000_000
LONGEST = 1000  # characters of a message, which may quote what a study says
_BUNDLED = files("search_spaces") / "studies"


def load_study(ref: str, overrides: Sequence[str] = ()) -> Study:
    """The bundled study called ``ref``, or the one in the YAML file ``ref``, with ``key=value`` overrides put in.

    Raises UserError, in one line that begins with the file, for anything that is not as it should be, claims about
    trials that it does not have included.
    """
    if ref in bundled():
        return read_study((_BUNDLED / f"{ref}.yaml").read_bytes(), f"{ref}.yaml", Path.cwd(), overrides, True)
    path = Path(ref)
    if what := special_file(path):
        raise UserError(f"{ref}: {what}, expected a study file")
    if not os.path.isfile(path):  # which, unlike the method of Path, says no to a name that is too long
        if path.suffix in (".yaml", ".yml"):
            near = [str(path.with_name(item.name)) for item in path.parent.glob("*.y*ml")]
            raise UserError(f"{ref}: no such file; {did_you_mean(ref, near) if near else 'no YAML file is beside it'}")
        known = [*bundled(), *(str(item) for item in path.parent.glob("*.y*ml"))]
        raise UserError(f"{ref}: no bundled study has this name, and no file; {did_you_mean(ref, known)}")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{ref}: cannot be read: {error.strerror}") from None
    return read_study(data, ref, path.resolve().parent, overrides, True)


def read_study(data: bytes, label: str, folder: Path, overrides: Sequence[str] = (),
               new: bool = False) -> Study:
    """The study in the bytes of a file, which messages call ``label``; its own code is looked for in ``folder``.

    Raises UserError as ``load_study`` does; what claims are about is looked at in a ``new`` one only, for results that
    are there can be read all the same.
    """
    if len(data) > MAX_BYTES:
        raise UserError(f"{label}: expected at most {MAX_BYTES:,} bytes; this is not a study")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{label}: expected UTF-8 text, got byte {data[error.start]:#04x} at {error.start}") from None
    if consent.may_run():
        usercode.search_in(folder)
        own.expect({})  # files of data may have changed since the last study
        return _read(text, label, folder, overrides, new)
    with usercode.reading_in(folder):
        return _read(text, label, folder, overrides, new)


def _read(text: str, label: str, folder: Path, overrides: Sequence[str], new: bool) -> Study:
    try:
        study = parse_study(merge(parse(text), overrides), folder)
        if new:
            _check_claims(study, text, overrides)
        return study
    except UserError as error:
        line = " ".join(str(error).split())
        cut = line if len(line) <= LONGEST else f"{line[:LONGEST // 2]} ... {line[-LONGEST // 2:]}"
        raise UserError(f"{label}: {cut}") from error


def _check_claims(study: Study, text: str, overrides: Sequence[str]) -> None:
    """Raise UserError for a claim about trials that the study lacks, but for those that overrides took out of it."""
    try:
        study.check_claims()
    except UserError:
        if not overrides:
            raise
        try:
            written = parse_study(merge(parse(text), ()), study.folder)
        except UserError:
            written = None
        study.check_claims(written)


def list_studies() -> dict[str, Study]:
    """Every bundled study by name."""
    return {name: load_study(name) for name in bundled()}


def bundled() -> list[str]:
    """The names of the bundled studies."""
    return sorted(item.name.removesuffix(".yaml") for item in _BUNDLED.iterdir() if item.name.endswith(".yaml"))
