"""What tests here draw from, and a small study with results to try it on. Every draw is the same in every run."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from orchestrator.folder import Folder
from orchestrator.provenance import study_file
from orchestrator.store import Store
from search_spaces import Study, load_study
from search_spaces.yaml_text import dump
from trials import records
from trials.records import TABLES, Rows

EXTREMES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 7, 10**6, 2**31, 2**53 + 1, 2**63, 10**30, 10**400, -10**400, 0.0, -0.0, 0.5,
    1e-300, 1e300, 5e-324, "", " ", "x", "3", "1e3", "nan", ".inf", "null", "???", "${trial.seed}", "${..}", "${study}",
    "${oc.env:HOME}", "é", "\u202e", "\u2028", "a\nb", "x" * 3000, "../x", "/etc/passwd", "mlp", "adam", "os:system",
    "a.py:b", "[red]", "'; drop table trials", "<script>", "{0.__class__}", "%s%n", [], [[]], [1], [1, 1], [0.1, "x"],
    ["mlp", "mlp"], list(range(50)), {}, {"a": 1}, {"name": "mlp"}, {"values": []}, {"values": [1, 2]},
    {"low": 0, "high": 1}, {"low": 1, "high": 0, "num": 3}, {"low": 1e-9, "high": 1, "num": 3, "scale": "log"},
    {"replicates": 3}, {"name": ["x"]}, {"a": {"b": {"c": {"d": []}}}},
]
KEYS = ["study", "trial", "space", "lr", "name", "values", "low", "high", "num", "scale", "replicates", "seed", "width",
        "batch_size", "optimizer", "model", "epochs", "steps", "momentum", "p", "knobs", "dropout", "", ".", "a.b",
        "<<", "model.width", "optimizer.lr", "trial_id", "__class__", "nosuch"]
STUDIES: list[dict[str, Any]] = [
    {"study": "one", "question": "Which?", "trial": {
        "task": "digits", "model": {"name": "mlp", "width": 16, "depth": 1}, "batch_size": 16, "seed": 3,
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}, "budget": {"epochs": 2}, "precision": "float64",
        "knobs": {"dropout": {"p": 0.1}}, "schedule": {"name": "cosine", "warmup": 0.1}},
     "space": {"lr": {"low": 0.01, "high": 1.0, "num": 3, "scale": "log"}, "dropout.p": [0.0, 0.5],
               "optimizer": ["sgd", "adam"], "seed": {"replicates": 2}},
     "measure": {"weights": "ends", "curvature": "last"}, "resources": {"cpu": 1, "gpu": 0}, "retries": 2,
     "analysis": [{"claim": "It falls.", "law": "power", "y": "test_loss", "x": "lr", "where": {"optimizer": "sgd"},
                   "at": {"step": 10}, "expect": {"exponent": {"below": 0}}},
                  {"claim": "There is an edge.", "boundary": "diverged", "in": ["lr", "dropout_p"],
                   "expect": {"slope": {"above": 0.9, "below": 1.1}}}]},
    {"study": "two", "trial": {
        "task": {"name": "gaussian_regression", "samples": 64}, "model": "mlp", "budget": {"steps": 50},
        "optimizer": {"name": "adam", "lr": 0.01}},
     "space": {"model.width": {"low": 4, "high": 64}, "optimizer.lr": {"low": 1e-4, "high": 0.1, "scale": "log"},
               "batch_size": [4, 8]},
     "design": {"name": "sobol", "trials": 8, "seed": 1}, "pack": "off", "device": "cpu"},
    {"study": "three", "trial": {
        "task": "modular_addition", "model": {"name": "net.py:build", "width": 4, "words": ["a", "b"]},
        "optimizer": "muon", "budget": {"epochs": 1}},
     "space": {"model.width": [4, 8], "model.gain": [0.5, 1], "weight_decay": [0.0, 0.1]},
     "design": {"name": "random", "trials": 4}},
]
NET = """
from torch import nn
def build(input_shape, outputs, width=8, gain=1.0, words=(), **more):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, outputs))
"""


def steady(examples: int) -> settings:
    """Settings for ``examples`` draws, the same ones in every run, that leave no files behind. The time of a single one
    is not limited, for machines are slow at times: whole tests are."""
    return settings(max_examples=examples, derandomize=True, database=None, deadline=None,
                    suppress_health_check=list(HealthCheck))


def paths(data: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in nested plain data."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*above, key)
        yield from paths(value, (*above, key))


@st.composite
def mutants(draw: st.DrawFn) -> dict[str, Any]:
    """A valid study with a change, or two, or three: a place dropped, renamed, or given a value from elsewhere."""
    study = copy.deepcopy(draw(st.sampled_from(STUDIES)))
    for _ in range(draw(st.sampled_from([1, 1, 1, 1, 2, 3]))):
        places = list(paths(study))
        *way, last = draw(st.sampled_from(places))
        inner: Any = study
        for key in way:
            inner = inner[key]
        how = draw(st.sampled_from(["drop", "drop", "rename", "extreme", "extreme", "move", "plain"]))
        value = inner.pop(last) if how in ("drop", "rename") else inner[last]
        if how == "rename":
            inner = inner if isinstance(inner, dict) else {}
            inner[draw(st.sampled_from(KEYS))] = value
        elif how == "extreme":
            inner[last] = copy.deepcopy(draw(st.sampled_from(EXTREMES)))
        elif how == "move":
            found: Any = draw(st.sampled_from(STUDIES))
            for key in draw(st.sampled_from(list(paths(found)))):
                found = found[key]
            inner[last] = copy.deepcopy(found)
        elif how == "plain":
            inner[last] = draw(st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8))
    return study


Damage = Callable[[bytes], bytes]


@st.composite
def damages(draw: st.DrawFn) -> Damage:
    """What may happen to the bytes of a file: some flipped, cut off, put in, zeroed, swapped or repeated."""
    how = draw(st.sampled_from(["flip", "flip", "cut", "insert", "zero", "swap", "repeat", "random", "empty"]))
    places = st.one_of(st.integers(0, 2**24), st.integers(-4000, -1))  # the second in the footer of a Parquet file
    a, b, size = draw(places), draw(places), draw(st.integers(1, 300))
    more, bit = draw(st.binary(min_size=1, max_size=40)), draw(st.integers(0, 7))

    def damage(data: bytes) -> bytes:
        at, other = sorted((a % len(data), b % len(data)))
        return {
            "flip": data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1:], "cut": data[:at],
            "insert": data[:at] + more + data[at:], "zero": data[:at] + bytes(min(size, len(data) - at))
            + data[at + size:], "swap": data[:at] + data[other:] + data[at:other], "repeat": data[:other] + data[at:],
            "random": more * size, "empty": b""}[how]
    return damage


def results(root: Path, study: dict[str, Any], **columns: str) -> Study:
    """Write ``study`` to study.yaml in ``root``, and results of all its trials to ``root``/results; ``columns`` are
    text that their rows hold, such as ``reason``."""
    (root / "study.yaml").write_text(dump(study), encoding="utf-8")
    loaded = load_study(str(root / "study.yaml"))
    folder = Folder.open(root / "results")
    store = Store.open(folder, records.schemas(loaded.column_types, loaded.axis_columns))
    specs = [spec for spec in loaded.trials(lambda ids: []) if spec is not None]
    half = len(specs) // 2
    for part in (range(half), range(half, len(specs))):
        store.commit(Rows.build(store.schemas, _rows([(i, specs[i].trial_id, specs[i].flat()) for i in part], columns)))
    folder.write("study.yaml", study_file(loaded))
    return loaded


def _rows(trials: list[tuple[int, str, dict[str, Any]]], columns: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {table: [] for table in TABLES}
    for i, trial_id, flat in trials:
        own = {**flat, "trial_id": trial_id}
        rows["trials"].append({**own, "status": ["completed", "completed", "diverged"][i % 3], "steps": 10,
                               "test_loss": 1 / (i + 1), "wall_time": 1.0, **columns})
        for step in (0, 10):
            own |= {"step": step, "layer": columns.get("layer", "fc1")}
            rows["steps"].append({**own, "train_loss": 2 / (i + step + 1)})
            rows["layers"].append({**own, "kind": "linear", "rows": 64, "cols": 16, "stable_rank": 1 + i / 8,
                                   "mp_softrank": 0.5})
            rows["spectra"].append({**own, "eigenvalues": [3.0, 2.0 + i, 1.0]})
    return rows


def everything(root: Path) -> dict[str, bytes | None]:
    """All below a folder: the content of files, None for folders."""
    return {os.path.relpath(path, root): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}
