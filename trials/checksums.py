"""Checksums that a part of the results carries, so that a bit that flipped on a disk is noticed by whoever reads it.

Without any, nineteen of twenty flipped bits in a Parquet file give other numbers and no error. So there are three:
Parquet's own, of each page, which a reader of a few columns checks as it goes; one of the footer, in which a flipped
bit renames a column or changes the statistics that queries skip by; and one of the whole file. The last two are
key-value metadata of the footer; the footer's is taken with the digits of both blanked, the file's with its own. It
stays an ordinary Parquet file.
"""

from __future__ import annotations

import re
import zlib

FOOTER, FILE = "phasesweep.footer", "phasesweep.checksum"
_BLANK = b"crc32:00000000"
BLANKS = {FOOTER: _BLANK.decode(), FILE: _BLANK.decode()}  # what is written first
_END = 8  # bytes after a footer: its length and the four letters of the format


def sealed(data: bytes) -> bytes:
    """The bytes of a Parquet file that has ``BLANKS`` among its key-value metadata, with the checksums put in."""
    footer, file = _recorded(data, FOOTER), _recorded(data, FILE)
    assert footer and file
    data = _put(data, footer, zlib.crc32(data[footer_start(data):-_END]))
    return _put(data, file, zlib.crc32(data))


def footer_start(tail: bytes) -> int:
    """Where the footer begins in ``tail``, the last bytes of a Parquet file; below 0 if before them."""
    return len(tail) - _END - int.from_bytes(tail[-_END:-4], "little")


def file_intact(data: bytes) -> bool | None:
    """Whether a file is what was written; None where it says nothing about itself."""
    at = _recorded(data, FILE)
    return None if at is None else data[at:at + len(_BLANK)] == b"crc32:%08x" % _crc(data, at)


def footer_intact(tail: bytes) -> bool | None:
    """Whether a footer is what was written, by the last bytes of its file; None where it says nothing about itself."""
    footer = tail[footer_start(tail):-_END]
    at, file = _recorded(footer, FOOTER), _recorded(footer, FILE)
    if at is None or file is None:
        return None
    return footer[at:at + len(_BLANK)] == b"crc32:%08x" % _crc(_put(footer, file, 0), at)


def _recorded(data: bytes, key: str) -> int | None:
    """Where the checksum under ``key`` stands; 0, where none can be, if it is not in order."""
    at = data.rfind(key.encode())
    if at < 0:
        return None
    # Thrift's compact protocol puts a letter for the field and the length between a key and its value.
    found = re.compile(re.escape(key.encode()) + rb"\x18\x0e(crc32:[0-9a-f]{8})").match(data, at)
    return found.start(1) if found else 0


def _put(data: bytes, at: int, crc: int) -> bytes:
    return b"".join((data[:at], b"crc32:%08x" % crc, data[at + len(_BLANK):]))


def _crc(data: bytes, at: int) -> int:
    """The CRC-32 of ``data`` with the checksum at ``at`` blanked."""
    view = memoryview(data)
    return zlib.crc32(view[at + len(_BLANK):], zlib.crc32(_BLANK, zlib.crc32(view[:at])))
