"""Temporary folders: private to their user, removed by the process that made them, or by a later one where it was
killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.errors import ClusterError

PREFIX, LOCK = "phasesweep-", ".lock"  # a folder of ours, and the file in it that is locked while it is in use
LEAST_BYTES, LEAST_FILES = 64 << 20, 1000  # a Ray takes some 2 MB in 60 files, and logs grow


def base(longest: int | None = None) -> Path:
    """Where temporary folders go: what RAY_TMPDIR or TMPDIR say, else the system's. A TMPDIR longer than ``longest``
    is not used.

    Raises ClusterError, one line with the fix, where it cannot hold any: it is missing, read-only or full. Python would
    quietly take another place, and Ray wait for half a minute for files that do not come.
    """
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), "")
    path = os.path.abspath(os.environ[name]) if name else tempfile.gettempdir()
    if longest is not None and len(os.fsencode(path)) > longest:
        path, name = "/tmp", ""
    what, fix = f"temporary files cannot go to {path}", f"set {name or 'TMPDIR'} to a folder with room on a local disk"
    if not os.path.isdir(path):
        raise ClusterError(f"{what}, which is no folder; {fix}")
    try:
        with tempfile.TemporaryFile(dir=path):
            pass
        room = os.statvfs(path)
    except OSError as error:
        raise ClusterError(f"{what}: {error.strerror}; {fix}") from None
    if room.f_bavail * room.f_frsize < LEAST_BYTES:
        raise ClusterError(f"{what}: {room.f_bavail * room.f_frsize / 2**20:.0f} MiB are free, and it takes "
                           f"{LEAST_BYTES >> 20}; {fix}")
    if room.f_files and room.f_favail < LEAST_FILES:
        raise ClusterError(f"{what}: no more files can be made there (its inodes are used up); {fix}")
    return Path(path)


@contextmanager
def scratch(where: Path | None = None) -> Iterator[Path]:
    """A new folder in ``where`` (by default ``base()``), removed on leaving. Those that killed processes left there are
    removed first."""
    where = where or base()
    _sweep(where)
    folder = where / (PREFIX + secrets.token_hex(3))
    folder.mkdir(mode=0o700)
    try:
        with (folder / "lock").open("w") as file:
            with contextlib.suppress(OSError):  # a disk that knows no locks: nobody will remove it but us
                fcntl.flock(file, fcntl.LOCK_EX)
                os.rename(file.name, folder / LOCK)  # in one step, so that nobody finds it unlocked
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(where: Path) -> None:
    """Remove folders of ours that no process has locked any more."""
    for folder in where.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), (folder / LOCK).open() as file:
            if folder.stat().st_uid == os.getuid():
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
