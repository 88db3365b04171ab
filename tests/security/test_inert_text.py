"""What a study or its results say stays text: in the report, on a terminal, in SQL and in summary.csv.

Control characters do not get into a study at all. summary.csv is for programs: what would be a formula in a spreadsheet
is written as it is, for a quote put before it would be another value.

Examples: 20 words in a report, 20 in a query; all of HOSTILE in a study, and at once in a browser.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import NET, STUDIES, everything, results, steady

import analysis
from analysis.claims import judge
from analysis.report.page import About, report
from analysis.sql import _connect
from analysis.tables import load
from orchestrator import cli
from orchestrator.provenance import study_file
from search_spaces import load_study
from search_spaces.yaml_text import dump
from trials import usercode
from trials.errors import UserError

CHROMIUM = shutil.which("chromium")
OWN = "document.title='owned'"
HOSTILE = [
    f"<script>{OWN}</script>", f"</script><script>{OWN}</script>", f"</style><script>{OWN}</script>", "]]><!--",
    f'"><img src=x onerror="{OWN}">', f"'><svg onload={OWN}>", f"</title></textarea><body onload={OWN}>",
    f"javascript:{OWN}", "a\u2028\u2029b", "\u202etxt.exe", "a\ufeffb", "&lt;b&gt;&#60;script&#62;", "{0.__class__}",
    "%(x)s%n", "--><x>", "{{7*7}}", "`$7`", "\\", "\\u003cscript\\u003e", "[red]x[/red]", "[link=http://a.invalid]x[/link]",
    "[/]", "[", "=cmd|' /C calc'!A0", "@SUM(1)", "+1", "-1", "'; DROP TABLE trials; --", '" OR 1=1 --', "é日本🙂",
    "__proto__", "constructor", "$\\frac{1}{0}$", "$^$", "_^{}", "x" * 300]
words = st.sampled_from(HOSTILE) | st.text(  # ${ would be a key of the study
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Z"), exclude_characters="{"), min_size=1, max_size=30)


class Elements(HTMLParser):
    """The elements of a page, in order, with the names of their attributes and what could load or run something."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[str]]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, sorted(name for name, _ in attrs)))
        for name, value in attrs:
            assert not name.startswith("on") and name not in ("style", "srcdoc", "action", "formaction")
            assert name != "href" or str(value).startswith("#")
            assert name != "src" or str(value).startswith("data:image/png;")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def said(word: str, model: str = "words") -> dict[str, Any]:
    """A study that says ``word`` wherever it may say what it likes."""
    study = STUDIES[2]
    return {**study, "question": word, "source": word, "design": {}, "trial": {
        **study["trial"], "model": {"name": "net.py:build", model: [word]}},
        "space": {f"model.{model}": [word, f"{word} too"], "weight_decay": [0.01, 0.02, 0.03, 0.1, 0.2]},
        "analysis": [{"claim": word, "trend": "test_loss", "over": "weight_decay", "where": {f"model_{model}": word},
                      "expect": {"rank_correlation": {"below": 0}}}]}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(usercode, "_folders", [])
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


def page(root: Path, word: str) -> str:
    """The report of a study and results that say ``word``; without figures, which are pictures."""
    shutil.rmtree(root / "results", ignore_errors=True)
    study = results(root, said(word), reason=word, layer=word, host=word)
    tables = load(root / "results")
    about = About(study.name, study.question, study.source, {"study.yaml": study_file(study).decode()}, [word])
    return report(about, tables, judge(study.claims, tables))


def test_a_report_has_the_same_elements_whatever_is_said(here: Path) -> None:
    shape = Elements(page(here, "harmless")).found

    @steady(20)
    @given(words)
    def check(word: str) -> None:
        html = page(here, word)
        found = Elements(html)
        assert found.found == shape
        assert word in found.text  # the question, in an element of its own
        data = re.search(r'id="data">(.*?)</script>', html, re.DOTALL)
        assert data is not None and "<" not in data[1]
        assert any(word in column["values"] for column in json.loads(data[1])["columns"])

    check()


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_runs_nothing_of_it(here: Path) -> None:
    html = page(here, " ".join(HOSTILE))
    (here / "page.html").write_text(html, encoding="utf-8")
    done = subprocess.run([str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={here}/own",
                           "--virtual-time-budget=2000", "--dump-dom", f"file://{here}/page.html"],
                          capture_output=True, text=True, timeout=120, check=True)
    assert "<title>three · phasesweep</title>" in done.stdout and "Explore" in done.stdout
    assert not re.search(r"<(svg|img|body)[^>]*\son\w+=", done.stdout)
    plain = (here / "plain.html")
    plain.write_text(f"<title>x</title><script>{OWN}</script>")
    control = subprocess.run([str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu",
                              f"--user-data-dir={here}/own", "--dump-dom", f"file://{plain}"],
                             capture_output=True, text=True, timeout=120, check=True)
    assert "<title>owned</title>" in control.stdout  # what the canary does where it is let


@pytest.mark.parametrize("verb", ["plan", "status", "fit", "report"])
def test_markup_and_formulas_are_printed_and_drawn_as_they_stand(here: Path, verb: str,
                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    word = "[red]x[/red] [/] $^$ [link=http://a.invalid]y[/link] \\[bold] :boom: {0}" + "x" * 100
    results(here, said(word), reason=word, layer="fc1")
    assert cli.main([verb, "study.yaml", "results=results"]) == 0
    out, err = capsys.readouterr()
    assert not err and "\x1b" not in out
    if verb in ("plan", "fit"):
        assert word[:20] in out


@pytest.mark.parametrize("code", ["\x1b]0;owned\x07", "\x1b[2J", "\x9b31m", "\x00", "\x08" * 9, "\x7f", "\r"])
@pytest.mark.parametrize("place", ["question", "source", "claim", "value", "key"])
def test_control_characters_do_not_get_into_a_study(here: Path, code: str, place: str) -> None:
    word = f"a{code}b"
    study: dict[str, Any] = {
        "question": lambda: {**STUDIES[0], "question": word}, "source": lambda: {**STUDIES[0], "source": word},
        "claim": lambda: {**STUDIES[0], "analysis": [{**STUDIES[0]["analysis"][0], "claim": word}]},
        "value": lambda: said(word), "key": lambda: {**STUDIES[0], word: 1}}[place]()
    (here / "s.yaml").write_text(json.dumps(study))
    with pytest.raises(UserError, match="control characters are not allowed in text, got") as caught:
        load_study("s.yaml")
    assert str(caught.value).isprintable()


def test_quotes_in_names_and_values_are_no_sql(here: Path) -> None:
    name = 'a"; DROP TABLE trials; -- \' ]'

    @steady(20)
    @given(words)
    def check(word: str) -> None:
        shutil.rmtree(here / "results", ignore_errors=True)
        results(here, said(word, name))
        column, value = f"model_{name}".replace('"', '""'), word.replace("'", "''")
        frame = analysis.query(here / "results", f'SELECT "{column}" AS v, count(*) AS n FROM layers GROUP BY 1')
        assert dict(zip(frame["v"], frame["n"], strict=True)) == {word: 10, f"{word} too": 10}
        frame = analysis.query(here / "results", f"""SELECT trial_id FROM trials WHERE "{column}" = '{value}'""")
        assert len(frame) == 5
        assert set(load(here / "results").trials[f"model_{name}"]) == {word, f"{word} too"}

    check()


def test_no_function_of_sql_reads_or_writes_a_file(here: Path) -> None:
    """Every function that takes a text and makes a table, and every one that takes one or two texts."""
    results(here, STUDIES[1])
    secret = here / "secret.csv"
    secret.write_text("top,secret\n1,2\n")
    tables = load(here / "results")
    before = everything(here)
    tried = refused = 0
    (here / "spill").mkdir()
    before = everything(here)
    with _connect(tables, str(here / "spill")) as connection:
        functions = connection.execute(
            "SELECT DISTINCT function_name, function_type, len(parameters) FROM duckdb_functions() "
            "WHERE function_type IN ('table', 'scalar', 'table_macro', 'macro') AND function_name ~ '^[a-z_]+$' "
            "AND len(parameters) BETWEEN 1 AND 2").fetchall()
        for function, kind, count in sorted(functions):
            arguments = ", ".join([f"'{secret}'", f"'{here}/out.csv'"][:count])
            call = f"SELECT * FROM {function}({arguments})" if "table" in kind else f"SELECT {function}({arguments})"
            tried += 1
            try:
                answer = str(connection.execute(call).fetchmany(20))
            except Exception:  # whatever it says is in one line, as test_sql shows
                refused += 1
                continue
            assert "top" not in answer and "1,2" not in answer, call
    assert tried > 300 and refused > 200
    assert everything(here) == before


def test_a_formula_stays_what_it_is_in_the_summary(here: Path) -> None:
    results(here, said("=cmd|' /C calc'!A0"))
    text = analysis.summary(load(here / "results")).to_csv(index=False)
    cells = {cell for row in csv.reader(text.splitlines()) for cell in row}
    assert "=cmd|' /C calc'!A0" in cells


def test_text_comes_back_from_a_study_as_it_was(here: Path) -> None:
    for word in HOSTILE:
        (here / "s.yaml").write_text(dump(said(word)), encoding="utf-8")
        study = load_study("s.yaml")
        assert (study.question, study.source) == (word, word)
        (here / "t.yaml").write_text(study.resolved(), encoding="utf-8")
        assert load_study("t.yaml").resolved() == study.resolved()
