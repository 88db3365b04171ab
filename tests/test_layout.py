"""The architecture, as a test: imports run one way, files stay small, the wheel holds the five packages."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT: dict[str, set[str]] = {
    "trials": set(),
    "cluster": set(),
    "analysis": {"trials"},
    "search_spaces": {"trials", "analysis"},
    "orchestrator": {"trials", "search_spaces", "analysis", "cluster"},
}


def imported(file: Path) -> set[str]:
    """Top-level names that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_one_way(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        ours = (imported(file) & set(MAY_IMPORT)) - {package}
        assert ours <= MAY_IMPORT[package], f"{file.relative_to(ROOT)} imports {ours - MAY_IMPORT[package]}"


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_files_are_one_idea(package: str) -> None:
    for file in (ROOT / package).rglob("*.py"):
        lines = len(file.read_text().splitlines())
        assert lines <= 260, f"{file.relative_to(ROOT)} has {lines} lines"


def test_only_the_query_needs_duckdb_and_only_figures_need_matplotlib() -> None:
    for package in MAY_IMPORT:
        for file in (ROOT / package).rglob("*.py"):
            heavy = imported(file) & {"duckdb", "matplotlib"}
            allowed = {"duckdb"} if file.name == "sql.py" else set()
            allowed |= {"matplotlib"} if package == "analysis" else set()
            assert heavy <= allowed, f"{file.relative_to(ROOT)} imports {heavy - allowed}"
