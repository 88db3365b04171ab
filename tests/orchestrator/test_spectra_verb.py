"""`phasesweep spectra FILE`: right numbers under the right names, bad input refused in one line before any work."""

from __future__ import annotations

import json
import re
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from analysis.figures.esd import model_figure
from orchestrator import cli
from orchestrator.commands import spectra
from trials.weights import weight_rows

torch.set_num_threads(1)


@pytest.fixture
def run(capsys):
    """Run the verb; returns (exit status, standard output, standard error)."""
    def call(*words):
        status = cli.main(["spectra", *map(str, words)])
        return status, *capsys.readouterr()
    return call


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    generator = torch.Generator().manual_seed(0)
    net = nn.ModuleDict({
        "wte": nn.Embedding(60, 20), "attn": nn.MultiheadAttention(24, 2), "conv1": nn.Conv2d(3, 8, 3),
        "fc1": nn.Linear(80, 40), "fc2": nn.Linear(40, 80), "flat": nn.Linear(5, 9)})
    for value in net.parameters():
        value.data = torch.randn(value.shape, generator=generator)
    net["fc2"].weight.data += 6 * torch.outer(torch.ones(80), torch.ones(40)) / 80**0.5  # one clear spike
    net["flat"].weight.data.zero_()
    path = tmp_path_factory.mktemp("model") / "model.pt"
    torch.save({"state_dict": {**net.state_dict(), "ids": torch.arange(20).reshape(4, 5)}}, path)
    return path, dict(net.named_parameters())


LAYERS = ["wte", "attn.in_proj_weight:q", "attn.in_proj_weight:k", "attn.in_proj_weight:v", "attn.out_proj", "conv1",
          "fc1", "fc2", "flat"]


def test_json_has_every_matrix_with_its_numbers(run, model):
    path, params = model
    status, out, err = run(path, "--json")
    found = json.loads(out)
    rows = {row["layer"]: row for row in found["layers"]}
    assert status == 0 and not err and list(rows) == LAYERS and found["normalization"].endswith("W^T W / N")
    fused = params["attn.in_proj_weight"].detach()
    weights = {"wte": params["wte.weight"], "conv1": params["conv1.weight"].flatten(1), "fc1": params["fc1.weight"],
               "attn.in_proj_weight:k": fused[24:48], "fc2": params["fc2.weight"]}
    for layer, weight in weights.items():
        singular = np.linalg.svd(weight.detach().double().numpy(), compute_uv=False)
        row = rows[layer]
        assert (row["rows"], row["cols"]) == (max(weight.shape), min(weight.shape))
        assert row["stable_rank"] == pytest.approx((singular**2).sum() / singular[0] ** 2, rel=1e-9)
        assert row["lambda_max"] == pytest.approx(singular[0] ** 2 / row["rows"], rel=1e-9)
    assert rows["fc1"]["n_spikes"] == 0 and rows["fc2"]["n_spikes"] == 1
    assert rows["conv1"]["shape"] == [8, 3, 3, 3] and rows["wte"]["dtype"] == "float32"
    kinds = {rows[layer]["kind_guess"] for layer in LAYERS}
    assert kinds == {"embedding", "attention", "linear", "conv2d"}
    assert rows["flat"]["stable_rank"] is None and "all entries are zero" in rows["flat"]["reason"]


def test_the_table(run, model):
    status, out, _ = run(model[0])
    lines = out.splitlines()
    assert status == 0 and all(any(line.startswith(layer + " ") for line in lines) for layer in LAYERS)
    spiked = next(line.split() for line in lines if line.startswith("fc2 "))
    assert spiked[:5] == ["fc2", "linear", "80", "x", "40"] and spiked[7] == "1" and spiked[8] == "-"
    assert "left out, for not being real numbers: ids" in out and "alpha: the tail is no power law" in out


@pytest.mark.parametrize("seen, cell", [
    ({"alpha": 2.5, "alpha_low": 2.0, "alpha_high": 3.0}, "2.50 [2.00, 3.00]"), ({"alpha_tail": 5}, "- (n 5)"),
    ({"alpha_p": 0.012}, "- (p 0.012)"), ({"alpha_ratio": -1.234}, "- (ratio -1.2)"), ({}, "- (bulk)"),
    ({"alpha_tail": None}, "-")])
def test_alpha_is_shown_with_its_gate(seen, cell):
    assert spectra._alpha({"alpha": None, "alpha_tail": 40, "alpha_p": 0.5, "alpha_ratio": 2.0, **seen}) == cell


def test_filters(run, model):
    rows = json.loads(run(model[0], "--json", "--layers", "attn.*")[1])["layers"]
    assert [row["layer"] for row in rows] == LAYERS[1:5]
    assert [row["layer"] for row in json.loads(run(model[0], "--json", "--layers", "fc?")[1])["layers"]] == LAYERS[6:8]
    assert [row["layer"] for row in json.loads(run(model[0], "--json", "--layers", "*:k")[1])["layers"]] == LAYERS[2:3]


def test_parquet_has_units_and_eigenvalues(run, model, tmp_path):
    path, params = model
    assert run(path, "--parquet", tmp_path / "m.parquet")[0] == 0
    table = pq.read_table(tmp_path / "m.parquet")
    assert table.schema.metadata[b"normalization"] == b"eigenvalues of X = W^T W / N"
    assert table.schema.field("stable_rank").metadata[b"unit"] == b"1"
    rows = {row["layer"]: row for row in table.to_pylist()}
    expected = torch.linalg.svdvals(params["fc1.weight"].detach().double()).square() / 80
    assert list(rows) == LAYERS and rows["fc1"]["eigenvalues"] == pytest.approx(expected.tolist(), rel=1e-9)
    as_json = {row["layer"]: row for row in json.loads(run(path, "--json")[1])["layers"]}
    assert {k: v for k, v in rows["fc2"].items() if k != "eigenvalues"} == as_json["fc2"]


def test_bfloat16_gives_the_numbers_of_the_same_matrix_in_float64(run, tmp_path):
    weight = torch.randn(50, 30, generator=torch.Generator().manual_seed(1)).bfloat16()
    for name, dtype in (("a", torch.bfloat16), ("b", torch.float64)):
        torch.save({"fc.weight": weight.to(dtype)}, tmp_path / f"{name}.pt")
    [one], [other] = (json.loads(run(tmp_path / f"{name}.pt", "--json")[1])["layers"] for name in "ab")
    assert one.pop("dtype") == "bfloat16" and other.pop("dtype") == "float64"
    # Some metrics of the entries are taken in the precision of the matrix: float32 for one, float64 for the other.
    assert {k: v for k, v in one.items() if isinstance(v, (str, list)) or v is None or k in ("rows", "n_spikes")} == {
        k: v for k, v in other.items() if isinstance(v, (str, list)) or v is None or k in ("rows", "n_spikes")}
    numbers = [name for name, value in one.items() if isinstance(value, float) and not name.startswith("entry")]
    assert len(numbers) > 20
    assert [one[name] for name in numbers] == pytest.approx([other[name] for name in numbers], rel=1e-9)


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_plots(run, model, tmp_path, ending):
    path = tmp_path / f"m.{ending}"
    assert run(model[0], "--plot", path)[0] == 0
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending]
    content = path.read_bytes()
    assert content.startswith(start) and len(content) > 10_000
    if ending == "pdf":
        assert content.count(b"/Type /Page ") == 1  # 8 layers that have a spectrum


def test_a_pdf_has_pages(run, tmp_path):
    state = {f"l{k}.weight": torch.randn(12, 6, generator=torch.Generator().manual_seed(k)) for k in range(26)}
    torch.save(state, tmp_path / "m.pt")
    status, _, err = run(tmp_path / "m.pt", "--plot", tmp_path / "m.png")
    assert status == 2 and "26 layers are too many for one picture (24)" in err and not (tmp_path / "m.png").exists()
    assert run(tmp_path / "m.pt", "--plot", tmp_path / "m.pdf", "--layers", "l?")[0] == 0
    assert (tmp_path / "m.pdf").read_bytes().count(b"/Type /Page ") == 2


@pytest.mark.parametrize("words, line", [
    (["--layers", "fc3"], "--layers: 'fc3' matches no layer of .*; did you mean 'fc2'?"),
    (["--layers", "zzzzzz*"], r"matches no layer of .*; there is: wte, .* and 4 more"),
    (["--plot", "spectra.xyz"], "--plot: expected a path that ends in .*png"),
    (["--plot", "nowhere/spectra.png"], "--plot: no folder nowhere"),
    (["--parquet", "nowhere/m.parquet"], "--parquet: no folder nowhere")])
def test_mistakes_are_said_in_one_line_before_any_work(run, model, tmp_path, monkeypatch, words, line):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(spectra, "_measure", lambda *_: pytest.fail("measured"))
    status, out, err = run(model[0], *words)
    assert status == 2 and not out and err.count("\n") == 1 and list(tmp_path.iterdir()) == []
    assert re.search(line, err)


@pytest.mark.parametrize("name, content, line", [
    ("notes.txt", b"these are my notes", "no weight file"), ("m.safetensors", b"\xff" * 100, "no safetensors file"),
    ("m.pt", b"PK\x03\x04", "truncated"),
    ("m.npy", b"\x93NUMPY\x01\x00\xff", "truncated"), ("gone.pt", None, "no such file")])
def test_files_that_are_refused(run, tmp_path, name, content, line):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    status, out, err = run(tmp_path / name)
    assert status == 2 and not out and err.startswith("phasesweep: ") and err.count("\n") == 1 and line in err


def test_a_file_of_vectors_and_whole_numbers(run, tmp_path):
    torch.save({"bias": torch.ones(3), "ids": torch.ones(3, 3, dtype=torch.int64)}, tmp_path / "m.pt")
    status, _, err = run(tmp_path / "m.pt")
    assert status == 2 and "no weight matrices in it" in err


def test_weights_in_parts_are_put_together_and_what_is_left_out_is_said(run, tmp_path):
    weight, scale = torch.randn(40, 20, generator=torch.Generator().manual_seed(0)), torch.rand(40, 1)
    torch.save({"fp8.weight": weight.to(torch.float8_e4m3fn), "fp8.weight_scale": scale,
                "doubt.weight": weight.to(torch.float8_e4m3fn), "doubt.weight_scale": torch.rand(7, 3),
                "int8.weight": torch.ones(4, 4, dtype=torch.int8), "sparse": torch.eye(3).to_sparse(),
                "packed.qweight": torch.ones(4, 4, dtype=torch.int32), "packed.scales": torch.rand(2, 4)},
               tmp_path / "m.pt")
    status, out, _ = run(tmp_path / "m.pt", "--json")
    found = json.loads(out)
    scaled, doubt, packed = found["layers"]
    singular = np.linalg.svd((weight.to(torch.float8_e4m3fn).float() * scale).double().numpy(), compute_uv=False)
    assert status == 0 and scaled["lambda_max"] == pytest.approx(singular[0] ** 2 / 40, rel=1e-9)
    assert scaled["layer"] == "fp8" and scaled["made"] == "stored * weight_scale, blocks of 1 x 20"
    assert doubt["lambda_max"] is None and doubt["rows"] is None and "does not fit" in doubt["reason"]
    assert packed["layer"] == "packed" and packed["reason"] == "packed (GPTQ or AWQ)"
    assert found["left_out"] == {"int8.weight": "int8 without scales", "sparse": "of layout sparse_coo"}
    status, out, _ = run(tmp_path / "m.pt")
    assert status == 0 and "left out, int8 without scales: int8.weight" in out
    assert re.search(r"^fp8 .* 1 .*$", out, re.M) and "1  stored * weight_scale, blocks of 1 x 20" in out
    assert run(tmp_path / "m.pt", "--parquet", tmp_path / "m.parquet")[0] == 0
    assert pq.read_table(tmp_path / "m.parquet")["rows"].to_pylist() == [40, None, None]


def test_a_file_of_tensors_without_entries_is_quick(run, tmp_path):
    header = json.dumps({f"l{k}.weight": {"dtype": "F32", "shape": [0, 0], "data_offsets": [0, 0]}
                         for k in range(20_000)}).encode()
    (tmp_path / "m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    began = time.process_time()
    status, out, _ = run(tmp_path / "m.safetensors")
    assert status == 0 and "and 18,000 more layers" in out and time.process_time() - began < 10


def test_names_cannot_write_to_the_terminal(run, tmp_path):
    torch.save({"[red]\x1b]0;owned\x07.weight": torch.eye(4)}, tmp_path / "m.pt")
    status, out, _ = run(tmp_path / "m.pt")
    assert status == 0 and "\x1b" not in out and "[red]" in out


def test_what_cannot_be_measured_is_a_row(run, tmp_path):
    nan = torch.full((6, 4), torch.nan)
    torch.save({"nan.weight": nan, "none.weight": torch.zeros(0, 5), "row.weight": torch.ones(1, 9)}, tmp_path / "m.pt")
    rows = json.loads(run(tmp_path / "m.pt", "--json")[1])["layers"]
    assert [row["stable_rank"] for row in rows] == [None, None, 1.0]
    assert "not finite" in rows[0]["reason"] and rows[1]["reason"] == "no entries"
    status, _, err = run(tmp_path / "m.pt", "--plot", tmp_path / "m.png", "--layers", "n*")
    assert status == 2 and "nothing to draw" in err


def test_the_figure_shows_the_layer_it_names_and_a_tail_with_the_mass_of_its_eigenvalues():
    generator = torch.Generator().manual_seed(3)
    heavy = torch.rand(200, 100, generator=generator).double() ** -1 * torch.randn(200, 100, generator=generator).sign()
    [first, second], found = weight_rows([heavy, torch.randn(90, 40, generator=generator)])
    assert first["alpha"] is not None and second["alpha"] is None
    figure = model_figure("m.pt", [{**first, "layer": "a$b", "eigenvalues": found[0]},
                                   {**second, "layer": "c", "eigenvalues": found[1]}])
    one, other = figure.axes
    assert one.get_title("left") == "a\\$b (200 × 100)\n" and other.get_title("left") == "c (90 × 40)\n"
    assert f"{first['alpha']:.2f}" in one.get_title("right") and "alpha" not in other.get_title("right")
    assert not [line for line in other.lines if line.get_linestyle() == "--"]
    [tail] = [line for line in one.lines if line.get_linestyle() == "--"]
    x, density = tail.get_data()
    assert x[0] == pytest.approx(first["alpha_xmin"]) and x[-1] == pytest.approx(found[0][0])
    beyond = (x[-1] / x[0]) ** (1 - first["alpha"])  # of the power law, past the largest eigenvalue
    drawn = np.trapezoid(density * x, np.log(x)) if hasattr(np, "trapezoid") else np.trapz(density * x, np.log(x))
    assert drawn == pytest.approx(first["alpha_tail"] / 100 * (1 - beyond), rel=1e-3)
