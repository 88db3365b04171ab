"""Studies with code of one's own that are looked at, so that nothing of it runs, from another folder or without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from search_spaces import load_study
from trials import consent
from trials.errors import UserError

STUDY = """\
study: own
trial:
  task: digits
  model: {name: "net.py:build", width: 4}
  optimizer: sgd
  budget: {steps: 1}
space:
  bn: [false, true]
"""
NET = "raise SystemExit\ndef build(input_shape, outputs, width=4, bn=False):\n    pass\n"
HIDDEN = "raise SystemExit\nfrom blocks import build\n"  # which reading it does not tell


def axes(path: Path) -> list[str]:
    with consent.untouched():
        return [".".join(axis.path) for axis in load_study(str(path)).axes]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "study").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "study" / "own.yaml").write_text(STUDY)
    return tmp_path / "study" / "own.yaml"


@pytest.mark.parametrize("code", [NET, HIDDEN, None])
def test_a_swept_parameter_of_ones_own_code_is_known(study: Path, code: str | None) -> None:
    if code is not None:
        study.with_name("net.py").write_text(code)
    assert axes(study) == ["model.bn"]


def test_a_key_that_its_code_does_not_take_is_refused_where_that_can_be_read(study: Path) -> None:
    study.with_name("net.py").write_text(NET)
    study.write_text(STUDY.replace("bn:", "bnn:"))
    with pytest.raises(UserError, match=r"space\.bnn: no such key in the trial; did you mean 'bn'"):
        axes(study)


def test_where_two_could_take_it_the_whole_key_is_asked_for(study: Path) -> None:
    study.write_text(STUDY.replace("digits", '"data.py:make"'))
    with pytest.raises(UserError, match=r"space\.bn: .*write space\.model\.bn or space\.task\.bn, or --trust"):
        axes(study)
    study.write_text(study.read_text().replace("bn:", "model.bn:"))
    assert axes(study) == ["model.bn"]
