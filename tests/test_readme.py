"""Every fenced block of the documentation does what it says: studies are run, commands given, code executed.

A block marked ``text`` is a listing or printed output, and left alone. Nothing else may be in a block but what
``Reader`` knows how to run.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from support import COMMAND

import analysis
from orchestrator.cli import main
from search_spaces import Study, load_study
from trials.knobs import label_noise
from trials.knobs.base import KNOBS
from trials.records import Rows, schemas
from trials.trainer import train

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "trials/README.md", "analysis/README.md", "docs/calibration.md", "docs/clusters.md")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
QUICK = ["space.batch_size=[100,1000]", "space.seed.replicates=2", "trial.budget.epochs=2", "trial.model.width=64",
         "measure.weights=last", "analysis=[]"]


def said(command: str, out: str, here: Path) -> bool:
    """Whether what came of a command is what the README's words beside it say."""
    decay = here / "results" / "decay"
    checks: dict[str, Callable[[], bool]] = {
        "plan decay.yaml": lambda: " 40 " in out,
        "run decay.yaml": lambda: len(pd.read_parquet(decay / "trials")) == 40,
        "plan decay.yaml space.seed.replicates=3": lambda: " 20" in out,
        "query": lambda: "100" in out and "1000" in out,
        "fit decay.yaml": lambda: "holds" in out and "n = 30" in out,
        "report decay.yaml": lambda: (decay / "report" / "index.html").stat().st_size > 50_000,
        "spectra": lambda: " 64 x 48 " in out and (here / "esd.png").stat().st_size > 5_000,
    }
    words = command.removeprefix("phasesweep ")
    known = [start for start in checks if words.startswith(start)]
    return not known or checks[max(known, key=len)]()


def commit(study: Study, results: Path) -> None:
    """Run a study without Ray, one trial after another."""
    schema = schemas(study.column_types, study.axis_columns)
    for number, spec in enumerate(study.trials(lambda ids: [None] * len(ids))):
        assert spec is not None
        emitted, flat = train(spec, study.measure), spec.flat()
        common = {"trial_id": spec.trial_id, **{name: flat[name] for name in study.axis_columns}}
        rows = {name: [{**common, **row} for row in getattr(emitted, name)] for name in ("steps", "layers", "spectra")}
        rows["trials"] = [{**flat, **common, **emitted.trial}]
        for name, table in Rows.build(schema, rows).tables.items():
            (results / name).mkdir(parents=True, exist_ok=True)
            pq.write_table(table, results / name / f"part-{number:05d}.parquet")
    (results / "study.yaml").write_text(study.resolved())


def model(path: Path) -> None:
    """A file of one weight matrix: the length of its header, the header, the numbers."""
    weight = torch.randn(64, 48, generator=torch.Generator().manual_seed(0)).numpy()
    header = json.dumps({"fc.weight": {"dtype": "F32", "shape": [64, 48], "data_offsets": [0, weight.nbytes]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + weight.tobytes())


class Reader:
    """Someone who does what a page says, from top to bottom, in the folder ``here``; ``names`` are what the code has
    defined so far."""

    def __init__(self, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.here, self.capsys = here, capsys
        self.names: dict[str, Any] = {"analysis": analysis}

    def do(self, language: str, text: str) -> None:
        """Run one block."""
        if language == "python":
            self.code(text)
        elif language == "yaml":
            self.study(text)
        elif language == "":
            for line in text.splitlines():
                self.command(re.sub(r"\s+#.*", "", line))
        else:
            assert language == "text", f"nobody runs a block of {language!r}"

    def code(self, text: str) -> None:
        if named := re.match(r"# (\w+\.py)\n", text):
            (self.here / named[1]).write_text(text)
        else:
            exec(compile(text, "README", "exec"), self.names)

    def study(self, text: str) -> None:
        """A whole one is saved under its name; a part of one goes into ``decay.yaml``, or is a study of its own."""
        part = yaml.safe_load(text)
        if "study" in part or "analysis" in part:
            with (self.here / "decay.yaml").open("a") as file:
                file.write(text)
            return
        trial = {"task": "digits", "optimizer": "sgd", "budget": {"steps": 3}, **part["trial"]}
        (self.here / "own.yaml").write_text(yaml.safe_dump({**part, "study": "own", "trial": trial}))
        assert main(["plan", "own.yaml"]) == 0

    def command(self, line: str) -> None:
        if not line:
            return
        if line.startswith("make "):
            target = line.split()[1]
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line
            return
        assert line.startswith("phasesweep "), f"nobody runs {line!r}"
        if line == "phasesweep run decay.yaml space.seed.replicates=3":
            line = line.replace("run", "plan")  # which says how many there would be
        verb, *words = shlex.split(line)[1:]
        if verb == "doctor" and words:  # another machine's
            parser = argparse.ArgumentParser()
            importlib.import_module("orchestrator.commands.doctor").add(parser)
            parser.parse_args(words)
            return
        if verb == "run":  # in a process of its own: it starts Ray
            done = subprocess.run([*COMMAND, verb, *words], capture_output=True, text=True, timeout=240, cwd=self.here)
            status, out = done.returncode, done.stdout + done.stderr
        else:
            self.capsys.readouterr()
            status = main([verb, *words, *(["--dry-run"] if verb == "submit" and "--dry-run" not in words else [])])
            out = self.capsys.readouterr().out
        assert status == 0, f"{line}: {out}"
        assert said(line, out, self.here), f"{line}: {out}"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the studies that the pages read from, on a small scale."""
    folder = tmp_path_factory.mktemp("readme") / "results"
    commit(load_study("batch_size_phases", QUICK), folder / "batch_size_phases")
    own = ["space.width=[8]", "space.noise=[0.1]", "space.seed.replicates=1", "measure.density=last"]
    commit(load_study(str(ROOT / "examples/my_study.yaml"), own), folder / "my_study")
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_is_so(page: str, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(KNOBS, "classes", KNOBS.classes.copy())
    monkeypatch.setattr(KNOBS, "_classes", KNOBS.classes)
    (tmp_path / "results").mkdir()
    for study in results.iterdir():
        (tmp_path / "results" / study.name).symlink_to(study)
    model(tmp_path / "model.safetensors")
    reader = Reader(tmp_path, capsys)
    if page == "trials/README.md":  # its knob stands in a file beside ours
        reader.names |= vars(label_noise)
    if page == "analysis/README.md":
        steps = np.geomspace(1, 100, 8)
        distance = 3 * steps**0.5 * (1 + 0.01 * np.sin(steps))
        reader.names["rows"] = pd.DataFrame({"steps": steps, "weight_distance": distance})
    with mpl.rc_context({"backend": "agg"}):
        for language, text in BLOCK.findall((ROOT / page).read_text()):
            reader.do(language, text)


def test_every_page_is_read() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("[a-z]*/README.md")]
    assert {str(page.relative_to(ROOT)) for page in pages} == set(PAGES)
