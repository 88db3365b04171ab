"""Filesystems by URI: the folder that a path, or a URI such as ``s3://bucket/folder``, names."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa
import pyarrow.fs as pafs

from trials.errors import UserError

# Of object stores: a folder is there as soon as something is in it.
FLAT = {"s3", "gcs", "abfs"}
_SECRET = re.compile(r"((?:[\w-]*(?:secret|key|token|password|signature)[\w-]*|sig)=)[^&#]*", re.IGNORECASE)
_S3 = {
    "allow_delayed_open": True,  # a file of up to 10 MB is one request instead of three
    "connect_timeout": 10.0,
    "request_timeout": 30.0,  # seconds without a byte; 3 if nothing is said, which a busy server takes
}


def is_uri(where: str | os.PathLike[str]) -> bool:
    """Whether it is a URI rather than a path."""
    return "://" in os.fspath(where)


def locate(where: str | os.PathLike[str]) -> tuple[pafs.FileSystem, str]:
    """The filesystem, and the path on it, that a path or any URI pyarrow knows names; nothing is created, and a server
    need not answer. Raises UserError for a URI that is unknown."""
    where = os.fspath(where)
    if not is_uri(where):
        return pafs.LocalFileSystem(), os.path.abspath(os.path.expanduser(where))
    try:
        filesystem, path = pafs.FileSystem.from_uri(where)
    except (OSError, ValueError, ImportError, pa.ArrowException) as error:
        raise UserError(f"results {masked(where)}: {masked(_first_line(error))}; expected a path, or a URI such as "
                        "s3://bucket/folder") from error
    path = path.rstrip("/")
    if filesystem.type_name in FLAT and not path:
        raise UserError(f"results {masked(where)}: names no bucket; expected a URI such as s3://bucket/folder")
    if isinstance(filesystem, pafs.S3FileSystem):  # a URI can say little of this, and not in every version
        state = filesystem.__reduce__()[1][0]
        filesystem = pafs.S3FileSystem(**state | {name: value for name, value in _S3.items() if name in state})
    return filesystem, path or "/"


def masked(where: str | os.PathLike[str]) -> str:
    """A path or URI as it may be shown and kept: without a key, a password or a token in it."""
    where = os.fspath(where)
    return _SECRET.sub(r"\1***", re.sub(r"://[^/?#@:]*:[^?#]*@", "://***@", where)) if is_uri(where) else where


def below(where: str | os.PathLike[str], name: str) -> str:
    """How to call a file of a folder: its path, or its URI without the options that lead to the server."""
    shown = masked(where)
    if not is_uri(shown):
        return os.path.join(shown, name) if name else shown
    parts = urlsplit(shown)
    return urlunsplit((parts.scheme, parts.netloc, f"{parts.path.rstrip('/')}/{name}".rstrip("/"), "", ""))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]
