"""A folder on any pyarrow filesystem, with the few durable operations a results store needs."""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import time
import uuid
from collections.abc import Callable, Iterator

from pyarrow import fs as pafs

from trials import storage
from trials.errors import UserError, special_file

# In the name of every temporary file, so that a sweep never removes one this very process is writing.
_PROCESS = uuid.uuid4().hex[:12]
PATIENCE = 45.0  # seconds: a lease that is not renewed for 60 is lost
_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
# What object stores say that no waiting mends, and what does.
_SIGNS = {
    "NO_SUCH_BUCKET": "make the bucket first, or check its name and region",
    "InvalidBucketName": "check the bucket's name",
    "INVALID_ACCESS_KEY_ID": (_KEYS := "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or your AWS profile"),
    "SIGNATURE": _KEYS, "CREDENTIALS": _KEYS, "InvalidToken": _KEYS, "ExpiredToken": _KEYS, "INVALID_CLIENT": _KEYS,
    "ACCESS_DENIED": f"{_KEYS}, and that they may read, write and list there",
}
_CHECK = "check the path and the storage behind it, or choose another results=PATH"


class Unreachable(UserError):
    """The storage did not answer, or not now: the same may work later."""


def patiently(do: Callable[[], None], tell: Callable[[str], None]) -> None:
    """``do()``, again while the storage is unreachable, for PATIENCE seconds at most; ``tell`` says so once."""
    until, told = time.monotonic() + PATIENCE, False
    while True:
        try:
            return do()
        except Unreachable as error:
            if time.monotonic() > until:
                raise
            if not told:
                tell(f"{error}. Trying again for {PATIENCE:.0f} s")
            told = True
            time.sleep(PATIENCE / 50)


class Folder:
    """Files below ``root`` of ``filesystem``, by names relative to it with ``/`` between folders.

    A write is atomic: a reader sees the old content or the new. On a local disk it is also durable once it returns
    (temporary file, fsync, rename, fsync of the directory); elsewhere it is one put, which is both on object stores.
    Every method raises UserError, one line with path and fix, when the disk is full, read-only or forbidden, or the
    storage cannot be reached (Unreachable: it may be later); the old content is then intact.
    """

    def __init__(self, filesystem: pafs.FileSystem, root: str, where: str | None = None) -> None:
        self.filesystem = filesystem
        self.root = root.rstrip("/") or "/"
        self.where = where or self.root  # what opens it again: it may hold a secret
        self.local = isinstance(filesystem, pafs.LocalFileSystem)
        self._flat = filesystem.type_name in storage.FLAT
        self._made: set[str] = set()

    @classmethod
    def open(cls, where: str | os.PathLike[str], filesystem: pafs.FileSystem | None = None) -> Folder:
        """The folder at a path, or at any URI pyarrow knows (``s3://bucket/x``, ``gs://``, ``file://``).

        With ``filesystem``, ``where`` is a path on it. Nothing is created. Raises UserError for a URI that is unknown.
        """
        where = os.fspath(where)
        if filesystem is not None:
            return cls(filesystem, where)
        return cls(*storage.locate(where), where)

    @property
    def shown(self) -> str:
        """How messages call it: as the user wrote it, without a secret."""
        return storage.masked(self.where)

    def path(self, name: str) -> str:
        """The full path of a file on the filesystem."""
        return posixpath.join(self.root, name)

    def display(self, name: str) -> str:
        """A file as the user would write it, for messages."""
        return storage.below(self.where, name)

    def read(self, name: str) -> bytes:
        """All bytes of a file. Raises FileNotFoundError when there is none."""
        if self.local and (what := special_file(self.path(name))):  # a named pipe would be waited for without end
            raise UserError(f"{self.display(name)}: {what}, expected a file; move it away")
        with self.plainly("read", name, missing=True), self.filesystem.open_input_file(self.path(name)) as file:
            data: bytes = file.read_at(file.size(), 0)  # at once: a stream would ask for it in pieces
        return data

    def write(self, name: str, data: bytes) -> None:
        """Replace (or create) a file at once."""
        with self.plainly("write", name):
            self._make(posixpath.dirname(self.path(name)))
            if self.local:
                self._replace(self.path(name), data)
            else:
                self._put(self.path(name), data)

    def create_exclusive(self, name: str, data: bytes) -> bool:
        """Create a file unless it is there; return whether this call did.

        Atomic on a local disk. Object stores have no such operation in pyarrow: there two callers may both be told
        yes, and must read the file again to see whose content stayed.
        """
        path = self.path(name)
        with self.plainly("write", name):
            self._make(posixpath.dirname(path))
            if not self.local:
                if self.filesystem.get_file_info(path).type != pafs.FileType.NotFound:
                    return False
                self._put(path, data)
                return True
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:
                return False
            try:
                _fill(descriptor, data)
            except BaseException:
                os.unlink(path)
                raise
            _sync_directory(posixpath.dirname(path))
            return True

    def list(self, sub: str = "") -> list[str]:
        """Sorted names of the files directly in ``sub``, hidden ones too; empty when there is no such folder."""
        with self.plainly("list", sub):
            selector = pafs.FileSelector(self.path(sub) if sub else self.root, allow_not_found=True)
            infos = self.filesystem.get_file_info(selector)
        return sorted(info.base_name for info in infos if info.type == pafs.FileType.File)

    def delete(self, name: str) -> None:
        """Remove a file; it is no error when there is none."""
        with self.plainly("delete", name, missing=True), contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(self.path(name))

    def move(self, name: str, target: str) -> None:
        """Rename a file, replacing ``target``. Raises FileNotFoundError when there is none."""
        with self.plainly("move", name, missing=True):
            self._make(posixpath.dirname(self.path(target)))
            self.filesystem.move(self.path(name), self.path(target))

    def sweep(self, *subs: str) -> None:
        """Remove temporary files that an earlier process left in these folders (``""`` is the root)."""
        for sub in subs:
            for name in self.list(sub):
                if name.startswith(".") and name.endswith(".tmp") and _PROCESS not in name:
                    self.delete(posixpath.join(sub, name))

    def _make(self, directory: str) -> None:
        """Create a directory and those above it; on a local disk the entry in its parent is made durable too."""
        if self.local:
            if not os.path.isdir(directory):
                self._make(os.path.dirname(directory))
                with contextlib.suppress(FileExistsError):
                    os.mkdir(directory)
                _sync_directory(os.path.dirname(directory))
        elif not self._flat and directory not in self._made:
            self.filesystem.create_dir(directory, recursive=True)
            self._made.add(directory)

    def _put(self, path: str, data: bytes) -> None:
        with self.filesystem.open_output_stream(path, compression=None) as stream:
            stream.write(data)

    @staticmethod
    def _replace(path: str, data: bytes) -> None:
        directory, name = os.path.split(path)
        temporary = os.path.join(directory, f".{name}.{_PROCESS}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            _fill(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), data)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_directory(directory)

    @contextlib.contextmanager
    def plainly(self, action: str, name: str, missing: bool = False) -> Iterator[None]:
        """Turn what the filesystem raises into one clear line; with ``missing``, FileNotFoundError passes."""
        try:
            yield
        except OSError as error:
            if missing and isinstance(error, FileNotFoundError):
                raise
            if missing and "NO_SUCH_KEY" in str(error):  # which is how S3 says so when it copies
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.display(name)) from error
            passes = False
            if error.errno in _FULL:
                reason = "the disk is full or over quota; free space and run again, or choose another results=PATH"
            elif error.errno in _FORBIDDEN:
                reason = f"{os.strerror(error.errno or 0)}; make it writable for you, or choose another results=PATH"
            else:
                fix = next((fix for sign, fix in _SIGNS.items() if sign in str(error)), _CHECK)
                passes = not self.local and fix is _CHECK
                reason = f"{storage.masked(_line(error))}; {fix}"
            raise (Unreachable if passes else UserError)(f"cannot {action} {self.display(name)}: {reason}") from error


def _fill(descriptor: int, data: bytes) -> None:
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(directory: str) -> None:
    """Make a rename or a new entry in ``directory`` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _line(error: BaseException) -> str:
    """The message on one line."""
    return " ".join(str(error).split())
