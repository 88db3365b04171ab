"""The code that travels is all that a node needs, and is the same bytes for the same files."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

from cluster import Bundle


def test_it_runs_where_nothing_is_installed(tmp_path: Path) -> None:
    Bundle.of({"study.yaml": b"x: 1\n"}).unpack(tmp_path)
    script = ("import sys, orchestrator.cli, orchestrator.version as v, trials; "
              "print(orchestrator.cli.__file__, trials.__file__, v.VERSION)")
    # -S: without site-packages' .pth files an editable install is not there; the libraries are put on the path by hand.
    done = subprocess.run([sys.executable, "-S", "-c", script], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(tmp_path), *(
                              entry for entry in sys.path if entry.endswith("site-packages"))]))})
    assert done.returncode == 0, done.stderr
    command, package, version = done.stdout.split()
    assert Path(command).parents[1] == Path(package).parents[1] == tmp_path
    assert version != "0+unknown"


def test_the_same_files_are_the_same_bytes_whatever_their_order() -> None:
    one, two = Bundle({"a": b"1", "b/c": b"2"}), Bundle({"b/c": b"2", "a": b"1"})
    assert one.zipped == two.zipped and one.zipped != Bundle({"a": b"1", "b/c": b"3"}).zipped
    with zipfile.ZipFile(BytesIO(one.zipped)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == dict(one.files)


def test_the_hash_of_our_code_is_that_of_our_packages_alone() -> None:
    ours = Bundle.of({})
    assert ours.code == Bundle.of({"study.yaml": b"x", "_usercode/m.py": b"y"}).code
    changed = {**ours.files, "trials/errors.py": b"# another\n"}
    assert Bundle(changed).code != ours.code
    moved = {**ours.files}
    moved["trials/error.py"] = moved.pop("trials/errors.py")
    assert Bundle(moved).code != ours.code


def test_nothing_that_is_no_source_travels() -> None:
    names = list(Bundle.of({}).files)
    assert {name.partition("/")[0] for name in names if "dist-info" not in name} == {
        "trials", "search_spaces", "orchestrator", "cluster", "analysis"}
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
    assert {"search_spaces/studies/batch_size_phases.yaml", "analysis/report/page.css"} & set(names)
