"""Files that a verb is asked to write: never over one that is not of the kind it writes, such as the model it reads."""

from __future__ import annotations

import os

from trials.errors import UserError, special_file

# How files begin, by ending. What is of another ending is written anew only.
BEGIN: dict[str, tuple[bytes, ...]] = {
    "parquet": (b"PAR1",), "pdf": (b"%PDF",), "png": (b"\x89PNG",), "svg": (b"<?xml", b"<svg"), "eps": (b"%!PS",),
    "ps": (b"%!PS",), "jpg": (b"\xff\xd8",), "jpeg": (b"\xff\xd8",), "tif": (b"II*\0", b"MM\0*"),
    "tiff": (b"II*\0", b"MM\0*"), "webp": (b"RIFF",), "gif": (b"GIF8",)}


def check(option: str, path: str | None, kind: str) -> None:
    """Raise UserError unless a file of this kind can be written to ``path``: new, empty, or over one of its own kind,
    by whatever name or link it is called."""
    if path is None:
        return
    folder, name = os.path.split(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise UserError(f"{option}: no folder {os.path.dirname(path)} to write {name} to")
    if what := "a folder" if os.path.isdir(path) else special_file(path):
        raise UserError(f"{option}: {path} is {what}; give the path of a file")
    if not os.path.isfile(path) or os.path.getsize(path) == 0:
        return
    try:
        with open(path, "rb") as file:
            begin = file.read(8)
    except OSError as error:
        raise UserError(f"{option}: {path} cannot be read: {error.strerror}") from None
    if not begin.startswith(BEGIN.get(kind, ())):
        endings = [f".{each}" for each in BEGIN if (each == "parquet") == (kind == "parquet")]
        raise UserError(f"{option}: {path} is a file that {option} has not written, and you may need it; give the path "
                        f"of a new one, ending in {' or '.join(endings)}, or remove it")
