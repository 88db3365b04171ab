"""The report as one HTML page: question, verdicts and the figure of the study, a map to explore, every trial, and its
origin. How a verdict came about is folded below its line.

The page needs no network, and a Content-Security-Policy keeps it from it: script and style are allowed by their hash,
pictures are in the page. Whatever a study says goes through ``tag``, which escapes it, or to the script as JSON.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

import pandas as pd

from analysis.cells import STATUSES
from analysis.chance import at_chance
from analysis.claims import Verdict
from analysis.claims.family import together
from analysis.estimates import Answer, Estimate
from analysis.report.data import page_data, plain
from analysis.report.pictures import Picture
from analysis.tables import Tables

SCRIPTS = ("chart.js", "paint.js", "overview.js", "details.js", "table.js", "page.js")
MARKS: dict[Answer, str] = {"holds": "✓", "fails": "✕", "undecided": "?"}
ORIGIN = {"version": "phasesweep", "torch_version": "PyTorch", "host": "hosts", "device": "devices",
          "code": "code of one's own (hash)"}


@dataclass(frozen=True)
class About:
    """What a page says of a study beside its numbers; ``files`` are study files by name, ``commands`` make it anew,
    ``left_out`` says which trials of the folder are not the study's."""

    name: str
    question: str
    source: str
    files: Mapping[str, str]
    commands: Sequence[str]
    left_out: str = ""


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: str | None) -> Html:
    """An element; children that are not Html, and values of attributes, are escaped. ``class_`` is class,
    ``aria_label`` aria-label; an attribute that is None is left out, one that is empty has no value."""
    words = "".join(f" {key.strip('_').replace('_', '-')}" + (f'="{escape(value)}"' if value else "")
                    for key, value in attributes.items() if value is not None)
    if name in ("img", "meta", "input"):
        return Html(f"<{name}{words}>")
    inside = "".join(child if isinstance(child, Html) else escape(child) for child in children)
    return Html(f"<{name}{words}>{inside}</{name}>")


def report(about: About, tables: Tables, verdicts: Sequence[Verdict], of_claims: Sequence[Picture | None] = (),
           of_study: Sequence[Picture] = ()) -> str:
    """The page. ``of_claims`` has the picture of each verdict, if it has one; the first of ``of_study`` is shown beside
    the verdicts."""
    data = page_data(tables)
    style, script = _asset("page.css"), "\n".join(map(_asset, SCRIPTS))
    policy = (f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
              "base-uri 'none'; form-action 'none'")
    head = tag(
        "head", tag("meta", charset="utf-8"), tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"), tag("title", f"{about.name} · phasesweep"),
        tag("style", Html(style)))
    answers = [*_verdicts(verdicts, of_claims), *map(_figure, of_study[:1])]
    sections = {"verdicts": ("Verdicts", answers), "map": ("Explore", _explore(data)),
                "figures": ("Figures", _figures(of_study[1:])), "trials": ("Trials", _trials()),
                "origin": ("Provenance", _origin(about, tables.trials)),
                "again": ("Reproduce", _again(about, tables.trials))}
    sections = {key: section for key, section in sections.items() if section[1]}
    links = [tag("a", words, href=f"#{key}") for key, (words, _) in sections.items()]
    body = tag(
        "body", tag("a", "Skip to the verdicts", class_="skip", href="#verdicts"),
        tag("header", _head(about, tables, verdicts), tag("nav", *links, aria_label="Sections")),
        tag("main", *(tag("section", tag("h2", words, id=f"{key}-title"), *content, id=key,
                          aria_labelledby=f"{key}-title") for key, (words, content) in sections.items())),
        tag("footer", f"Made by phasesweep from {tables.name}."),
        tag("script", Html(_embedded(data)), type="application/json", id="data"),
        tag("script", Html(script), type="module"))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _asset(name: str) -> str:
    return (files("analysis.report") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _embedded(data: Mapping[str, Any]) -> str:
    """JSON in which nothing can end the element around it."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _head(about: About, tables: Tables, verdicts: Sequence[Verdict]) -> Html:
    trials, lost = tables.trials, int(at_chance(tables).sum())
    counts = [f"{count:,} {status}" for status in STATUSES if (count := int((trials["status"] == status).sum()))]
    source = [tag("span", about.source, class_="source"), " · "] if about.source else []
    found = {answer: sum(verdict.answer == answer for verdict in verdicts) for answer in MARKS}
    answers = [tag("span", f"{MARKS[answer]} {count} {answer if count == 1 else answer.removesuffix('s')}",
                   class_=f"answer {answer}") for answer, count in found.items() if count]
    trials_here = f"{len(trials):,} trials: {', '.join(counts)}{f'; {lost:,} ended at chance' if lost else ''}"
    return tag("div", tag("p", about.name, class_="name"), tag("h1", about.question or about.name),
               tag("p", *source, "; ".join(filter(None, (trials_here, about.left_out))), class_="counts"),
               *([tag("p", *answers, class_="answers")] if answers else []),
               *([tag("p", said, class_="counts")] if (said := together(verdicts)) else []))


def _verdicts(verdicts: Sequence[Verdict], of_claims: Sequence[Picture | None]) -> list[Html]:
    if not verdicts:
        return [tag("p", "This study claims nothing: it has no ", tag("code", "analysis:"), " block. With a claim such "
                    "as the following in its file, a law or a boundary is fitted and the claim decided."),
                tag("pre", "analysis:\n- claim: test accuracy rises with the batch size\n  law: power\n"
                           "  y: test_accuracy\n  x: batch_size\n  expect: {exponent: {above: 0}}")]
    pictures = [*of_claims, *[None] * (len(verdicts) - len(of_claims))]
    heads = [tag("span", words) for words in ("answer", "claim", "number", "95% interval", "n")]
    return [tag("div", tag("div", *heads, class_="row heads", aria_hidden="true"), *(
        _verdict(verdict, picture) for verdict, picture in zip(verdicts, pictures, strict=True)), class_="verdicts")]


def _verdict(verdict: Verdict, picture: Picture | None) -> Html:
    """A line with the number that decided; how it was found is folded below it."""
    answer = tag("span", tag("span", MARKS[verdict.answer], class_="mark", aria_hidden="true"), f" {verdict.answer}",
                 class_=f"answer {verdict.answer}")
    name, asked = next(((name, verdict.estimates[name]) for name in [*verdict.expected, *verdict.estimates]
                        if name in verdict.estimates), ("", None))
    number = [tag("span", name.replace("_", " "), class_="of"), " ", _number(asked.value)] if asked else ["–"]
    interval = _interval(asked) if asked else ""
    found = verdict.because.partition("; ")[0]
    if found.startswith(tuple(f"{name} " for name in verdict.expected)):  # the number, which the line has
        found = ""
    line = tag("summary", answer, tag("span", verdict.claim, class_="claim"), tag("span", *number, class_="number"),
               tag("span", interval, class_="interval"),
               tag("span", tag("span", "n = ", class_="of"), f"{verdict.n:,}", class_="n"),
               *([tag("span", found, class_="found")] if found else []), class_="row")
    rows = [tag("tr", tag("th", name.replace("_", " "), scope="row"), tag("td", _number(e.value)),
                tag("td", _interval(e)), tag("td", verdict.expected.get(name, "")),
                class_="asked" if name in verdict.expected else None) for name, e in verdict.estimates.items()]
    level = next((e.level for e in verdict.estimates.values()), Estimate(0, 0, 0).level)
    heads = [tag("th", words, scope="col") for words in ("", "estimate", f"{level:.0%} interval", "expected")]
    numbers = [tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows))] if rows else []
    details = ([tag("p", verdict.about, class_="about")] if verdict.about else []) + [
        tag("p", f"n = {verdict.n:,}", f"; {verdict.method}" if verdict.method else "", class_="method")]
    if verdict.standing:
        details.append(tag("p", verdict.standing, class_="method"))
    words = tag("div", tag("p", verdict.because, class_="because"), *numbers, *details, class_="words")
    inside = tag("div", words, *([_figure(picture)] if picture else []), class_="why")
    return tag("details", line, inside, class_=f"verdict {verdict.answer}")


def _number(value: float) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return "–" if math.isnan(value) else f"{value:.3g}".replace("-", "−")


def _interval(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "not estimated"
    return f"{_number(estimate.low)} to {_number(estimate.high)}"


def _figure(picture: Picture) -> Html:
    width, height = picture.size
    source = f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"
    return tag("figure", tag("img", src=source, alt=picture.words, width=str(width), height=str(height),
                             class_="narrow" if width < 800 else None))


def _figures(pictures: Sequence[Picture]) -> list[Html]:
    return [tag("div", *map(_figure, pictures), class_="gallery")] if pictures else []


def _explore(data: Mapping[str, Any]) -> list[Html]:
    panel = tag("aside", tag("h3", "Trials", id="panel-title"), id="panel", aria_labelledby="panel-title")
    return [tag("noscript", tag("p", "The map and the table of trials are drawn by a script, which is off here.")),
            tag("form", id="controls", aria_label="What the map shows"),
            tag("div", tag("div", id="stage"), panel, class_="explore"),
            tag("p", id="said", class_="hidden", role="status"),
            tag("ul", *(tag("li", note) for note in data["notes"]), class_="notes")]


def _trials() -> list[Html]:
    return [tag("form", id="filters", aria_label="Which trials the table shows"),
            tag("div", id="rows", class_="scroll", tabindex="0", role="region", aria_labelledby="trials-title")]


def _origin(about: About, trials: pd.DataFrame) -> list[Html]:
    facts: dict[str, str] = {}
    for column, words in ORIGIN.items():
        counts = trials[column].value_counts()
        if len(counts):
            facts[words] = ", ".join(f"{value} ({count:,})" if len(counts) > 1 else str(value)
                                     for value, count in zip(plain(counts.index.to_series()), counts, strict=True))
    times = trials["finished_at"].dropna()
    if len(times):
        first, last = (f"{time:%Y-%m-%d %H:%M} UTC" for time in (times.min(), times.max()))
        facts["finished"] = first if first == last else f"{first} to {last}"
    facts["time of all trials"] = f"{trials['wall_time'].sum():,.0f} s"
    listed = [part for words, value in facts.items() for part in (tag("dt", words), tag("dd", value))]
    return [tag("dl", *listed), *(tag("details", tag("summary", name), tag("pre", text, tabindex="0"))
                                  for name, text in about.files.items())]


def _again(about: About, trials: pd.DataFrame) -> list[Html]:
    own = sorted({name.rpartition(":")[0] for column in ("model", "task") if column in trials
                  for name in trials[column].dropna().unique() if ":" in str(name)})
    also = (f" {' and '.join(own)}, what {'they import' if own[1:] else 'it imports'} and the data read there are the "
            "author's own, and are not here: the hashes above tell whether yours are the same.") if own else ""
    return [tag("p", "Save the files above under their names, then:" if not also else
                     f"Save the files above under their names.{also} Then:"),
            tag("pre", "\n".join(about.commands), tabindex="0"),
            tag("p", "Trials are a function of their configuration and seed: the same versions on the same kind of "
                     "device give the same numbers.")]
