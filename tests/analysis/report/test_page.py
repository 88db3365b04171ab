"""The report's page: nothing in a study can become markup or script, the numbers are the tables', and it works in a
browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from analysis.claims import Verdict
from analysis.estimates import Estimate
from analysis.report.data import BINS, DETAILED, STEPS, page_data, plain, sample
from analysis.report.page import About, _again, report, tag
from analysis.report.pictures import Picture, claim_pictures, study_pictures
from analysis.tables import load
from trials.records import COLUMNS, Rows

HOSTILE = ('</script </script><script>document.title="owned"</script><img src=x onerror="document.title=1">'
           '\'"&\u2028]]><!-- <script <img src=x ')
VOID = ("img", "meta", "input")
CHROMIUM = shutil.which("chromium")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
ABOUT = About("demo", "Does it?", "Somebody 2020", {"study.yaml": "study: demo\n"}, ["phasesweep run study.yaml"])
VERDICTS = [
    Verdict("alpha falls", "alpha = scale x^exponent", "holds", {"exponent": Estimate(-0.5, -0.612, -0.388),
            "scale": Estimate(3.0, 2.0, np.inf)}, {"exponent": "below 0"}, 12, "profile likelihood", "exponent -0.5"),
    Verdict("and the loss", "", "undecided", {"exponent": Estimate(*[np.nan] * 3)}, {"exponent": "above 0"}, 0, "",
            "not fitted: no results"),
    Verdict("it diverges", "about", "fails", {}, {}, 3, "logistic", "because")]


class Parsed(HTMLParser):
    """Elements as (name, attributes) in order, text by element name; fails on elements that do not nest."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self.open = [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.text.append((self.open[-1] if self.open else "", data))

    def of(self, name):
        return [attributes for found, attributes in self.elements if found == name]

    def said(self, *names):
        return "".join(data for name, data in self.text if name in names)


def fill(make_study, lrs=3, batches=4, seeds=2, layers=("fc1", "fc2"), odd="worker 1", size=64, name="demo"):
    """A study with numbers planted by place: lr x batch_size x seed, the first seed of the largest lr diverged."""
    study = make_study(["lr", "batch_size", "optimizer", "seed"], name, {
        "lr": pa.float64(), "batch_size": pa.int64(), "optimizer": pa.string(), "seed": pa.int64()})
    rows = {table: [] for table in COLUMNS}
    rng = np.random.default_rng(0)
    for lr in range(lrs):
        for batch in range(batches):
            for seed in range(seeds):
                own = {"trial_id": f"{lr:02}{batch:02}{seed:016}", "lr": 0.001 * 2**lr, "batch_size": 2**batch,
                       "optimizer": odd, "seed": seed}
                diverged = lr == lrs - 1 and seed == 0
                rows["trials"].append({
                    **own, "status": "diverged" if diverged else "completed", "reason": odd if diverged else None,
                    "steps": 100, "test_accuracy": lr / 10 + batch / 100 + seed / 1000, "test_loss": 2.0 + lr,
                    "train_loss": 1.0 + lr, "wall_time": 1.0, "host": odd, "version": "0.1.0"})
                rows["steps"] += [{**own, "step": step, "train_loss": 1 / (1 + step + lr), "test_loss": 2 / (1 + step),
                                   "gradient_norm": float(step)} for step in range(60)]
                for place, layer in enumerate(layers):
                    for step in (0, 100):
                        measured = {**own, "step": step, "layer": layer, "kind": "linear", "of": "weight", "rows": 64,
                                    "cols": size, "stable_rank": place + batch / 8, "mp_softrank": 0.5 + step / 1000,
                                    "lambda_plus": 2.0, "hard_rank": size, "delta_rank": size,
                                    "n_spikes": 0, "mp_distance": 0.001}
                        rows["layers"].append(measured)
                        rows["spectra"].append({**own, "step": step, "layer": layer,
                                                "eigenvalues": np.sort(rng.gamma(4, 0.25, size))[::-1].tolist()})
    study.write(Rows.build(study.schema, rows))
    return load(study.root)


def embedded(html):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)[1])


def by_name(data):
    return {each["name"]: each for each in data["columns"]}


def test_what_the_page_says_and_in_which_order(make_study):
    tables = fill(make_study)
    pictures = study_pictures(tables)
    page = Parsed(report(ABOUT, tables, VERDICTS, [None, pictures[0], None], pictures))
    assert [attributes["id"] for attributes in page.of("section")] == [
        "verdicts", "map", "figures", "trials", "origin", "again"]
    assert page.said("h1") == "Does it?" and "24 trials: 20 completed, 4 diverged; 20 ended at chance" in page.said("p")
    answers = [attributes.get("class") for attributes in page.of("details")]
    assert answers == ["verdict holds", "verdict undecided", "verdict fails", None]  # folded, as is study.yaml
    lines = [text for name, text in page.text if name == "span"]
    at = lines.index("alpha falls")  # a line has what was asked of the claim, not its other numbers
    assert lines[at - 1:at + 5] == [" holds", "alpha falls", "exponent", " −0.5", "−0.612 to −0.388", "n = "]
    text = page.said("span", "th", "td", "p", "dt", "dd", "pre")
    for words in ("✓ holds", "? undecided", "✕ fails", "−0.612 to −0.388", "2 to ∞", "not estimated", "below 0",
                  "alpha falls", "n = 12; profile likelihood", "not fitted: no results", "worker 1", "0.1.0",
                  "study: demo"):
        assert words in text, words
    images = page.of("img")
    assert len(images) == 1 + len(pictures) > 2
    for image, picture in zip(images, [pictures[0], *pictures], strict=True):
        assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) == picture.png
        assert (int(image["width"]), int(image["height"])) == picture.size and image["alt"] == picture.words


def test_a_page_can_be_read_by_anyone(make_study):
    page = Parsed(report(ABOUT, fill(make_study), VERDICTS))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        for key in ("aria-labelledby", "href"):
            assert key not in attributes or attributes[key].removeprefix("#") in ids, attributes
    assert page.of("html") == [{"lang": "en"}] and page.of("a")[0]["class"] == "skip"
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.of("meta")
    style = page.said("style")
    for words in ("prefers-color-scheme: dark", "prefers-reduced-motion", "@media print", ":focus-visible"):
        assert words in style


def test_only_its_own_script_and_style_may_run_and_nothing_is_fetched(make_study):
    html = report(ABOUT, fill(make_study), VERDICTS)
    page = Parsed(html)
    [policy] = [meta["content"] for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    allowed = dict(each.split(" ", 1) for each in policy.split("; "))
    assert allowed["default-src"] == "'none'" and allowed["img-src"] == "data:"
    for name, start in (("style", "<style>"), ("script", '<script type="module">')):
        [content] = re.findall(f"{start}(.*?)</{name}>", html, re.S)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert allowed[f"{name}-src"] == f"'sha256-{digest}'" and "url(http" not in content and "import " not in content
    assert [script.get("type") for script in page.of("script")] == ["application/json", "module"]
    assert "innerHTML" not in html and "outerHTML" not in html and "insertAdjacentHTML" not in html
    for _, attributes in page.elements:
        assert not any(key == "style" or key.startswith("on") for key in attributes)
        assert not attributes.get("src", "data:").startswith(("http", "//", "file"))


def test_what_a_study_says_cannot_become_markup(make_study):
    def made(odd, name):
        tables = fill(make_study, layers=("fc1", odd), odd=odd, name=name)
        about = About(odd, odd, odd, {odd: odd}, [odd])
        verdict = Verdict(odd, odd, "holds", {odd: Estimate(1, 0, 2)}, {odd: odd}, 3, odd, odd)
        return report(about, tables, [verdict], [Picture(odd, odd, b"\0" * 24)])

    harmless, hostile = made("word", "one"), made(HOSTILE, "other")
    shape = [(name, sorted(attributes)) for name, attributes in Parsed(harmless).elements]
    assert [(name, sorted(attributes)) for name, attributes in Parsed(hostile).elements] == shape
    assert "<" not in re.search('id="data">(.*?)</script>', hostile, re.S)[1]  # where scripts end is no simple matter
    found = by_name(embedded(hostile))
    assert HOSTILE in found["optimizer"]["values"] and f"{HOSTILE}.stable_rank" in found
    page = Parsed(hostile)
    assert page.said("h1") == HOSTILE and page.of("img")[0]["alt"] == HOSTILE and HOSTILE in page.said("pre")


def test_tags_escape_all_but_html():
    assert tag("p", "<b>", tag("i", "&"), aria_label='"') == '<p aria-label="&quot;">&lt;b&gt;<i>&amp;</i></p>'
    assert tag("img", alt="", src="x", class_=None) == '<img alt src="x">'


def test_numbers_in_the_page_are_those_of_the_tables(make_study):
    tables = fill(make_study)
    data = embedded(report(ABOUT, tables, []))
    found = {name: each["values"] for name, each in by_name(data).items()}
    frame = pd.DataFrame(found).set_index("trial_id")
    trials = tables.trials.set_index("trial_id").loc[frame.index]
    finished = trials["status"] == "completed"
    assert len(frame) == 24 and data["axes"] == ["lr", "batch_size"]  # one optimizer says nothing
    for name in ("lr", "batch_size", "seed", "status", "steps", "wall_time"):
        assert frame[name].tolist() == trials[name].tolist()
    assert frame["test_accuracy"][finished].tolist() == trials["test_accuracy"][finished].tolist()
    assert frame["test_accuracy"][~finished].isna().all()  # not final numbers
    assert frame["diverged"].tolist() == (~finished).astype(float).tolist()
    last = tables.layers[(tables.layers["step"] == 100) & (tables.layers["layer"] == "fc2")].set_index("trial_id")
    assert frame["fc2.stable_rank"][finished].tolist() == last["stable_rank"][frame.index][finished].tolist()
    assert set(frame["fc1.phase"][finished]) == {"random-like"}
    measures = {measure["name"]: measure for measure in data["measures"]}
    assert "train_accuracy" not in measures and "fc1.alpha" not in measures  # never measured
    assert [each["name"] for each in measures["status"]["categories"]] == ["completed", "diverged"]


def test_curves_are_thinned_and_spectra_counted(make_study):
    tables = fill(make_study)
    data = page_data(tables)
    trial = tables.trials["trial_id"].iloc[3]
    detail = data["details"][trial]
    steps = tables.steps[tables.steps["trial_id"] == trial].set_index("step")
    curve = detail["steps"]
    assert len(curve["step"]) == STEPS and (curve["step"][0], curve["step"][-1]) == (0, 59)
    assert curve["train_loss"] == pytest.approx(steps["train_loss"][curve["step"]].tolist(), rel=5e-4)
    assert detail["layers"] == {"step": [0, 100], "fc1.stable_rank": detail["layers"]["fc1.stable_rank"],
                                "fc2.stable_rank": detail["layers"]["fc2.stable_rank"],
                                "fc1.mp_softrank": [0.5, 0.6], "fc2.mp_softrank": [0.5, 0.6]}
    assert [curve["names"] for curve in data["curves"]][:2] == [["train_loss", "test_loss"], ["gradient_norm"]]
    stored = tables.spectra[tables.spectra["trial_id"] == trial].set_index(["layer", "step"])["eigenvalues"]
    for spectrum in detail["spectra"]:
        values, first = stored[spectrum["layer"], 100], stored[spectrum["layer"], 0]
        edges = np.geomspace(spectrum["low"], spectrum["high"], len(spectrum["counts"]) + 1)
        assert len(edges) <= BINS + 1 and spectrum["counts"] == np.histogram(values, edges)[0].tolist()
        assert spectrum["first"]["counts"] == np.histogram(first, edges)[0].tolist()
        assert spectrum["below"] + sum(spectrum["counts"]) == len(values) == spectrum["count"]
        assert spectrum["beyond"] == len(spectrum["spikes"]) == (values > 2).sum()


def test_a_thousand_trials_are_a_small_page_that_says_what_it_left_out(make_study):
    tables = fill(make_study, lrs=10, batches=10, seeds=10, layers=("a", "b", "c", "d", "e"), size=128)
    html = report(ABOUT, tables, [])
    data = embedded(html)
    assert len(html) < 5e6 and len(by_name(data)["lr"]["values"]) == 1000 and len(data["details"]) == DETAILED
    assert {(trial[:2], trial[2:4]) for trial in data["details"]} == {(f"{i:02}", f"{j:02}") for i in range(10)
                                                                       for j in range(10)}
    notes = Parsed(html).said("li")
    assert f"{DETAILED} of 1,000 trials" in notes and f"at most {STEPS} steps" in notes and "Layers not shown" in notes


def test_a_sample_has_one_of_each_cell_before_a_second_of_any():
    trials = pd.DataFrame({"lr": [1] * 50 + [2] * 5 + [3] * 2, "seed": range(57)})
    chosen = sample(trials, ["lr"], 7)
    assert sorted(chosen["lr"].value_counts()) == [2, 2, 3] and (chosen["lr"] == 3).sum() == 2
    assert sorted(sample(trials, ["lr"], 3)["lr"]) == [1, 2, 3]
    pd.testing.assert_frame_equal(chosen, sample(trials, ["lr"], 7))
    assert sample(trials, ["lr"], 57) is trials and len(sample(trials, [], 9)) == 9


def test_what_json_cannot_hold():
    values = pd.Series([1, None, np.inf, float("nan"), 2**60, True, pd.Timestamp("2020-01-01"), "x"], dtype=object)
    assert plain(values) == [1, None, None, None, str(2**60), "True", "2020-01-01 00:00:00", "x"]


def test_a_study_without_claims_layers_or_axes_has_a_page(make_study):
    study = make_study(["seed"])
    for seed in range(3):
        study.add(f"s{seed}", {"seed": seed}, final={"test_loss": float(seed)}, layers={})
    html = report(ABOUT, load(study.root), [])
    data = embedded(html)
    assert data["axes"] == ["seed"] and [each["name"] for each in data["measures"]] == [
        "test_loss", "diverged", "status"]
    assert "claims nothing" in Parsed(html).said("p")


def test_what_was_fitted_is_drawn():
    assert claim_pictures(VERDICTS) == [None, None, None]  # nothing was fitted


def browse(html, folder, route=""):
    """The document as a browser leaves it."""
    (folder / "page.html").write_text(html, encoding="utf-8")
    done = subprocess.run([CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/own",
                           "--virtual-time-budget=2000", "--dump-dom", f"file://{folder}/page.html{route}"],
                          capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def cells_in(dom):
    return [attributes for name, attributes in Parsed(dom).elements
            if name == "g" and attributes.get("class") == "cell"]


@needs_browser
@pytest.mark.parametrize(("route", "cells", "opened"), [
    ("#cell=5", 12, ("learning rate 0.002, batch size 2", {"trials": "2", "completed": "2"})),
    ("#x=batch_size&value=diverged&cell=3", 4, ("batch size 8", {"trials": "6", "share of diverged trials": "0.167"})),
    ("#x=lr&y=batch_size&value=fc1.phase&held=%5B%22batch_size%22%2C9%5D", 12, None),
])
def test_what_is_hostile_stays_text_in_a_browser(make_study, tmp_path, route, cells, opened):
    tables = fill(make_study, layers=("fc1", HOSTILE), odd=HOSTILE)
    dom = browse(report(ABOUT, tables, VERDICTS), tmp_path, route)
    page, drawn = Parsed(dom), cells_in(dom)
    assert len(drawn) == cells
    assert [each["tabindex"] for each in drawn].count("0") == 1  # one stop for the tab key, arrows from there
    assert len(page.of("tr")) >= 25 and page.said("title") == "demo · phasesweep"
    assert not page.of("img") and len(page.of("script")) == 2  # what is hostile stayed text
    pressed = [place for place, each in enumerate(drawn) if each["aria-pressed"] == "true"]
    aside = re.search("<aside.*?</aside>", dom, re.S)[0]
    panel = Parsed(aside)
    if opened is None:
        assert not pressed and "Choose a cell" in panel.said("p")
        return
    title, facts = opened
    assert pressed == [int(route.rpartition("=")[2])] and panel.said("h3") == title
    pairs = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", aside))
    assert {name: pairs[name] for name in facts} == facts
    assert [each["aria-label"] for each in panel.of("svg") if "aria-label" in each] == [
        "loss over steps", "spectrum of fc1"]
    assert HOSTILE in panel.said("option")


@needs_browser
def test_cells_are_where_their_values_are_named_and_coloured_by_them(make_study, tmp_path):
    dom = browse(report(ABOUT, fill(make_study), []), tmp_path)
    named = {anchor: {text: float(x if anchor == "middle" else y) for x, y, text in
                      re.findall(rf'<text x="([\d.]+)" y="([\d.]+)" text-anchor="{anchor}">([\d.]+)<', dom)}
             for anchor in ("middle", "end")}
    cells = re.findall(r'<g class="cell".*?aria-label="learning rate ([\d.]+), batch size (\d+):.*?><rect y="(.*?)" '
                       r'height="(.*?)" x="(.*?)" width="(.*?)" fill="(.*?)"', dom)
    assert len(cells) == 12
    for lr, batch, y, height, x, width, _ in cells:
        assert float(x) + float(width) / 2 == pytest.approx(named["middle"][lr])
        assert float(y) + float(height) / 2 == pytest.approx(named["end"][batch] - 4)  # half the height of a digit
    assert list(named["end"]) == ["1", "2", "4", "8"] and sorted(named["end"].values()) == list(
        named["end"].values())[::-1]
    assert cells[0][-1] == "rgb(68,1,84)" and cells[-1][-1] == "rgb(253,231,37)"  # the ends of viridis


@needs_browser
def test_with_the_keyboard_alone(make_study, tmp_path):
    act = """
      const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
      document.querySelector(".cell[tabindex='0']").focus();
      ["ArrowRight", "ArrowUp", "ArrowUp", "Enter"].forEach(press);
      const search = document.querySelector("input[type=search]");
      search.value = "diverged";
      search.dispatchEvent(new Event("input"));
      [...document.querySelectorAll("th button")].find((each) => each.textContent == "batch size").click();
      document.querySelector("[aria-sort=ascending] button").click();"""
    html = re.sub("<meta http-equiv.*?>", "", report(ABOUT, fill(make_study), []))
    dom = browse(html.replace("</body>", f"<script type=\"module\">{act}</script></body>"), tmp_path)
    drawn = cells_in(dom)
    [pressed] = [each for each in drawn if each["aria-pressed"] == "true"]
    assert pressed["tabindex"] == "0" and pressed["aria-label"].startswith("learning rate 0.002, batch size 4: test")
    assert re.search('<div class="tip"[^>]*><strong>learning rate 0.002, batch size 4</strong>', dom)
    rows = re.findall("<tr>(<th scope=.row.*?)</tr>", dom)
    batches = [int(re.findall("<td.*?>(.*?)</td>", row)[1]) for row in rows]
    assert batches == [8, 4, 2, 1] and "4 of 24 trials" in dom


def test_what_is_not_here_to_reproduce_is_named():
    own = "".join(_again(ABOUT, pd.DataFrame({"model": ["net.py:build", "mlp"], "task": ["data.py:cells"] * 2})))
    assert "data.py and net.py, what they import and the data read there are the author" in own
    assert "author" not in "".join(_again(ABOUT, pd.DataFrame({"model": ["mlp"], "task": ["digits"]})))
