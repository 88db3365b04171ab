"""What ``import analysis`` offers, and what it does not wait for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import analysis


@pytest.mark.parametrize("name", analysis.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(analysis, name).__name__ == name


def test_names_are_functions_whatever_was_imported_before() -> None:
    code = ("import analysis.tables, analysis.sql, analysis.cells, analysis.observe, analysis.phases\n"
            "import analysis\n"
            "assert all(callable(getattr(analysis, name)) for name in analysis.__all__)")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_study_is_parsed_without_what_only_fits_and_figures_need() -> None:
    code = ("import sys, search_spaces\nsearch_spaces.load_study('batch_size_phases').claims\n"
            "found = {'matplotlib', 'scipy', 'duckdb', 'sklearn', 'ray'} & set(sys.modules)\nassert not found, found")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        analysis.lod  # noqa: B018
