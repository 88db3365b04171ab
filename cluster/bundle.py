"""The code that travels: our five packages, the study and the user's own files, so that what runs there is what is
here, whether phasesweep is installed there or not."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

PACKAGES = ("trials", "search_spaces", "cluster", "analysis", "orchestrator")
EPOCH = (1980, 1, 1, 0, 0, 0)  # the least a zip file can say: the same content is to be the same bytes


@dataclass(frozen=True)
class Bundle:
    """Files by their path in the folder they are unpacked to, which is then both working directory and first on the
    path of modules: our packages lie at the top, and so does what the study needs."""

    files: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def of(cls, extra: Mapping[str, bytes]) -> Bundle:
        """Our packages as they run here, and these files beside them."""
        root = Path(__file__).parents[1]
        files = {path.relative_to(root).as_posix(): path.read_bytes()
                 for package in PACKAGES for path in sorted((root / package).rglob("*"))
                 if path.is_file() and "__pycache__" not in path.parts}
        return cls({**files, **_metadata(), **extra})

    @cached_property
    def code(self) -> str:
        """Hash of our packages alone: 16 hexadecimal digits."""
        digest = hashlib.blake2b(digest_size=8)
        for name in sorted(self.files):
            if name.partition("/")[0] in PACKAGES:
                digest.update(f"{name} {len(self.files[name])} ".encode() + self.files[name])
        return digest.hexdigest()

    @cached_property
    def zipped(self) -> bytes:
        """The bundle as a zip file; the same bytes for the same files."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name in sorted(self.files):
                archive.writestr(zipfile.ZipInfo(name, EPOCH), self.files[name], zipfile.ZIP_DEFLATED)
        return buffer.getvalue()

    def unpack(self, folder: Path) -> None:
        """Write all files below ``folder``."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _metadata() -> dict[str, bytes]:
    """What tells importlib.metadata our version where we are not installed."""
    try:
        number, needs = version("phasesweep"), requires("phasesweep") or []
    except PackageNotFoundError:  # run from a checkout
        return {}
    lines = ["Metadata-Version: 2.1", "Name: phasesweep", f"Version: {number}",
             *(f"Requires-Dist: {need}" for need in needs)]
    return {f"phasesweep-{number}.dist-info/METADATA": "\n".join([*lines, "", ""]).encode()}
