"""A results folder brought here, as far as it is not here yet, from a machine of which we see no more than what a job
prints there.

There, ``python -m cluster.mirror FOLDER`` reads from ``request.json`` what is here, and prints what is not as lines of
text. Here, ``receive`` puts it in place. A results folder has one writer, so two are never mixed: where there are parts
that did not come from that very folder, nothing is touched.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import signal
import sys
import time
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.errors import ClusterError

MOST_BYTES = 64 * 2**20  # of files sent at once, unless the parts of one number alone are more
READ_SECONDS = 600.0  # within which what was printed is read
REQUEST = "request.json"
CODE = ("cluster/errors.py", "cluster/mirror.py")
LINE, END, ERROR = "mirror data ", "mirror end ", "mirror error "
_INDEX = ".index"  # in the archive
_ORIGIN = ".origin"  # there: what tells this results folder from another one at the same path
_RECORD = ".mirror"  # here: the folder it comes from, and the parts that came
_PART = re.compile(r"\w+/part-(\d+)\.parquet")
_WORD = r"[^\x00-\x1f/\\:._][^\x00-\x1f/\\:]*"
_NAME = re.compile(rf"{_WORD}(/{_WORD})*")  # below the folder, and not hidden
_LINE_BYTES = 48 * 1024
_FIRST = -1


@dataclass(frozen=True)
class Request:
    """``here`` has the digest of each file that is here by name; ``after`` is the last part number that was
    answered."""

    here: Mapping[str, str]
    after: int | None = None

    @property
    def files(self) -> dict[str, bytes]:
        """What a job needs to answer it, by path in its working directory."""
        root = Path(__file__).parents[1]
        code = {name: (root / name).read_bytes() for name in CODE}
        return {"cluster/__init__.py": b"", **code, REQUEST: json.dumps(asdict(self)).encode()}


def digests(folder: Path) -> dict[str, str]:
    """Size and CRC-32 of each file of a results folder by name, hidden ones left out. ClusterError if one cannot be
    read."""
    try:
        return {name: _digest((folder / name).read_bytes()) for name in _names(folder)}
    except OSError as error:
        raise ClusterError(f"cannot read {error.filename}: {error.strerror}; give another results=PATH") from None


def pack(folder: Path, request: Request, most: int = MOST_BYTES) -> bytes:
    """A zip file of what differs from what is here, and an index of all names.

    The parts of one number go together, and are not split: the trials part is read first, so that the others have the
    rows of all its trials, also while a driver writes.
    """
    names = _names(folder)
    sent: dict[str, bytes] = {}
    last = None
    groups = sorted({_group(name) for name in names if request.after is None or _group(name) > request.after})
    for group in groups:
        for name in sorted((name for name in names if _group(name) == group), key=_is_trials, reverse=True):
            with contextlib.suppress(FileNotFoundError):  # merged into another part just now
                content = (folder / name).read_bytes()
                if request.here.get(name) != _digest(content):
                    sent[name] = content
        if group != groups[-1] and sum(map(len, sent.values())) >= most:
            last = group
            break
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # Parquet is compressed already
        archive.writestr(_INDEX, json.dumps({"origin": _origin(folder), "names": names, "after": last}))
        for name, content in sent.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def lines(data: bytes) -> Iterator[str]:
    """Bytes as text that may stand between other lines."""
    for at in range(0, len(data), _LINE_BYTES):
        yield LINE + base64.b64encode(data[at:at + _LINE_BYTES]).decode()
    yield f"{END}{zlib.crc32(data):08x}"


def joined(text: str) -> bytes | None:
    """The bytes whose ``lines`` are in this text; None where their end is not there yet.

    Raises ClusterError where they are damaged, or an error stands in their place.
    """
    parts = []
    for line in text.splitlines():
        if line.startswith(ERROR):
            raise ClusterError(f"the results cannot be read there: {line.removeprefix(ERROR)}")
        if line.startswith(LINE):
            parts.append(line.removeprefix(LINE))
        elif line.startswith(END):
            try:
                data = b"".join(base64.b64decode(part, validate=True) for part in parts)
            except ValueError:
                break
            if line == f"{END}{zlib.crc32(data):08x}":
                return data
            break
    else:
        return None
    raise ClusterError("the results arrived damaged; nothing of them was written, fetch them again")


def receive(data: bytes, request: Request, into: Path) -> tuple[int, Request | None]:
    """Put in place what ``pack`` sent; returns the bytes of its files, and the next request if there is more.

    Each file is replaced whole. Parts that are gone there go first, of which trials before the others, and new ones
    come with the trials last: a reader misses trials for a moment at worst. Raises ClusterError, with nothing touched,
    if this is not what ``pack`` sends, or ``into`` has parts that did not come from there.
    """
    index, files = _unpack(data)
    here = {name: digest for name, digest in request.here.items() if _PART.fullmatch(name)}
    new = {name: _digest(content) for name, content in files.items()}
    for name in (*here, *new):
        if not (into / name).parent.resolve().is_relative_to(into.resolve()):
            raise ClusterError(f"{(into / name).parent} leads out of {into}; bring the results into another "
                               "results=PATH")
    _claim(into, index.origin, here, new, first=request.after is None)
    for name in sorted(here.keys() - set(index.names), key=_is_trials, reverse=True):
        (into / name).unlink(missing_ok=True)
    for name in sorted(files, key=_is_trials):
        _replace(into, name, files[name])
    return sum(map(len, files.values())), None if index.after is None else Request(request.here, index.after)


def main(folder: str) -> None:
    """Print what is missing here; then wait until it was read, which SIGTERM says, and take it off the disk again."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        try:
            request = Request(**json.loads(Path(REQUEST).read_bytes()))
            for line in lines(pack(Path(folder).expanduser(), request)):
                print(line)
        except OSError as error:
            print(f"{ERROR}{error}")
        sys.stdout.flush()
        time.sleep(READ_SECONDS)
    finally:
        with contextlib.suppress(OSError):  # not a file
            os.ftruncate(sys.stdout.fileno(), 0)


def _names(folder: Path) -> list[str]:
    """Of the regular files below, without hidden ones."""
    found = [Path(root, name) for root, _, files in os.walk(folder) for name in files]
    names = [path.relative_to(folder).as_posix() for path in found if not path.is_symlink()]
    return sorted(name for name in names if _NAME.fullmatch(name))


def _digest(content: bytes) -> str:
    return f"{len(content)} {zlib.crc32(content):08x}"


def _group(name: str) -> int:
    """The number of a part; other files come before all parts."""
    match = _PART.fullmatch(name)
    return int(match[1]) if match else _FIRST


def _is_trials(name: str) -> bool:
    return name.startswith("trials/")


def _origin(folder: Path) -> str:
    """The mark of this results folder, which is made if need be; empty if there is no folder yet."""
    if not folder.is_dir():
        return ""
    with contextlib.suppress(FileExistsError), (folder / _ORIGIN).open("x") as stream:
        stream.write(uuid.uuid4().hex)
    return (folder / _ORIGIN).read_text()


@dataclass(frozen=True)
class _Index:
    origin: str
    names: list[str]
    after: int | None


def _unpack(data: bytes) -> tuple[_Index, dict[str, bytes]]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [info for info in archive.infolist() if info.filename != _INDEX]
            index = _Index(**json.loads(archive.read(_INDEX)))
            # Nothing unpacks to more than what came, so what came is at most what can be written.
            small = sum(info.file_size for info in members) <= len(data)
            if not small or not all(_NAME.fullmatch(info.filename) for info in members) \
                    or not all(isinstance(name, str) for name in index.names) \
                    or not isinstance(index.after, int | None):
                raise ValueError
            return index, {info.filename: archive.read(info) for info in members}
    except (zipfile.BadZipFile, zlib.error, RuntimeError, KeyError, ValueError, TypeError, EOFError):
        raise ClusterError("what came is not a results folder of phasesweep; nothing of it was written") from None


def _claim(into: Path, origin: str, parts: Mapping[str, str], new: Mapping[str, str], first: bool) -> None:
    """Note what comes from where before it does, unless ``into`` has ``parts`` from elsewhere."""
    try:
        record = json.loads((into / _RECORD).read_bytes())
        from_there, came = record["origin"], set(map(tuple, record["parts"]))
    except (OSError, ValueError, KeyError, TypeError):
        from_there, came = None, set()
    for name, digest in parts.items():
        if (name, digest) not in came:
            raise ClusterError(f"{into / name} did not come from there, and would be overwritten; bring the results "
                               "into another results=PATH")
    if parts and from_there != origin:
        raise ClusterError(f"the results there were begun anew, and {into} has those from before; bring them into "
                           "another results=PATH")
    if new:
        known = sorted((set(parts.items()) if first else came) | set(new.items()))
        _replace(into, _RECORD, json.dumps({"origin": origin, "parts": known}).encode())


def _replace(into: Path, name: str, content: bytes) -> None:
    path = into / name
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ClusterError(f"cannot write {path}: {error.strerror}; free space there, or give another results=PATH") \
            from None


if __name__ == "__main__":
    main(sys.argv[1])
