"""From a study to a verdict, through Ray, the store and the fits, where the answer is known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

STUDY = """
study: edge
# With fresh samples SGD on linear regression is stable iff lr < 2 / (1 + (d + 1) / B): here 21 is half way.
question: Where is the edge of stability?
source: Ma, Bassily & Belkin 2018, arXiv 1712.06559
trial:
  task: {name: gaussian_regression, dim: 20, fresh: true}
  model: {name: mlp, depth: 0, bias: false}
  optimizer: {name: sgd, momentum: 0.0}
  budget: {steps: 1000}
space:
  batch_size: {values: [1, 2, 4, 8, 16, 32, 64, 128]}
  lr: {low: 0.04, high: 3.0, num: 20, scale: log}
measure: {weights: none, eigenvalues: none}
analysis:
  - claim: The edge rises with the batch while B is far below 21
    boundary: diverged
    in: [batch_size, lr]
    where: {batch_size: [1, 2, 4]}
    expect: {slope: {above: 0.3, below: 1.4}}
  - claim: It saturates
    largest_stable: lr
    over: batch_size
    law: saturating
    against: [power, constant]
    expect: {x_half: {above: 10, below: 45}, maximum: {above: 1.5, below: 2.7}}
"""


def test_the_edge_of_stability_is_found(tmp_path: Path) -> None:
    study = tmp_path / "edge.yaml"
    study.write_text(STUDY)

    def phasesweep(*words: str) -> str:
        done = subprocess.run([sys.executable, "-m", "orchestrator.cli", *words, str(study), "results=results"],
                              cwd=tmp_path, timeout=280, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
    assert "160" in phasesweep("plan")
    assert "holds" in phasesweep("run")
    slope, saturates = json.loads(phasesweep("fit", "--json"))
    assert slope["verdict"] == "holds" and saturates["verdict"] == "holds"
    assert slope["estimates"]["slope"]["low"] < 0.95 < slope["estimates"]["slope"]["high"]  # as it is from 1 to 4
    assert saturates["estimates"]["x_half"]["low"] < 21 < saturates["estimates"]["x_half"]["high"]
    assert "likelier than" in saturates["because"]
    phasesweep("report")
    assert (tmp_path / "results" / "report" / "index.html").stat().st_size > 50_000
